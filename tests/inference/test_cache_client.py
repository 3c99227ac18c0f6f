"""The cache as the pipeline sees it, against the real service."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest

from kit import identity, telemetry
from kit.channel import Channel
from kit.dial import REPLICA_WAITS_S, dial
from kit.errors import Code, DeadlineExceeded, InvalidArgument, MillraceError, Unavailable
from kit.identity import CallContext
from kit.serve import Registration, Server
from millrace.cache.v1 import cache_service_pb2, cache_service_pb2_grpc, entry_pb2, lookup_pb2
from services.cache import wiring
from services.cache.config import CacheSettings
from services.inference.caching import cache_wire
from services.inference.caching.cache_client import CacheClient
from services.inference.caching.cache_port import (
    CacheDraft,
    CacheFound,
    CacheKey,
    CacheMiss,
    CacheQuery,
    FlightBegun,
    FlightLanded,
    FlightNews,
    FlightRestarted,
    SemanticQuery,
    Shadow,
)
from services.inference.events import CacheOutcome, Receipt
from services.inference.generation import Usage
from tests.inference.clocks import ManualClock
from tests.inference.parts import receipt

KEY = CacheKey("acme", "", "gpt", bytes(range(32)))
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
        self.called, self.gate = asyncio.Event(), asyncio.Event()
        self.gate.set()
        self.answer: cache_service_pb2.LookupResponse | None = None
        self.queries: list[lookup_pb2.Query] = []

    async def Lookup(self, request: cache_service_pb2.LookupRequest, context: object) -> Any:
        self.queries.append(request.query)
        await self.gate.wait()
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


def draft(key: CacheKey = KEY, **fields: Any) -> CacheDraft:
    return CacheDraft(key, 60, tags=("a",), **fields)


async def put(client: CacheClient, key: CacheKey = KEY, *chunks: bytes) -> None:
    await client.store(draft(key), chunks or (b"answer",), receipt())


async def get(client: CacheClient, key: CacheKey = KEY, **fields: Any) -> CacheFound | None:
    said = await client.lookup(CacheQuery(key, **fields))
    return said if isinstance(said, CacheFound) else None


async def failure(client: CacheClient) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        await get(client)
    return caught.value


async def test_what_is_kept_is_found(cache: Running) -> None:
    """To the byte, with where it came from and how old it is."""
    assert await get(cache.client) is None
    chunks = (bytes(range(256)) * 1_000, b"and more")
    await put(cache.client, KEY, *chunks)

    found = await get(cache.client)

    assert found
    assert (found.outcome, found.chunks, found.similarity) == (CacheOutcome.EXACT, chunks, None)
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
    assert (mine.chunks, others.chunks) == ((b"answer",), (b"other",))


async def test_the_schema_is_part_of_the_question(cache: Running) -> None:
    """An entry of another form is a miss, and says so."""
    stub = cache_service_pb2_grpc.CacheServiceStub(cache.channel)
    made = cache_wire.draft(draft())
    made.schema_tag = "of.before"
    await stub.Store(cache_service_pb2.StoreRequest(draft=made, chunks=[b"answer"]), timeout=LIMIT_S)

    assert await cache.client.lookup(CacheQuery(KEY)) == CacheMiss("SCHEMA_MISMATCH")


async def test_too_old_is_a_miss(cache: Running) -> None:
    """A caller may want it fresher than it is."""
    await put(cache.client)
    assert await get(cache.client, age_max_s=60)
    async with asyncio.timeout(LIMIT_S):
        while await get(cache.client, age_max_s=0.001):  # until it is older than a millisecond
            pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The service's clock, in milliseconds; a test that takes it takes it before the service."""
    made = ManualClock(1_700_000_000_000)
    monkeypatch.setattr(wiring, "now_ms", made)
    return made


