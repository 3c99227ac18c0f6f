"""Three real cache services on one real Redis, many callers, and an upstream that counts how often it is asked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from bench.cache_stand import CacheProcess, Redis
from millrace.cache.v1.cache_service_pb2 import LookupStreamRequest, StoreFinish, StoreStart, StoreStreamRequest
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import LeaseQuery, Query

CALLERS = 500
KEY = EntryKey(namespace=Namespace(tenant="acme"), model="m", request_digest=b"d" * 32, canonical_version=1)
DRAFT = EntryDraft(key=KEY, schema_tag="test.v1")
LEASE = LeaseQuery(ttl=Duration(seconds=60), wait=Duration(seconds=60))
QUERY = LookupStreamRequest(query=Query(key=KEY, schema_tag="test.v1", lease=LEASE))
CHUNKS = [b"%d " % number for number in range(30)]
HALF = 15
ANSWER = b"".join(CHUNKS)
DEADLINE_S = 90


class Upstream:
    """A model that gives the same answer each time it is asked; the first time it waits half-way."""

    def __init__(self) -> None:
        self.call_count = 0
        self.go_on, self.all_heard = asyncio.Event(), asyncio.Event()
        self._heard: set[Caller] = set()

    def heard(self, caller: "Caller", chunk_count: int) -> None:
        """Notes who has seen the first half of an answer that another caller produces."""
        if chunk_count == HALF:
            self._heard.add(caller)
            if len(self._heard) == CALLERS - 1:
                self.all_heard.set()

    async def answer(self) -> AsyncIterator[bytes]:
        self.call_count += 1
        for chunk in CHUNKS[:HALF]:
            yield chunk
        if self.call_count == 1:
            await self.go_on.wait()
        for chunk in CHUNKS[HALF:]:
            yield chunk


class Caller:
    """Someone who wants the answer, asks a replica for it, and produces it if told to."""

    def __init__(self, upstream: Upstream, replicas: list[CacheProcess], number: int) -> None:
        self._upstream, self._replicas, self._turn = upstream, replicas, number
        self.leads_at: CacheProcess | None = None
        self.task = asyncio.create_task(self._ask())

    async def _ask(self) -> bytes:
        while True:
            replica = self._replicas[self._turn % len(self._replicas)]
            try:
                answer = await self._ask_once(replica)
                if answer is not None:
                    return answer
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            self._turn += 1

    async def _ask_once(self, replica: CacheProcess) -> bytes | None:
        chunks: list[bytes] = []
        call = replica.stub.LookupStream(QUERY, timeout=DEADLINE_S)
        try:
            async for event in call:
                kind = event.WhichOneof("event")
                if kind == "chunk":
                    chunks.append(event.chunk)
                    self._upstream.heard(self, len(chunks))
                elif kind == "restarted":
                    chunks.clear()
                elif kind == "completed":
                    assert event.completed.chunk_count == len(chunks)
                    return b"".join(chunks)
                elif kind == "miss" and event.miss.HasField("lease"):
                    return await self._lead(replica, event.miss.lease.lease_id)
        finally:
            call.cancel()
        return None

    async def _lead(self, replica: CacheProcess, lease_id: str) -> bytes:
        self.leads_at = replica
        produced: list[bytes] = []
        storing = replica.stub.StoreStream(timeout=DEADLINE_S)
        try:
            await storing.write(StoreStreamRequest(start=StoreStart(lease_id=lease_id, draft=DRAFT)))
            async for chunk in self._upstream.answer():
                produced.append(chunk)
                if not storing.done():  # Whoever produces goes on without the cache.
                    await storing.write(StoreStreamRequest(chunk=chunk))
            if not storing.done():
                await storing.write(StoreStreamRequest(finish=StoreFinish()))
                await storing
        finally:
            storing.cancel()
        return b"".join(produced)


@pytest.fixture
async def replicas(tmp_path: Path) -> AsyncIterator[list[CacheProcess]]:
    redis = Redis(tmp_path)
    await redis.start()
    made = [
        CacheProcess(tmp_path, f"cache{number}", store="redis", redis_url=redis.url, redis_read_timeout_s=5)
        for number in range(3)
    ]
    try:
        await asyncio.gather(*(replica.start() for replica in made))
        yield made
    finally:
        await asyncio.gather(*(replica.stop() for replica in made))
        await redis.kill()


async def half_way(upstream: Upstream, callers: list[Caller]) -> Caller:
    """Waits until all but the leader have seen a part of the answer; returns the leader."""
    async with asyncio.timeout(DEADLINE_S):
        await upstream.all_heard.wait()
    (leader,) = (caller for caller in callers if caller.leads_at)
    return leader


async def answers(callers: list[Caller]) -> list[bytes]:
    async with asyncio.timeout(DEADLINE_S):
        return await asyncio.gather(*(caller.task for caller in callers))


async def test_many_misses_are_one_upstream_call(replicas: list[CacheProcess]):
    """Of 500 concurrent identical misses at three replicas, one asks the upstream; all get the whole answer."""
    upstream = Upstream()
    callers = [Caller(upstream, replicas, number) for number in range(CALLERS)]
    await half_way(upstream, callers)
    upstream.go_on.set()

    assert await answers(callers) == [ANSWER] * CALLERS
    assert upstream.call_count == 1


async def test_killed_leader_is_one_upstream_call_more(replicas: list[CacheProcess]):
    """When the leader dies half-way, one of the 499 others asks the upstream; all of them get the whole answer."""
    upstream = Upstream()
    callers = [Caller(upstream, replicas, number) for number in range(CALLERS)]
    leader = await half_way(upstream, callers)
    leader.task.cancel()
    callers.remove(leader)

    assert await answers(callers) == [ANSWER] * (CALLERS - 1)
    assert upstream.call_count == 2


async def test_killed_replica_is_one_upstream_call_more(replicas: list[CacheProcess]):
    """When the leader's replica dies half-way, one caller at another leads; all get the whole answer somewhere."""
    upstream = Upstream()
    callers = [Caller(upstream, replicas, number) for number in range(CALLERS)]
    leader = await half_way(upstream, callers)
    assert leader.leads_at is not None
    await leader.leads_at.kill()
    callers.remove(leader)

    assert await answers(callers) == [ANSWER] * (CALLERS - 1)
    upstream.go_on.set()
    assert await answers([leader]) == [ANSWER]
    assert upstream.call_count == 2
