"""How long an exact hit takes through the cache service over gRPC, and what the service takes meanwhile.

    python -m bench.cache_hit [--store redis] [--entries 1000] [--lookups 3000] [--json OUT]

Starts the service, and a Redis if asked for, as processes of their own on free ports; stores answers of 2 KB in 20
chunks, 16 at a time; and looks them up in a random order, one at a time, then 32 at a time. Reports the client's times,
and the service's CPU and memory after each. It writes only to a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cache_stand import CacheProcess, Redis
from millrace.cache.v1.cache_service_pb2 import LookupRequest, StoreRequest
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import MISS_REASON_STORE_UNAVAILABLE, Query

CHUNKS = [b"x" * 100] * 20
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Record:
    """One kind of call. `unavailable` counts lookups that ran into their deadline and are misses."""

    store: str
    call: str
    at_once: int
    calls: int
    unavailable: int
    p50_ms: float
    p99_ms: float
    per_s: int
    cpu_ms_per_call: float
    memory_mib: int


def main() -> None:
    """Measures, prints a table, and writes the figures if asked to."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        records = [asdict(record) for record in asyncio.run(measure(options, Path(folder)))]
    print("  ".join(f"{name:>15}" for name in records[0]))
    for record in records:
        print("  ".join(f"{value:>15}" for value in record.values()))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


async def measure(options: argparse.Namespace, folder: Path) -> list[Record]:
    """Stores entries and looks them up; one record for each way."""
    redis = Redis(folder) if options.store == "redis" else None
    settings = {"redis_url": redis.url} if redis else {}
    service = CacheProcess(folder, store=options.store, hot_bytes_max=options.hot_bytes_max, **settings)
    try:
        if redis:
            await redis.start()
        await service.start()
        keys = [_key(number) for number in range(options.entries)]
        chosen = random.Random(1).choices(keys, k=options.lookups)
        return [
            await _measure(options.store, "Store", 16, keys, service, _store),
            await _measure(options.store, "Lookup", 1, chosen, service, _lookup),
            await _measure(options.store, "Lookup", 32, chosen, service, _lookup),
        ]
    finally:
        await service.stop()
        if redis:
            await redis.kill()


async def _store(service: CacheProcess, key: EntryKey) -> bool:
    await service.stub.Store(StoreRequest(draft=EntryDraft(key=key, schema_tag="bench.v1"), chunks=CHUNKS))
    return True


async def _lookup(service: CacheProcess, key: EntryKey) -> bool:
    found = await service.stub.Lookup(LookupRequest(query=Query(key=key, schema_tag="bench.v1")))
    if not found.HasField("hit") and found.miss.reason != MISS_REASON_STORE_UNAVAILABLE:
        raise SystemExit(f"not a hit: {found}")
    return found.HasField("hit")


async def _measure(
    store: str,
    call: str,
    at_once: int,
    keys: list[EntryKey],
    service: CacheProcess,
    act: Callable[[CacheProcess, EntryKey], Awaitable[bool]],
) -> Record:
    """Calls for every key, so many at once."""
    remaining, times_ms, unavailable = iter(keys), [], 0

    async def work() -> None:
        nonlocal unavailable
        for key in remaining:
            started = time.perf_counter()
            unavailable += not await act(service, key)
            times_ms.append((time.perf_counter() - started) * 1000)

    cpu_s, started = _cpu_s(service.pid), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    wall_s, cpu_s = time.perf_counter() - started, _cpu_s(service.pid) - cpu_s
    cuts = statistics.quantiles(times_ms, n=100)
    return Record(
        *(store, call, at_once, len(keys), unavailable, round(cuts[49], 2), round(cuts[98], 2)),
        *(round(len(keys) / wall_s), round(cpu_s * 1000 / len(keys), 3), _memory_mib(service.pid)),
    )


def _cpu_s(pid: int) -> float:
    """CPU time that a process has taken, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def _memory_mib(pid: int) -> int:
    """Memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def _key(number: int) -> EntryKey:
    digest = number.to_bytes(32, "big")
    return EntryKey(namespace=Namespace(tenant="bench"), model="m", request_digest=digest, canonical_version=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["embedded", "redis"], default="embedded")
    parser.add_argument("--entries", type=int, default=1000, help="entries stored")
    parser.add_argument("--lookups", type=int, default=3000, help="lookups measured, each way")
    parser.add_argument("--hot-bytes-max", type=int, default=64 << 20, help="0 reads every hit from the file")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
