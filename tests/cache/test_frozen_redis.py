"""A real service on a Redis that is stopped where it stands: it answers nothing, and refuses nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from bench.cache_stand import CacheProcess, Redis
from kit.status import from_rpc_error
from millrace.cache.v1.cache_service_pb2 import (
    GetStatsRequest,
    LookupRequest,
    LookupStreamRequest,
    StoreFinish,
    StoreRequest,
    StoreStart,
    StoreStreamRequest,
)
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace
from millrace.cache.v1.lookup_pb2 import (
    HIT_KIND_EXACT,
    MISS_REASON_LEASED,
    MISS_REASON_STORE_UNAVAILABLE,
    LeaseQuery,
    Query,
)

# The service's default, and how late a busy machine may be: far below the second for which a connection is waited for.
DEADLINE_S = 0.05
LATE_S = 0.7
RECOVERY_S = 20
LEASE = LeaseQuery(ttl=Duration(seconds=30), wait=Duration())


def query(number: int, lease: LeaseQuery | None = None) -> LookupRequest:
    digest = number.to_bytes(32, "big")
    key = EntryKey(namespace=Namespace(tenant="acme"), model="m", request_digest=digest, canonical_version=1)
    return LookupRequest(query=Query(key=key, schema_tag="test.v1", lease=lease))


def answer(number: int) -> StoreRequest:
    return StoreRequest(draft=EntryDraft(key=query(number).query.key, schema_tag="test.v1"), chunks=[b"%d" % number])


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    server = Redis(tmp_path)
    await server.start()
    yield server
    server.thaw()
    await server.kill()


@pytest.fixture
async def service(tmp_path: Path, redis: Redis) -> AsyncIterator[CacheProcess]:
    process = CacheProcess(tmp_path, store="redis", redis_url=redis.url)
    await process.start()
    yield process
    await process.stop()


async def timed(service: CacheProcess, request: LookupRequest) -> tuple[float, int]:
    """How long a lookup took, and why it missed."""
    started = time.monotonic()
    found = await service.stub.Lookup(request, timeout=10)
    return time.monotonic() - started, found.miss.reason


async def test_frozen_redis_costs_a_lookup_its_deadline_then_nothing(service: CacheProcess, redis: Redis):
    """Lookups take their deadline once, with or without a lease, then nothing, and all hit again after the thaw."""
    for number in range(5):
        await service.stub.Store(answer(number))
    redis.freeze()
    first = await asyncio.gather(*(timed(service, query(number % 5)) for number in range(200)))
    started = time.monotonic()
    later = [await timed(service, query(number % 5, LEASE)) for number in range(200)]
    took_s = time.monotonic() - started

    assert {reason for _, reason in first} == {MISS_REASON_STORE_UNAVAILABLE}
    assert max(seconds for seconds, _ in first) < DEADLINE_S + LATE_S
    assert {reason for _, reason in later} <= {MISS_REASON_STORE_UNAVAILABLE, MISS_REASON_LEASED}
    assert took_s < 200 * DEADLINE_S / 4  # Far less than if each had waited.
    assert not (await service.stub.GetStats(GetStatsRequest())).stats.store_available
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await service.stub.Store(answer(9))
    assert from_rpc_error(caught.value).reason == "STORE_UNAVAILABLE"

    redis.thaw()
    async with asyncio.timeout(RECOVERY_S):
        for number in range(5):
            while (await service.stub.Lookup(query(number))).hit.kind != HIT_KIND_EXACT:
                pass


async def test_frozen_redis_leaves_single_flight_within_the_service(service: CacheProcess, redis: Redis):
    """While Redis is frozen one of many who miss gets a lease, and its answer is passed on though it cannot be kept."""
    redis.freeze()
    while not (lease_id := (await service.stub.Lookup(query(7, LEASE))).miss.lease.lease_id):
        pass
    while (await service.stub.GetStats(GetStatsRequest())).stats.store_available:
        assert (await timed(service, query(8)))[1] == MISS_REASON_STORE_UNAVAILABLE
    leader = service.stub.StoreStream()
    await leader.write(StoreStreamRequest(start=StoreStart(lease_id=lease_id, draft=answer(7).draft)))
    await leader.write(StoreStreamRequest(chunk=b"7"))
    waiting = LeaseQuery(ttl=Duration(seconds=30), wait=Duration(seconds=30))
    lookup = LookupStreamRequest(query=query(7, waiting).query)
    waiters = [aiter(service.stub.LookupStream(lookup, timeout=30)) for _ in range(20)]
    for waiter in waiters:
        assert (await anext(waiter)).HasField("following")
    await leader.write(StoreStreamRequest(finish=StoreFinish()))
    await leader.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await leader

    assert from_rpc_error(caught.value).reason == "STORE_UNAVAILABLE"
    for waiter in waiters:
        events = [event async for event in waiter if not event.HasField("waiting")]
        assert [event.WhichOneof("event") for event in events] == ["chunk", "completed"]
        assert events[0].chunk == b"7"
