"""What callers and the ledger notice of a PostgreSQL that is away: stopped, or frozen where it stands.

    python -m bench.ledger_away [--away-s 60] [--callers 8] [--json FILE]

An inference process serves short streams to callers, some of whom leave, and writes its ledger into a PostgreSQL of its
own. That is stopped for so long and started again, and then frozen (SIGSTOP) for as long. At last every request and
attempt that a caller was told of is looked for in the database, as by `bench.ledger_kill`. It prints the 95th
percentile of whole answers before, during and after, what failed, and the lines that were logged; and exits 1 where a
row is lost or doubled, or a request failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import grpc
from pydantic import SecretStr

from bench.figures import quantile, rounded
from bench.ledger_kill import Killed, Told, ask, found_in, is_right, script
from bench.postgres import PostgresServer
from bench.upstream import Upstream
from kit.dial import dial
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from services.inference.database.database import Database
from services.inference.database.migrating import upgrade
from services.inference.database.settings import DatabaseSettings

AROUND_S = 10.0  # of load before and after each fault
PAUSE_S = 0.05  # between a caller's requests


class Load:
    """Callers that ask again and again; each whole answer's time is told by the phase that it began in."""

    def __init__(self, stub: Any, told: Told) -> None:
        self._stub, self._told, self._draw = stub, told, Random(1)
        self.phase = ""
        self.took_ms: dict[str, list[float]] = {}
        self.failed: dict[str, int] = {}
        self.is_over = False

    async def call(self, name: str) -> None:
        """One caller, until it is over."""
        number = 0
        while not self.is_over:
            number += 1
            phase, began = self.phase, time.monotonic()
            try:
                if await ask(self._stub, self._told, self._draw, f"{name}.{number}"):
                    self.took_ms.setdefault(phase, []).append((time.monotonic() - began) * 1000)
            except grpc.aio.AioRpcError:
                self.failed[phase] = self.failed.get(phase, 0) + 1
            await asyncio.sleep(PAUSE_S)

    async def during(self, phase: str, seconds: float) -> None:
        """Lets the callers ask for so long."""
        print(f"{phase} ...", file=sys.stderr)
        self.phase = phase
        await asyncio.sleep(seconds)


async def run(postgres: PostgresServer, away_s: float, callers: int) -> dict[str, Any]:
    """Takes the database away twice, and returns what was noticed."""
    told, url = Told(), postgres.create_database()
    with tempfile.TemporaryDirectory() as name:
        database = Database(DatabaseSettings(url=SecretStr(url)))
        await upgrade(database)
        async with Upstream(script) as upstream:
            service = Killed(Path(name), upstream.url, url)
            await service.start()
            async with dial(f"127.0.0.1:{service.port}") as channel:
                load = Load(InferenceServiceStub(channel), told)
                calling = [asyncio.create_task(load.call(f"caller{number}")) for number in range(callers)]
                await load.during("before", AROUND_S)
                for fault, begin, end in (
                    ("stopped", postgres.stop, postgres.start),
                    ("frozen", postgres.freeze, postgres.thaw),
                ):
                    await asyncio.to_thread(begin)
                    await load.during(fault, away_s)
                    await asyncio.to_thread(end)
                    await load.during(f"after {fault}", AROUND_S)
                load.is_over = True
                await asyncio.gather(*calling)
            await service.end(signal.SIGTERM)
        found = await found_in(database, told)
        await database.close()
        logged = (Path(name) / "inference.log").read_text().splitlines()
    p95 = {phase: rounded(quantile(times, 0.95)) for phase, times in load.took_ms.items()}
    return {"away_s": away_s, "p95_ms": p95, "failed": load.failed, "logged": len(logged), "lines": logged[:5], **found}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--away-s", type=float, default=60)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    try:
        postgres = PostgresServer()
    except FileNotFoundError as missing:
        sys.exit(str(missing))
    try:
        found = asyncio.run(run(postgres, options.away_s, options.callers))
    finally:
        postgres.close()
    for name, value in found.items():
        print(f"{name:<18} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    sys.exit(bool(found["failed"]) or not is_right(found))


if __name__ == "__main__":
    main()