async def test_an_expired_answer_is_found_where_that_is_allowed(clock: ManualClock, cache: Running) -> None:
    """For as long past its time as its plan says; marked, with its age."""
    await cache.client.store(draft(stale_for_s=100), [b"answer"], receipt())
    clock.turn(70_000)

    found = await get(cache.client, allow_stale=True)

    assert await get(cache.client) is None
    assert found
    assert (found.outcome, found.chunks, found.age_s) == (CacheOutcome.STALE, (b"answer",), 70)
    assert await get(cache.client, age_max_s=65, allow_stale=True) is None
    clock.turn(95_000)
    assert await get(cache.client, allow_stale=True) is None


async def test_the_widest_key_is_taken(cache: Running) -> None:
    """Whatever the front door admits as tenant, user and model, the cache can keep."""
    wide = CacheKey("~" * 256, "ü🎉\n" * 85 + "u", "m " * 128, bytes(32))
    await put(cache.client, wide)

    assert await get(cache.client, wide)


async def test_savings_are_told(cache: Running) -> None:
    """What an answer had used is what its hits save."""
    used = Receipt("r1", "gpt", usage=Usage(30, 7), cost_micro_usd=11, duration_s=1.5)
    await cache.client.store(draft(), [b"answer"], used)
    await get(cache.client)

    stub = cache_service_pb2_grpc.CacheServiceStub(cache.channel)
    stats = await stub.GetStats(cache_service_pb2.GetStatsRequest(), timeout=LIMIT_S)

    saved = stats.stats.saved
    assert (saved.prompt_token_count, saved.completion_token_count, saved.cost_micro_usd) == (30, 7, 11)
    assert saved.generation_time.ToMilliseconds() == 1500


async def test_what_does_not_fit_is_an_error_that_names_the_field(cache: Running) -> None:
    """The caller of the store decides what to make of it; the service goes on."""
    with pytest.raises(InvalidArgument) as caught:
        await put(cache.client, KEY, bytes(5 << 20))

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


@pytest.mark.parametrize(
    ("reason", "told"),
    [("NOT_FOUND", ""), ("EXPIRED", "EXPIRED"), ("UNSURE", "UNSURE"), ("STORE_UNAVAILABLE", "STORE_UNAVAILABLE")],
)
async def test_a_miss_says_why(hanging: tuple[Running, HangingCache], reason: Any, told: str) -> None:
    """That nothing is there is the rule and not worth a word."""
    running, servicer = hanging
    miss = lookup_pb2.Miss(reason=f"MISS_REASON_{reason}")  # type: ignore[arg-type]
    servicer.answer = cache_service_pb2.LookupResponse(miss=miss)

    assert await running.client.lookup(CacheQuery(KEY)) == CacheMiss(told)


async def test_a_shadow_is_handed_on(hanging: tuple[Running, HangingCache]) -> None:
    """With what was held back, so that it can be compared."""
    running, servicer = hanging
    shadow = lookup_pb2.Shadow(shadow_id="s1", entry=entry_pb2.Entry(chunks=[b"a", b"b"]))
    miss = lookup_pb2.Miss(reason=lookup_pb2.MISS_REASON_SHADOW, shadow=shadow)
    servicer.answer = cache_service_pb2.LookupResponse(miss=miss)

    assert await running.client.lookup(CacheQuery(KEY)) == CacheMiss("SHADOW", shadow=Shadow("s1", (b"a", b"b")))


async def test_bounds_are_passed_on(hanging: tuple[Running, HangingCache]) -> None:
    """What a semantic hit must keep to, and nothing where that is the service's to say."""
    running, servicer = hanging
    servicer.answer = cache_service_pb2.LookupResponse(miss=lookup_pb2.Miss())
    key = msgspec.structs.replace(KEY, context=bytes(32))
    await running.client.lookup(CacheQuery(key, semantic=SemanticQuery("a", 0.9, 0.01)))
    strict = servicer.queries[-1]
    await running.client.lookup(CacheQuery(key, semantic=SemanticQuery("a")))
    free = servicer.queries[-1]

    assert (strict.semantic.similarity_min, strict.semantic.error_max) == (0.9, 0.01)
    assert (strict.semantic.compare_text, strict.key.context_digest) == ("a", bytes(32))
    assert not free.semantic.HasField("similarity_min")
    assert not free.semantic.HasField("error_max")
    assert not strict.HasField("lease")


