"""The cache as the pipeline sees it, against the real service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kit import identity, telemetry
from kit.channel import Channel
from kit.dial import dial
from kit.errors import Code, DeadlineExceeded, InvalidArgument, MillraceError, Unavailable
from kit.identity import CallContext
from kit.serve import Registration, Server
from millrace.cache.v1 import cache_service_pb2, cache_service_pb2_grpc, lookup_pb2
from services.cache import wiring
from services.cache.config import CacheSettings
from services.inference.cache_client import CacheClient
from services.inference.caching import CacheFound, CacheKey
from services.inference.events import CacheOutcome, Receipt
from services.inference.generation import Usage
from services.inference.recording import CachePlan
from tests.inference.clocks import ManualClock
from tests.inference.parts import receipt

KEY = CacheKey("acme", "", "gpt", bytes(range(32)))
TAG = "test.v1"
LIMIT_S = 5.0


@dataclass
class Running:
    """A cache service and a client of it."""

    client: CacheClient
    channel: Channel
    server: Server

    def impatient(self, limit_s: float) -> CacheClient:
        """A client that waits no longer than this."""
        return CacheClient(self.channel, limit_s, limit_s)


async def serve(registrations: tuple[Registration, ...]) -> Running:
    server = Server("cache", CacheSettings(port=0), registrations, telemetry.off())
    port = await server.start()
    server.set_serving("", True)
    channel = dial(f"127.0.0.1:{port}", service=wiring.FULL_NAME)
    await channel.channel_ready()
    return Running(CacheClient(channel, LIMIT_S, LIMIT_S), channel, server)


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[Running]:
    """The service with its embedded store."""
    service = await wiring.build(CacheSettings(port=0, path=tmp_path / "cache.sqlite3"), telemetry.off())
    running = await serve(service.registrations)
    await service.warm(running.server)
    yield running
    await running.channel.close()
    await running.server.stop(0)
    await service.close()


class HangingCache(cache_service_pb2_grpc.CacheServiceServicer):
    """Answers nothing, or a miss for want of a store."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.answer: cache_service_pb2.LookupResponse | None = None

    async def Lookup(self, request: object, context: object) -> cache_service_pb2.LookupResponse:
        if self.answer is None:
            await asyncio.Event().wait()
        assert self.answer
        return self.answer

    async def Store(self, request: object, context: object) -> cache_service_pb2.StoreResponse:
        self.called.set()
        await asyncio.sleep(0)
        return cache_service_pb2.StoreResponse()


@pytest.fixture
async def hanging() -> AsyncIterator[tuple[Running, HangingCache]]:
    """A service that hangs."""
    servicer = HangingCache()
    add = cache_service_pb2_grpc.add_CacheServiceServicer_to_server
    running = await serve((Registration(wiring.FULL_NAME, add, servicer),))
    yield running, servicer
    await running.channel.close()
    await running.server.stop(0)


async def put(client: CacheClient, key: CacheKey = KEY, payload: bytes = b"answer", ttl_s: float = 60) -> None:
    await client.store(key, TAG, payload, CachePlan(True, True, ttl_s=ttl_s), ("a",), receipt())


async def get(client: CacheClient, key: CacheKey = KEY, age_max_s: float | None = None) -> CacheFound | None:
    return await client.lookup(key, TAG, age_max_s)


async def failure(client: CacheClient) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        await get(client)
    return caught.value


async def test_what_is_kept_is_found(cache: Running) -> None:
    """To the byte, with where it came from and how old it is."""
    assert await get(cache.client) is None
    payload = bytes(range(256)) * 1_000
    await put(cache.client, payload=payload)

    found = await get(cache.client)

    assert found
    assert (found.outcome, found.payload, found.similarity) == (CacheOutcome.EXACT, payload, None)
    assert found.entry_id
    assert 0 <= found.age_s < 60


@pytest.mark.parametrize(
    "other",
    [
        CacheKey("other", "", "gpt", KEY.digest),
        CacheKey("acme", "u", "gpt", KEY.digest),
        CacheKey("acme", "", "gpt-2", KEY.digest),
        CacheKey("acme", "", "gpt", bytes(32)),
    ],
    ids=["tenant", "user", "model", "digest"],
)
async def test_keys_that_differ_anywhere_share_nothing(cache: Running, other: CacheKey) -> None:
    """Tenant, user, model or digest: each makes another entry."""
    await put(cache.client)
    assert await get(cache.client, other) is None
    await put(cache.client, other, b"other")

    mine, others = await get(cache.client), await get(cache.client, other)
    assert mine
    assert others
    assert (mine.payload, others.payload) == (b"answer", b"other")


async def test_the_schema_is_part_of_the_question(cache: Running) -> None:
    """An entry of another form is a miss."""
    await put(cache.client)

    assert await cache.client.lookup(KEY, "test.v2", None) is None


