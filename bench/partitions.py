"""What callers notice while the network between services fails: partitions, slow links, a replica that is out of reach.

    sudo python -m bench.partitions [--rate 10] [--cut 30] [--only TEXT]... [--json FILE]

Two edges, three inference, two cache, two safety, a Redis and a PostgreSQL, each on a machine of its own as far as the
network goes (`bench.network`). One after the other, links are cut for half a minute, so that packets vanish and nobody
is told, and made slow: 100 ms more for the way there and back, and 1 % of packets lost each way. Callers ask all the
while (`bench.fleet`), for a model that needs every answer judged, and in one step for one that does not.

It prints what befell the requests asked before, during and after each, and exits 1 where one failed that need not have:
all may but those that need a judgement while no safety can be reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pwd
import shutil
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, STDOUT
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.callers import MODEL
from bench.fleet import Fleet, Load, Noticed, loaded, script
from bench.names import Names
from bench.network import CUT, Link, Machine, Network
from bench.upstream import Upstream

AROUND_S = 8.0  # of load before and after each fault
SLOW = Link(delay_s=0.05, loss=0.01)
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens to the network.

    Attributes:
        name: What the table calls it.
        ends: The hosts on either side of the links that it befalls.
        link: What becomes of them.
        model: What is asked meanwhile.
        may_refuse: Whether requests may be refused meanwhile, since nobody could judge their answers.
    """

    name: str
    ends: Callable[[Fleet, str, str], tuple[list[str], list[str]]]
    link: Link = CUT
    model: str = MODEL
    may_refuse: bool = False


def _of(service: str, count: int | None = None) -> Callable[[Fleet, str, str], tuple[list[str], list[str]]]:
    return lambda fleet, redis, postgres: (fleet.hosts(service)[:count], fleet.hosts("inference"))


def _redis(fleet: Fleet, redis: str, postgres: str) -> tuple[list[str], list[str]]:
    return [redis], fleet.hosts("inference", "cache")


def _postgres(fleet: Fleet, redis: str, postgres: str) -> tuple[list[str], list[str]]:
    return [postgres], fleet.hosts("inference")


def _edges(fleet: Fleet, redis: str, postgres: str) -> tuple[list[str], list[str]]:
    return fleet.hosts("edge"), fleet.hosts("inference")


FAULTS = (
    Fault("one cache cut off", _of("cache", 1)),
    Fault("both cache cut off", _of("cache")),
    Fault("one safety cut off", _of("safety", 1)),
    Fault("both safety cut off, open", _of("safety"), model="open"),
    Fault("both safety cut off, closed", _of("safety"), may_refuse=True),
    Fault("Redis cut off", _redis),
    Fault("PostgreSQL cut off", _postgres),
    Fault("slow: cache", _of("cache"), SLOW),
    Fault("slow: safety", _of("safety"), SLOW),
    Fault("slow: Redis", _redis, SLOW),
    Fault("slow: PostgreSQL", _postgres, SLOW),
    Fault("slow: edge to inference", _edges, SLOW),
)