LEASED = CacheQuery(KEY, lease_s=30.0)


async def led(cache: Running) -> str:
    """The lease of the first who misses."""
    said = await cache.client.lookup(LEASED)
    assert isinstance(said, CacheMiss)
    assert said.lease_id
    return said.lease_id


async def heard(following: AsyncGenerator[FlightNews, None], count: int) -> list[FlightNews]:
    """The next pieces of news."""
    async with asyncio.timeout(LIMIT_S):
        return [await anext(following) for _ in range(count)]


async def test_one_of_many_leads(cache: Running) -> None:
    """The others are told that somebody does."""
    await led(cache)

    said = await cache.client.lookup(LEASED)

    assert isinstance(said, CacheMiss)
    assert (said.leased, said.lease_id) == (True, "")


async def test_who_follows_hears_the_answer_as_it_is_made(cache: Running) -> None:
    """Chunk by chunk, and that it is complete; the maker hears that somebody follows, and of what was saved."""
    stream = cache.client.store_stream(draft(), await led(cache), LIMIT_S)
    async with aclosing(cache.client.follow(LEASED, LIMIT_S)) as following:
        await stream.send(b"one")
        assert await heard(following, 2) == [FlightBegun(), b"one"]
        async with asyncio.timeout(LIMIT_S):
            await stream.followed()
        await stream.send(b"two")
        assert await heard(following, 1) == [b"two"]
        await stream.finish(receipt(), None)
        (landed,) = await heard(following, 1)

    found = await get(cache.client)
    assert found
    assert found.chunks == (b"one", b"two")
    assert landed == FlightLanded(found.entry_id)


class MortalCache(cache_service_pb2_grpc.CacheServiceServicer):
    """Tells each of so many followers, while it lives, that an answer is made; the next one, that there is none."""

    def __init__(self, lost_count: int, is_telling: bool) -> None:
        self._lost_count, self._is_telling = lost_count, is_telling
        self.asked_count = 0

    async def LookupStream(self, request: cache_service_pb2.LookupStreamRequest, context: Any) -> AsyncIterator[Any]:
        self.asked_count += 1
        if self.asked_count <= self._lost_count:
            if self._is_telling:
                yield cache_service_pb2.LookupStreamResponse(following=cache_service_pb2.Following())
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        yield cache_service_pb2.LookupStreamResponse(miss=lookup_pb2.Miss())


@pytest.mark.parametrize("is_telling", [True, False])
async def test_who_follows_is_told_by_whoever_is_left(is_telling: bool) -> None:
    """However many go away one after another; so many that told nothing are all that there are."""
    mortal = MortalCache(2 + len(REPLICA_WAITS_S), is_telling)
    running = await serve(
        (Registration(wiring.FULL_NAME, cache_service_pb2_grpc.add_CacheServiceServicer_to_server, mortal),)
    )
    heard: list[FlightNews] = []
    with nullcontext() if is_telling else pytest.raises(Unavailable):
        async with asyncio.timeout(LIMIT_S):
            heard += [news async for news in running.client.follow(LEASED, LIMIT_S)]

    assert mortal.asked_count == (3 if is_telling else 1) + len(REPLICA_WAITS_S)
    assert heard[:-1] == [FlightBegun(), FlightRestarted()] * (2 + len(REPLICA_WAITS_S) if is_telling else 0)
    await running.channel.close()
    await running.server.stop(0)


async def test_who_makes_an_answer_alone_hears_of_nobody(cache: Running) -> None:
    """Until somebody follows."""
    stream = cache.client.store_stream(draft(), await led(cache), LIMIT_S)
    await stream.send(b"one")
    alone = asyncio.create_task(stream.followed())
    await cache.client.lookup(CacheQuery(bytes_key(1)))
    assert not alone.done()

    async with aclosing(cache.client.follow(LEASED, LIMIT_S)) as following:
        await heard(following, 2)
        await asyncio.wait_for(alone, LIMIT_S)
    stream.cancel()


