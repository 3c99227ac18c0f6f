"""Kills the cache service or its Redis at random moments under load, again and again.

    python -m bench.cache_kill [--rounds 100] [--seed 1] [--json OUT]

Callers store answers, whole and streamed, and look them up all the time. Each round kills -9 one of: the service with
the embedded store, the service on Redis, Redis itself (appendonly, every write on the disk before it is acknowledged).
Then it must come back, every answer ever served must be whole, and no answer that was acknowledged may be lost. Exits
with 1 if one is torn or lost. It writes only to a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import grpc

from bench.cache_stand import CacheProcess, Redis
from millrace.cache.v1.cache_service_pb2 import (
    LookupRequest,
    LookupStreamRequest,
    StoreFinish,
    StoreRequest,
    StoreStart,
    StoreStreamRequest,
)
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import MISS_REASON_STORE_UNAVAILABLE, Query

EMBEDDED, _, REDIS = VICTIMS = ("service, embedded", "service on Redis", "Redis")
CALLERS = 8
LOAD_S = (0.05, 0.6)
# Acknowledged answers that are looked up after each kill; all of them are at the end.
SAMPLE_COUNT = 100
CALL_S = 5.0
RECOVERY_S = 60.0


@dataclass
class Result:
    """What was done and seen."""

    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    acknowledged: int = 0
    hits: int = 0
    torn: int = 0
    lost: int = 0
    recovery_s_max: float = 0.0


class StoreAwayError(Exception):
    """A miss for want of the store: it says nothing of what is kept."""


class Subject:
    """A service with its store, those who call it, and what they were promised."""

    def __init__(self, service: CacheProcess, result: Result, draw: random.Random) -> None:
        self.service = service
        self._result, self._draw = result, draw
        self._acknowledged: list[int] = []
        self._next_number = 0

    async def call(self) -> None:
        """Stores and looks up, until cancelled; calls that fail are none of its business."""
        while True:
            try:
                await (self._store() if self._draw.random() < 0.5 else self._look_up_any())
            except (grpc.aio.AioRpcError, StoreAwayError):
                await asyncio.sleep(0.01)

    async def recover(self) -> None:
        """Waits until what was acknowledged is found again, and checks a sample of it."""
        started = time.monotonic()
        chosen = self._draw.sample(self._acknowledged, min(SAMPLE_COUNT, len(self._acknowledged)))
        async with asyncio.timeout(RECOVERY_S):
            for number in chosen[:1]:  # The others must be there at once.
                await self._wait_for(number)
        self._result.recovery_s_max = max(self._result.recovery_s_max, time.monotonic() - started)
        await self.check(chosen)

    async def check(self, numbers: list[int] | None = None) -> None:
        """Counts answers that were acknowledged and are not there; all if none are named."""
        for number in self._acknowledged if numbers is None else numbers:
            self._result.lost += not await self._is_there(number)

    async def _wait_for(self, number: int) -> None:
        while True:
            if await self._is_there(number):
                return
            await asyncio.sleep(0.02)

    async def _is_there(self, number: int) -> bool:
        """Looks one up until there is an answer; a call that fails is none."""
        async with asyncio.timeout(RECOVERY_S):
            while True:
                try:
                    return await self._look_up(number)
                except (grpc.aio.AioRpcError, StoreAwayError):
                    await asyncio.sleep(0.02)

    async def _look_up_any(self) -> None:
        if self._next_number:
            await self._look_up(self._draw.randrange(self._next_number))

    async def _look_up(self, number: int) -> bool:
        """Looks one up, whole or streamed; true if it is there.

        Raises:
            grpc.aio.AioRpcError: The call failed.
            StoreAwayError: The service says that it cannot see its entries now.
        """
        query = Query(key=key_of(number), schema_tag="bench.v1")
        if self._draw.random() < 0.5:
            found = await self.service.stub.Lookup(LookupRequest(query=query), timeout=CALL_S)
            missed, chunks = found.miss.reason, list(found.hit.entry.chunks)
        else:
            events = self.service.stub.LookupStream(LookupStreamRequest(query=query), timeout=CALL_S)
            told = [event async for event in events]
            missed = told[-1].miss.reason
            chunks = [event.chunk for event in told if event.WhichOneof("event") == "chunk"]
        if missed == MISS_REASON_STORE_UNAVAILABLE:
            raise StoreAwayError
        if not chunks:
            return False
        self._result.hits += 1
        self._result.torn += chunks != answer_to(number)
        return True

    async def _store(self) -> None:
        number, self._next_number = self._next_number, self._next_number + 1
        draft = EntryDraft(key=key_of(number), schema_tag="bench.v1")
        if self._draw.random() < 0.5:
            request = StoreRequest(draft=draft, chunks=answer_to(number))
            await self.service.stub.Store(request, timeout=CALL_S)
        else:
            await self.service.stub.StoreStream(messages(draft, number), timeout=CALL_S)
        self._acknowledged.append(number)
        self._result.acknowledged += 1


def messages(draft: EntryDraft, number: int) -> Iterator[StoreStreamRequest]:
    """A stream that stores an answer."""
    yield StoreStreamRequest(start=StoreStart(draft=draft))
    for chunk in answer_to(number):
        yield StoreStreamRequest(chunk=chunk)
    yield StoreStreamRequest(finish=StoreFinish())


def key_of(number: int) -> EntryKey:
    """A key for each number."""
    digest = number.to_bytes(32, "big")
    return EntryKey(namespace=Namespace(tenant="bench"), model="m", request_digest=digest, canonical_version=1)


def answer_to(number: int) -> list[bytes]:
    """The answer for a number: one to fifty chunks, some KB, that no other number has."""
    seed = hashlib.sha256(number.to_bytes(8, "big")).digest()
    return [hashlib.shake_128(seed + bytes([i])).digest(1 + seed[1] * 2) for i in range(1 + seed[0] % 50)]


async def run(rounds: int, seed: int, folder: Path) -> Result:
    """Kills so often, and reports."""
    result, draw = Result(), random.Random(seed)
    redis = Redis(folder)
    await redis.start()
    services = {
        "embedded": CacheProcess(folder, "embedded"),
        "redis": CacheProcess(folder, "redis", store="redis", redis_url=redis.url, redis_read_timeout_s=2),
    }
    subjects = {name: Subject(service, result, draw) for name, service in services.items()}
    try:
        await asyncio.gather(*(service.start() for service in services.values()))
        for number in range(rounds):
            victim = VICTIMS[number % len(VICTIMS)]
            subject = subjects["embedded" if victim == EMBEDDED else "redis"]
            await _round(victim, subject, redis, draw)
            result.kills[victim] += 1
        for subject in subjects.values():
            await subject.check()
    finally:
        await asyncio.gather(*(service.stop() for service in services.values()))
        await redis.kill()
    return result


async def _round(victim: str, subject: Subject, redis: Redis, draw: random.Random) -> None:
    """Puts load on, kills, starts again, and lets the load go on meanwhile."""
    callers = [asyncio.create_task(subject.call()) for _ in range(CALLERS)]
    await asyncio.sleep(draw.uniform(*LOAD_S))
    killed: Redis | CacheProcess = redis if victim == REDIS else subject.service
    await killed.kill()
    await killed.start()
    await subject.recover()
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    for caller in callers:
        if not caller.cancelled():
            caller.result()


def main() -> None:
    """Runs, prints, and writes the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100, help="kills")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(options.rounds, options.seed, Path(folder)))
    for name, value in asdict(result).items():
        print(f"{name:>16}  {value}")
    if options.json:
        options.json.write_text(json.dumps(asdict(result), indent=1))
    raise SystemExit(1 if result.torn or result.lost else 0)


if __name__ == "__main__":
    main()