@asynccontextmanager
async def redis_server(machine: Machine) -> AsyncIterator[str]:
    """Runs a Redis that keeps nothing; yields its URL."""
    options = ["--bind", machine.host, "--protected-mode", "no", "--save", "", "--appendonly", "no"]
    process = await asyncio.create_subprocess_exec(*machine.enter, "redis-server", *options, stdout=DEVNULL)
    try:
        await _reachable(machine.host, 6379)
        yield f"redis://{machine.host}:6379/0"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def postgres_server(machine: Machine) -> AsyncIterator[str]:
    """Runs an empty PostgreSQL that lets everybody in; yields its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise SystemExit("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = pwd.getpwnam(UNPRIVILEGED)
    unprivileged = ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    folder = Path(tempfile.mkdtemp(prefix="millrace-postgres-"))
    os.chown(folder, user.pw_uid, user.pw_gid)
    try:
        data = folder / "data"
        initdb = (found[-1] / "initdb", "-D", data, "--no-sync", "--auth=trust", "--username=millrace", "--locale=C")
        setup = await asyncio.create_subprocess_exec(*unprivileged, *initdb, stdout=DEVNULL)
        if await setup.wait():
            raise SystemExit("initdb failed")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 0.0.0.0/0 trust\n")
        options = ("-D", str(data), "-h", machine.host, "-k", str(folder), "-c", "fsync=off")
        command = (*machine.enter, *unprivileged, str(found[-1] / "postgres"), *options)
        process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=STDOUT)
        try:
            await _reachable(machine.host, 5432)
            yield f"postgresql+asyncpg://millrace@{machine.host}/postgres"
        finally:
            process.send_signal(signal.SIGQUIT)
            await process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _reachable(host: str, port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                return writer.close()


def told(noticed: Noticed) -> dict[str, Any]:
    """What a row says of one span of time."""
    return {
        "asked": noticed.asked,
        "failed": dict(noticed.failed),
        "cut": dict(noticed.cut),
        "retried": noticed.retried,
        "p95_ms": round(noticed.p95_ms),
        "longest_ms": round(1000 * noticed.longest_s),
    }


class Stand:
    """A fleet on a network, under load."""

    def __init__(self, network: Network, fleet: Fleet, load: Load, redis: str, postgres: str) -> None:
        self.fleet, self.load = fleet, load
        self._network, self._redis, self._postgres = network, redis, postgres

    async def suffer(self, fault: Fault, lasts_s: float) -> dict[str, Any]:
        """Brings a fault about under load; returns what was noticed before, during and after."""
        load = self.load
        load.model = fault.model
        load.turn()
        await asyncio.sleep(AROUND_S)
        # Whoever is under way when the fault comes belongs to it.
        before = await load.turn().settled()
        ends = fault.ends(self.fleet, self._redis, self._postgres)
        self._network.link(*ends, fault.link)
        await asyncio.sleep(lasts_s)
        self._network.link(*ends, None)
        during = await load.turn().settled()
        await asyncio.sleep(AROUND_S)
        after = await load.turn().settled()
        row = {"fault": fault.name, "before": told(before), "during": told(during), "after": told(after)}
        # What may be refused may still be, until safety was found again.
        needed = (before,) if fault.may_refuse else (before, during, after)
        return {**row, "good": not any(one.failed or one.cut for one in needed)}


@asynccontextmanager
async def stand(folder: Path, rate: float) -> AsyncIterator[Stand]:
    """Starts everything, and the load."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Network())
        here = network.here.host
        names = await stack.enter_async_context(Names(here))
        upstream = await stack.enter_async_context(Upstream(script, here))
        redis, postgres = network.machine(), network.machine()
        redis_url = await stack.enter_async_context(redis_server(redis))
        database_url = await stack.enter_async_context(postgres_server(postgres))
        fleet = Fleet(folder, names, upstream.url, redis_url, database_url, network.machine)
        stack.push_async_callback(fleet.stop)
        await fleet.fill()
        load = await stack.enter_async_context(loaded(fleet, rate))
        yield Stand(network, fleet, load, redis.host, postgres.host)


async def measure(rate: float, cut_s: float, only: list[str], folder: Path) -> list[dict[str, Any]]:
    """Brings about every fault; returns a row for each."""
    rows: list[dict[str, Any]] = []
    async with stand(folder, rate) as ready:
        for fault in FAULTS:
            if not only or any(text in fault.name for text in only):
                rows.append(await ready.suffer(fault, cut_s if fault.link is CUT else cut_s / 2))
                print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> int:
    """Measures, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=10.0, help="requests a second")
    parser.add_argument("--cut", type=float, default=30.0, help="seconds that links are cut; slow ones, half of it")
    parser.add_argument("--only", action="append", default=[], help="faults whose names hold this")
    parser.add_argument("--folder", type=Path, help="keep logs here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-partitions-") as scratch:
        rows = asyncio.run(measure(args.rate, args.cut, args.only, args.folder or Path(scratch)))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(row["good"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
