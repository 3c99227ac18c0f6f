"""What callers notice while replicas come and go: restarts one by one, kills, a replica that is new.

    python -m bench.rolling [--rate 20] [--settle 3] [--json FILE]

Real processes on loopback addresses of their own, found by a name server: two edges, three inference, two cache on one
Redis, two safety. Callers ask over the edges and over gRPC, streamed and whole, at a steady rate; an answer takes half
a second. Over the edges they do as a load balancer does: only edges whose /readyz says 200, asked five times a second.

Then every service is restarted one replica after the other, each with a replacement first, as a cluster does it; one
replica of each is killed by SIGKILL; and one more inference is added. It exits 1 where a restart failed a request or
cut a stream, a request that a kill failed could not be repeated, or the new replica waited longer than ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from bench.cache_stand import Redis
from bench.callers import FULL_NAME
from bench.fleet import COUNTS, Fleet, Load, loopback, script
from bench.names import Names
from bench.upstream import Upstream
from kit.dial import dial

NEW_REPLICA_S = 10.0


async def restart(fleet: Fleet, service: str) -> float:
    """Replaces every replica of a service, one after the other; returns the longest drain in seconds."""
    longest_s = 0.0
    for old in list(fleet.replicas[service]):
        await fleet.add(service)
        fleet.remove(old)
        longest_s = max(longest_s, await old.end(signal.SIGTERM))
    return longest_s


async def kill(fleet: Fleet, service: str) -> None:
    """Kills one replica, leaves its address in the names as a crash does, and starts another after a second."""
    victim = fleet.replicas[service][0]
    await victim.end(signal.SIGKILL)
    await asyncio.sleep(1)
    fleet.remove(victim)
    await fleet.add(service)


async def first_call_s(fleet: Fleet) -> float:
    """Seconds from an inference's being in the names to the first call that it gets."""
    added = await fleet.add("inference")
    started = time.monotonic()
    async with asyncio.timeout(4 * NEW_REPLICA_S):
        while not await asyncio.to_thread(added.call_count):  # noqa: ASYNC110 - another process is watched
            await asyncio.sleep(0.1)
    return time.monotonic() - started


async def measure(rate: float, settle_s: float) -> list[dict[str, Any]]:
    """Runs every step under load and returns what was noticed in each."""
    rows: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-rolling-")))
        names = await stack.enter_async_context(Names())
        upstream = await stack.enter_async_context(Upstream(script))
        redis = Redis(folder)
        stack.push_async_callback(redis.kill)
        await redis.start()
        database_url = f"sqlite+aiosqlite:///{folder}/millrace.sqlite3"
        fleet = Fleet(folder, names, upstream.url, redis.url, database_url, loopback())
        stack.push_async_callback(fleet.stop)
        await fleet.fill()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), read_bufsize=2**20)
        )
        channel = await stack.enter_async_context(dial(fleet.inference_target, service=FULL_NAME))
        load = Load(fleet, rate, session, channel)
        running = [asyncio.create_task(load.run()), asyncio.create_task(load.probe())]
        for task in running:
            stack.callback(task.cancel)
        await asyncio.sleep(settle_s)
        await load.turn().settled()

        async def step(name: str, **told: float) -> None:
            await asyncio.sleep(settle_s)
            noticed = await load.turn().settled()
            row = {"step": name, "asked": noticed.asked, "failed": dict(noticed.failed), "cut": dict(noticed.cut)}
            rows.append({**row, "retried": noticed.retried, "longest_s": round(noticed.longest_s, 2), **told})
            print(json.dumps(rows[-1]), flush=True)

        await step("nothing")
        for service in COUNTS:
            drain_s = await restart(fleet, service)
            await step(f"restart {service}", drain_s=round(drain_s, 2))
        for service in COUNTS:
            await kill(fleet, service)
            await step(f"kill {service}")
        waited_s = await first_call_s(fleet)
        await step("new inference", first_call_s=round(waited_s, 2))
        for task in running:
            task.cancel()
        await load.turn().settled()
    return rows


def is_good(row: dict[str, Any]) -> bool:
    """Whether a step kept what is promised."""
    if row["step"].startswith("kill "):
        return bool(row["retried"] == sum(row["failed"].values()))
    return not row["failed"] and not row["cut"] and row.get("first_call_s", 0) <= NEW_REPLICA_S


def main() -> int:
    """Measures, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds of load after each step")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = asyncio.run(measure(args.rate, args.settle))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(is_good(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