def bytes_key(number: int) -> CacheKey:
    return msgspec.structs.replace(KEY, digest=bytes([number] * 32))


async def test_one_of_those_who_wait_takes_over(cache: Running) -> None:
    """As soon as the maker has gone: it gets the lease, and whoever else waits hears the answer from the beginning."""
    stream = cache.client.store_stream(draft(), await led(cache), LIMIT_S)
    await stream.send(b"half")
    first, second = (cache.client.follow(LEASED, LIMIT_S) for _ in range(2))
    assert await heard(first, 2) == await heard(second, 2) == [FlightBegun(), b"half"]
    await stream.give_up()

    restarted, given = await heard(first, 2)
    assert restarted == FlightRestarted()
    assert isinstance(given, CacheMiss)
    again = cache.client.store_stream(draft(), given.lease_id, LIMIT_S)
    await again.send(b"whole")
    assert await heard(second, 3) == [FlightRestarted(), FlightBegun(), b"whole"]
    again.cancel()
    await first.aclose()
    await second.aclose()


async def test_a_lease_that_is_given_back_is_given_on(cache: Running) -> None:
    """At once, to one who waits; the answer that it stores ends it."""
    lease_id = await led(cache)
    following = cache.client.follow(LEASED, LIMIT_S)
    waiting = asyncio.create_task(heard(following, 1))
    await cache.client.release(lease_id)
    (given,) = await waiting
    assert isinstance(given, CacheMiss)
    late = cache.client.follow(LEASED, LIMIT_S)
    waiting = asyncio.create_task(heard(late, 1))
    await cache.client.store(draft(), [b"one", b"two"], receipt(), given.lease_id)

    (found,) = await waiting

    assert isinstance(found, CacheFound)
    assert (found.outcome, found.chunks) == (CacheOutcome.EXACT, (b"one", b"two"))
    await following.aclose()
    await late.aclose()


async def test_a_stream_that_the_cache_refuses_says_so(cache: Running) -> None:
    """At the chunk behind which it ended, or at the latest at its end."""
    stream = cache.client.store_stream(draft(), "", LIMIT_S)

    async def fill() -> None:
        while True:
            await stream.send(bytes(1 << 20))

    with pytest.raises(MillraceError):
        await asyncio.wait_for(fill(), LIMIT_S)


async def test_a_false_hit_is_reported(cache: Running) -> None:
    """The entry is gone; of another tenant's nothing is touched."""
    await put(cache.client)
    found = await get(cache.client)
    assert found
    other = msgspec.structs.replace(KEY, tenant="other")

    assert not await cache.client.report_false_hit(other, found.entry_id, None)
    assert await cache.client.report_false_hit(KEY, found.entry_id, "text")
    assert not await cache.client.report_false_hit(KEY, found.entry_id, None)
    assert await get(cache.client) is None


async def test_a_cache_that_is_gone_is_unavailable() -> None:
    """At once, for lookups as for stores."""
    async with dial("127.0.0.1:1") as channel:
        client = CacheClient(channel, LIMIT_S, LIMIT_S)

        assert isinstance(await failure(client), Unavailable)
        with pytest.raises(Unavailable):
            await put(client)


async def test_similar_questions_may_take_longer(hanging: tuple[Running, HangingCache]) -> None:
    """A lookup that asks for them has a time of its own on top."""
    running, servicer = hanging
    client = CacheClient(running.channel, 0.001, LIMIT_S, LIMIT_S)
    servicer.answer = cache_service_pb2.LookupResponse(miss=lookup_pb2.Miss())
    servicer.gate.clear()
    similar = asyncio.create_task(client.lookup(CacheQuery(KEY, semantic=SemanticQuery("hi"))))
    assert (await failure(client)).code is Code.DEADLINE_EXCEEDED
    servicer.gate.set()

    assert await similar == CacheMiss()
