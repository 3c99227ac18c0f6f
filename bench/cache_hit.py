"""How long an exact hit takes through the cache service, over gRPC.

    python -m bench.cache_hit [--store redis --redis-url redis://127.0.0.1:6379/0] [--json OUT]

Starts the service as a process of its own on a free port, stores answers of 2 KB in 20 chunks, and looks them up in a
random order: first one at a time, then 32 at a time. Reports the client's times, and the service's CPU over all of it.
It writes only to a temporary folder, or to the Redis given.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.dial import dial
from millrace.cache.v1.cache_service_pb2 import GetStatsRequest, LookupRequest, StoreRequest
from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import Query

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

ROOT = Path(__file__).resolve().parents[1]
FULL_NAME = "millrace.cache.v1.CacheService"
CHUNKS = [b"x" * 100] * 20
START_DEADLINE_S = 30


def main() -> None:
    """Measures, prints a table, and writes the figures if asked to."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        service = subprocess.Popen(
            [sys.executable, "-m", "services.cache"], env=_environ(options, folder, port), cwd=ROOT
        )
        try:
            records = asyncio.run(measure(f"127.0.0.1:{port}", options.entries, options.lookups))
        finally:
            service.terminate()
            service.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    for record in records:
        print("  ".join(f"{name} {value:>8}" for name, value in record.items()))
    print(f"service: {used.ru_maxrss / 1024:.0f} MiB at most, {used.ru_utime + used.ru_stime:.1f} s CPU")
    if options.json:
        options.json.write_text(json.dumps([record | {"store": options.store} for record in records], indent=1))


async def measure(target: str, entry_count: int, lookup_count: int) -> list[dict[str, Any]]:
    """Stores entries and looks them up; one record for each number of lookups at a time."""
    channel = dial(target, service=FULL_NAME)
    stub: CacheServiceAsyncStub = CacheServiceStub(channel)
    try:
        await stub.GetStats(GetStatsRequest(), wait_for_ready=True, timeout=START_DEADLINE_S)
        keys = [_key(number) for number in range(entry_count)]
        await _each(16, keys, lambda key: _store(stub, key))
        records = []
        for at_once in (1, 32):
            chosen = random.Random(1).choices(keys, k=lookup_count)
            times_ms: list[float] = []
            started = time.perf_counter()
            await _each(at_once, chosen, lambda key, times_ms=times_ms: _lookup(stub, key, times_ms))
            records.append(_record(at_once, times_ms, time.perf_counter() - started))
        return records
    finally:
        await channel.close()


async def _store(stub: CacheServiceAsyncStub, key: EntryKey) -> None:
    await stub.Store(StoreRequest(draft=EntryDraft(key=key, schema_tag="bench.v1"), chunks=CHUNKS))


async def _lookup(stub: CacheServiceAsyncStub, key: EntryKey, times_ms: list[float]) -> None:
    started = time.perf_counter()
    found = await stub.Lookup(LookupRequest(query=Query(key=key, schema_tag="bench.v1")))
    times_ms.append((time.perf_counter() - started) * 1000)
    if not found.HasField("hit"):
        raise SystemExit(f"not a hit: {found}")


async def _each(at_once: int, keys: list[EntryKey], act: Any) -> None:
    """Does something with every key, so many at once."""
    remaining = iter(keys)

    async def work() -> None:
        for key in remaining:
            await act(key)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


def _record(at_once: int, times_ms: list[float], wall_s: float) -> dict[str, Any]:
    cuts = statistics.quantiles(times_ms, n=100)
    return {
        "at_once": at_once,
        "lookups": len(times_ms),
        "p50_ms": round(cuts[49], 3),
        "p99_ms": round(cuts[98], 3),
        "per_s": round(len(times_ms) / wall_s),
    }


def _key(number: int) -> EntryKey:
    digest = number.to_bytes(32, "big")
    return EntryKey(namespace=Namespace(tenant="bench"), model="m", request_digest=digest, canonical_version=1)


def _environ(options: argparse.Namespace, folder: str, port: int) -> dict[str, str]:
    settings = {
        "PORT": str(port),
        "STORE": options.store,
        "PATH": f"{folder}/entries.sqlite3",
        "REDIS_URL": options.redis_url,
        "HOT_BYTES_MAX": str(options.hot_bytes_max),
        "LOG_LEVEL": "warning",
    }
    return {**os.environ, **{f"MILLRACE_CACHE_{name}": value for name, value in settings.items()}}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", choices=["embedded", "redis"], default="embedded")
    parser.add_argument("--redis-url", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--entries", type=int, default=1000, help="entries stored")
    parser.add_argument("--lookups", type=int, default=3000, help="lookups measured, each way")
    parser.add_argument("--hot-bytes-max", type=int, default=64 << 20, help="0 reads every hit from the file")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
