"""What callers notice while replicas come and go: restarts one by one, kills, a replica that is new.

    python -m bench.rolling [--rate 20] [--settle 3] [--apart] [--json FILE]

Real processes on loopback addresses of their own, found by a name server: two edges, three inference, two cache on one
Redis, two safety; with --apart, as root, in network namespaces of their own, and on PostgreSQL. Callers ask all the
time (`bench.fleet`).

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
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from bench.cache_stand import Redis
from bench.fleet import COUNTS, Fleet, Load, loaded, loopback, script
from bench.names import Names
from bench.partitions import stand
from bench.upstream import Upstream

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


@asynccontextmanager
async def together(folder: Path, rate: float) -> AsyncIterator[tuple[Fleet, Load]]:
    """Starts everything on loopback addresses, and the load."""
    async with AsyncExitStack() as stack:
        names = await stack.enter_async_context(Names())
        upstream = await stack.enter_async_context(Upstream(script))
        redis = Redis(folder)
        stack.push_async_callback(redis.kill)
        await redis.start()
        database_url = f"sqlite+aiosqlite:///{folder}/millrace.sqlite3"
        fleet = Fleet(folder, names, upstream.url, redis.url, database_url, loopback())
        stack.push_async_callback(fleet.stop)
        await fleet.fill()
        yield fleet, await stack.enter_async_context(loaded(fleet, rate))


@asynccontextmanager
async def apart(folder: Path, rate: float) -> AsyncIterator[tuple[Fleet, Load]]:
    """Starts everything in network namespaces, and the load."""
    async with stand(folder, rate) as made:
        yield made.fleet, made.load


async def measure(fleet: Fleet, load: Load, settle_s: float) -> list[dict[str, Any]]:
    """Runs every step under load and returns what was noticed in each."""
    rows: list[dict[str, Any]] = []

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
    return rows


async def run(folder: Path, is_apart: bool, rate: float, settle_s: float) -> list[dict[str, Any]]:
    """Starts everything and measures."""
    async with (apart if is_apart else together)(folder, rate) as (fleet, load):
        return await measure(fleet, load, settle_s)


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
    parser.add_argument("--apart", action="store_true", help="a network namespace each, and PostgreSQL; needs root")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-rolling-") as folder:
        rows = asyncio.run(run(Path(folder), args.apart, args.rate, args.settle))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(is_good(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