async def test_too_old_is_a_miss(cache: Running) -> None:
    """A caller may want it fresher than it is."""
    await put(cache.client)
    assert await get(cache.client, age_max_s=60)
    async with asyncio.timeout(LIMIT_S):
        while await get(cache.client, age_max_s=0.001):  # until it is older than a millisecond
            pass


async def test_a_short_lifetime_is_a_second(cache: Running) -> None:
    """The contract knows none shorter, and a route may ask for one."""
    await put(cache.client, ttl_s=0.01)

    assert await get(cache.client)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The service's clock, in milliseconds; a test that takes it takes it before the service."""
    made = ManualClock(1_700_000_000_000)
    monkeypatch.setattr(wiring, "now_ms", made)
    return made


async def test_an_expired_answer_is_found_where_that_is_allowed(clock: ManualClock, cache: Running) -> None:
    """For as long past its time as its plan says; marked, with its age."""
    plan = CachePlan(True, True, ttl_s=60, stale_for_s=100)
    await cache.client.store(KEY, TAG, b"answer", plan, (), receipt())
    clock.turn(70_000)

    found = await cache.client.lookup(KEY, TAG, None, allow_stale=True)

    assert await get(cache.client) is None
    assert found
    assert (found.outcome, found.payload, found.age_s) == (CacheOutcome.STALE, b"answer", 70)
    assert await cache.client.lookup(KEY, TAG, 65, allow_stale=True) is None
    clock.turn(95_000)
    assert await cache.client.lookup(KEY, TAG, None, allow_stale=True) is None


async def test_the_widest_key_is_taken(cache: Running) -> None:
    """Whatever the front door admits as tenant, user and model, the cache can keep."""
    wide = CacheKey("~" * 256, "ü🎉\n" * 85 + "u", "m " * 128, bytes(32))
    await put(cache.client, wide)

    assert await get(cache.client, wide)


async def test_savings_are_told(cache: Running) -> None:
    """What an answer had used is what its hits save."""
    used = Receipt("r1", "gpt", usage=Usage(30, 7), cost_micro_usd=11, duration_s=1.5)
    await cache.client.store(KEY, TAG, b"answer", CachePlan(True, True, ttl_s=60), (), used)
    await get(cache.client)

    stub = cache_service_pb2_grpc.CacheServiceStub(cache.channel)
    stats = await stub.GetStats(cache_service_pb2.GetStatsRequest(), timeout=LIMIT_S)

    saved = stats.stats.saved
    assert (saved.prompt_token_count, saved.completion_token_count, saved.cost_micro_usd) == (30, 7, 11)
    assert saved.generation_time.ToMilliseconds() == 1500


async def test_what_does_not_fit_is_an_error_that_names_the_field(cache: Running) -> None:
    """The caller of the store decides what to make of it; the service goes on."""
    with pytest.raises(InvalidArgument) as caught:
        await put(cache.client, payload=bytes(5 << 20))

    assert caught.value.field_violations[0].field == "chunks"
    await put(cache.client)


async def test_a_cache_that_hangs_is_given_up(hanging: tuple[Running, HangingCache]) -> None:
    """After the client's own limit, however long the call may take."""
    running, _ = hanging
    start = time.monotonic()

    error = await failure(running.impatient(0.05))

    assert isinstance(error, DeadlineExceeded)
    assert time.monotonic() - start < LIMIT_S


async def test_a_lookup_never_outlives_its_call(hanging: tuple[Running, HangingCache]) -> None:
    """The call's own deadline is kept where it is the shorter."""
    running, _ = hanging
    start = time.monotonic()

    with identity.use(CallContext("r1", deadline=start + 0.05)):
        error = await failure(running.client)

    assert error.code is Code.DEADLINE_EXCEEDED
    assert time.monotonic() - start < LIMIT_S


async def test_a_store_outlives_its_call(hanging: tuple[Running, HangingCache]) -> None:
    """The caller has gone, its deadline is over: the answer is kept all the same."""
    running, servicer = hanging

    with identity.use(CallContext("r1", deadline=time.monotonic() - 1)):
        await put(running.client)

    assert servicer.called.is_set()


async def test_a_cache_without_its_store_is_no_miss(hanging: tuple[Running, HangingCache]) -> None:
    """It is told apart from knowing nothing; any other miss is a miss."""
    running, servicer = hanging
    miss = lookup_pb2.Miss(reason=lookup_pb2.MISS_REASON_STORE_UNAVAILABLE)
    servicer.answer = cache_service_pb2.LookupResponse(miss=miss)
    assert (await failure(running.client)).reason == "STORE_UNAVAILABLE"

    servicer.answer = cache_service_pb2.LookupResponse(miss=lookup_pb2.Miss(reason=lookup_pb2.MISS_REASON_NOT_FOUND))
    assert await get(running.client) is None


async def test_a_cache_that_is_gone_is_unavailable() -> None:
    """At once, for lookups as for stores."""
    async with dial("127.0.0.1:1") as channel:
        client = CacheClient(channel, LIMIT_S, LIMIT_S)

        assert isinstance(await failure(client), Unavailable)
        with pytest.raises(Unavailable):
            await put(client)
