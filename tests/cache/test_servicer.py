"""The cache over gRPC: a real server on a free port, and the generated stub."""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit import telemetry
from kit.dial import dial
from kit.errors import Code, FieldViolation, MillraceError
from kit.serve import Server
from kit.status import from_rpc_error
from millrace.cache.v1.cache_service_pb2 import (
    DeleteRequest,
    GetStatsRequest,
    LookupRequest,
    LookupStreamRequest,
    ReleaseRequest,
    ReportFalseHitRequest,
    StoreFinish,
    StoreRequest,
    StoreStart,
    StoreStreamRequest,
)
from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceStub
from millrace.cache.v1.entry_pb2 import EntryDraft, EntryKey, Namespace, Savings
from millrace.cache.v1.lookup_pb2 import (
    HIT_KIND_EXACT,
    MISS_REASON_LEASED,
    MISS_REASON_NOT_FOUND,
    MISS_REASON_STORE_UNAVAILABLE,
    LeaseQuery,
    Query,
    SemanticQuery,
    ShadowVerdict,
)
from services.cache.config import CacheSettings
from services.cache.wiring import FULL_NAME, REDIS_HEALTH, build

ACME = Namespace(tenant="acme")
KEY = EntryKey(namespace=ACME, model="m", request_digest=b"d" * 32, canonical_version=1)
QUERY = Query(key=KEY, schema_tag="test.v1")
DRAFT = EntryDraft(key=KEY, schema_tag="test.v1", tags=["kb"])
LEASED = Query(key=KEY, schema_tag="test.v1", lease=LeaseQuery(ttl=Duration(seconds=5), wait=Duration(seconds=5)))
SECOND = Duration(seconds=1)


@asynccontextmanager
async def serving(**changes: Any) -> AsyncIterator[tuple[CacheServiceStub, grpc.aio.Channel]]:
    """A cache on a free port, warm, and a stub for it."""
    settings = CacheSettings(port=0, **changes)
    service = await build(settings, telemetry.off())
    server = Server("cache", settings, service.registrations, telemetry.off())
    port = await server.start()
    await service.warm(server)
    server.set_serving("", True)
    channel = dial(f"127.0.0.1:{port}", service=FULL_NAME)
    try:
        yield CacheServiceStub(channel), channel
    finally:
        await channel.close()
        await server.stop(0)
        await service.close()


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[CacheServiceStub]:
    async with serving(path=tmp_path / "entries") as (stub, _):
        yield stub


async def failure_of(call: Any) -> MillraceError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def store_request(**changes: Any) -> StoreRequest:
    return StoreRequest(**({"draft": DRAFT, "chunks": [b"answer"]} | changes))


async def feed(*parts: Any) -> AsyncIterator[StoreStreamRequest]:
    for part in parts:
        yield StoreStreamRequest(
            **{{"StoreStart": "start", "StoreFinish": "finish"}.get(type(part).__name__, "chunk"): part}
        )


async def test_stored_answer_is_found(stub: CacheServiceStub):
    """A stored answer is an exact hit with all that was said of it, and the request id comes back."""
    savings = Savings(prompt_token_count=3, completion_token_count=5, cost_micro_usd=0, generation_time=SECOND)
    stored = await stub.Store(store_request(request_id="r1", chunks=[b"one", b"two"], savings=savings))
    found = await stub.Lookup(LookupRequest(request_id="r2", query=QUERY))

    assert (stored.request_id, found.request_id) == ("r1", "r2")
    assert found.hit.kind == HIT_KIND_EXACT
    assert list(found.hit.entry.chunks) == [b"one", b"two"]
    assert found.hit.entry.entry_id == stored.entry_id
    assert found.hit.entry.expire_time == stored.expire_time
    assert found.hit.entry.savings == savings
    assert (found.hit.entry.model, list(found.hit.entry.tags)) == ("m", ["kb"])
    assert found.hit.age.ToTimedelta() < SECOND.ToTimedelta() * 5


async def test_miss_without_a_lease(stub: CacheServiceStub):
    """A lookup that asks for no lease is told that nothing is there; an id is made where none was given."""
    found = await stub.Lookup(LookupRequest(query=QUERY))

    assert found.miss.reason == MISS_REASON_NOT_FOUND
    assert not found.miss.HasField("lease")
    assert found.request_id


async def test_semantic_request_is_answered_exactly(stub: CacheServiceStub):
    """Asking for similar answers is no error while semantic lookups are off: exact hits and misses only."""
    query = Query(key=KEY, schema_tag="test.v1", semantic=SemanticQuery(compare_text="hi", similarity_min=0.9))
    assert (await stub.Lookup(LookupRequest(query=query))).miss.reason == MISS_REASON_NOT_FOUND
    await stub.Store(store_request())

    assert (await stub.Lookup(LookupRequest(query=query))).hit.kind == HIT_KIND_EXACT
    assert not (await stub.GetStats(GetStatsRequest())).stats.semantic_enabled


async def test_waiters_get_the_leaders_answer(stub: CacheServiceStub):
    """One of many concurrent callers is to produce the answer; the others get it."""
    lookups = {asyncio.ensure_future(stub.Lookup(LookupRequest(query=LEASED))) for _ in range(50)}
    done, waiting = await asyncio.wait(lookups, return_when=asyncio.FIRST_COMPLETED)
    lease_id = done.pop().result().miss.lease.lease_id
    assert not done
    await stub.Store(store_request(lease_id=lease_id))

    assert {found.hit.kind for found in await asyncio.gather(*waiting)} == {HIT_KIND_EXACT}


async def test_released_lease_passes_on(stub: CacheServiceStub):
    """After a release one of those who wait leads, and releasing twice is told apart."""
    first = await stub.Lookup(LookupRequest(query=LEASED))
    waiter = asyncio.ensure_future(stub.Lookup(LookupRequest(query=LEASED)))
    release = ReleaseRequest(lease_id=first.miss.lease.lease_id)

    assert (await stub.Release(release)).released
    assert (await waiter).miss.lease.lease_id not in ("", release.lease_id)
    assert not (await stub.Release(release)).released


async def test_wait_ends_before_the_deadline(stub: CacheServiceStub):
    """A wait is cut to the call's deadline, so that the miss arrives instead of DEADLINE_EXCEEDED."""
    await stub.Lookup(LookupRequest(query=LEASED))
    found = await stub.Lookup(LookupRequest(query=LEASED), timeout=1.5)

    assert found.miss.reason == MISS_REASON_LEASED


async def test_stream_is_stored_and_replayed(stub: CacheServiceStub):
    """An answer that was stored as a stream is replayed chunk by chunk."""
    finish = StoreFinish(savings=Savings(completion_token_count=2))
    stored = await stub.StoreStream(feed(StoreStart(request_id="r1", draft=DRAFT), b"one", b"two", finish))
    events = [event async for event in stub.LookupStream(LookupStreamRequest(request_id="r2", query=QUERY))]

    assert [event.WhichOneof("event") for event in events] == ["hit", "chunk", "chunk", "completed"]
    assert [event.request_id for event in events] == ["r2", "", "", ""]
    assert [event.chunk for event in events[1:3]] == [b"one", b"two"]
    assert events[0].hit.entry == events[3].completed.entry
    assert events[3].completed.entry.entry_id == stored.entry_id
    assert events[3].completed.chunk_count == 2
    assert not events[0].hit.entry.chunks


async def test_stream_is_followed_live(stub: CacheServiceStub):
    """A streamed lookup gets each chunk while the leader is still producing."""
    lease_id = (await stub.Lookup(LookupRequest(query=LEASED))).miss.lease.lease_id
    parts: asyncio.Queue[Any] = asyncio.Queue()

    async def requests() -> AsyncIterator[StoreStreamRequest]:
        async for request in feed(StoreStart(lease_id=lease_id, draft=DRAFT)):
            yield request
        while (part := await parts.get()) is not None:
            async for request in feed(part):
                yield request

    storing = asyncio.ensure_future(stub.StoreStream(requests()))
    events = stub.LookupStream(LookupStreamRequest(query=LEASED))
    parts.put_nowait(b"one")
    assert (await events.read()).WhichOneof("event") == "following"
    assert (await events.read()).chunk == b"one"
    parts.put_nowait(b"two")
    assert (await events.read()).chunk == b"two"
    parts.put_nowait(StoreFinish())
    parts.put_nowait(None)

    assert (await events.read()).completed.entry.entry_id == (await storing).entry_id
    assert await events.read() is grpc.aio.EOF


async def test_cancelled_stream_passes_its_lease_on(stub: CacheServiceStub):
    """A leader that hangs up in the middle is followed by one of those who wait, at once."""
    lease_id = (await stub.Lookup(LookupRequest(query=LEASED))).miss.lease.lease_id
    leader = stub.StoreStream()
    await leader.write(StoreStreamRequest(start=StoreStart(lease_id=lease_id, draft=DRAFT)))
    await leader.write(StoreStreamRequest(chunk=b"torn"))
    events = stub.LookupStream(LookupStreamRequest(query=LEASED))
    assert [(await events.read()).WhichOneof("event") for _ in range(2)] == ["following", "chunk"]
    leader.cancel()

    assert (await events.read()).WhichOneof("event") == "restarted"
    assert (await events.read()).miss.lease.lease_id
    assert (await stub.Lookup(LookupRequest(query=QUERY))).miss.reason == MISS_REASON_NOT_FOUND


async def test_stream_without_finish_is_refused(stub: CacheServiceStub):
    """A stream that ends early fails with a reason, and nothing is kept."""
    error = await failure_of(stub.StoreStream(feed(StoreStart(draft=DRAFT), b"one")))

    assert error.reason == "STREAM_INCOMPLETE"
    assert (await stub.Lookup(LookupRequest(query=QUERY))).miss.reason == MISS_REASON_NOT_FOUND


async def test_hit_may_ask_for_a_refresh(tmp_path: Path):
    """A hit on an entry that is due carries a lease for who asked for it, over either way of looking up."""
    query = Query()
    query.CopyFrom(LEASED)
    query.lease.refresh = True
    async with serving(path=tmp_path / "entries", refresh_ahead=1, refresh_hits_min=1) as (stub, _):
        await stub.Store(store_request())
        assert not (await stub.Lookup(LookupRequest(query=LEASED))).hit.HasField("refresh")
        hit = (await stub.Lookup(LookupRequest(query=query))).hit
        assert hit.refresh.ttl == LEASED.lease.ttl
        assert (await stub.Release(ReleaseRequest(lease_id=hit.refresh.lease_id))).released

        await stub.Store(store_request())
        events = [event async for event in stub.LookupStream(LookupStreamRequest(query=query))]
        assert events[0].hit.refresh.lease_id


async def test_another_secret_is_another_cache(tmp_path: Path):
    """What was stored under one key secret is not found under another, and found again under the first."""
    kinds = []
    for number, secret in enumerate(("one secret of many", "another of as many", "one secret of many")):
        async with serving(path=tmp_path / "entries", key_secret=secret) as (stub, _):
            if number == 0:
                await stub.Store(store_request())
            kinds.append((await stub.Lookup(LookupRequest(query=QUERY))).WhichOneof("outcome"))

    assert kinds == ["hit", "miss", "hit"]


async def test_entries_are_deleted(stub: CacheServiceStub):
    """Entries are deleted by id, by tag and altogether, after a dry run that deletes nothing."""
    for selector in (
        {"entry_id": ""},
        {"tag": "kb"},
        {"everything": True},
        {"everything": True, "include_users": True},
    ):
        stored = await stub.Store(store_request())
        chosen = {"entry_id": stored.entry_id} if "entry_id" in selector else selector
        counts = [
            (await stub.Delete(DeleteRequest(namespace=ACME, dry_run=dry_run, **chosen))).entry_count
            for dry_run in (True, False, False)
        ]
        assert counts == [1, 1, 0]
        assert (await stub.Lookup(LookupRequest(query=QUERY))).miss.reason == MISS_REASON_NOT_FOUND


async def test_delete_stays_within_its_namespace(stub: CacheServiceStub):
    """Another tenant, or a user of the same one, deletes nothing of what is shared; no unknown id is an error."""
    stored = await stub.Store(store_request())
    for namespace in (Namespace(tenant="other"), Namespace(tenant="acme", user="ann")):
        for chosen in ({"entry_id": stored.entry_id}, {"tag": "kb"}, {"everything": True}, {"entry_id": "no.such"}):
            assert (await stub.Delete(DeleteRequest(namespace=namespace, **chosen))).entry_count == 0

    assert (await stub.Lookup(LookupRequest(query=QUERY))).hit.entry.entry_id == stored.entry_id


async def test_false_hit_is_removed(stub: CacheServiceStub):
    """A reported entry is gone, and reporting it again says so."""
    stored = await stub.Store(store_request())
    report = ReportFalseHitRequest(namespace=ACME, entry_id=stored.entry_id, compare_text="hi")

    assert (await stub.ReportFalseHit(report)).removed
    assert not (await stub.ReportFalseHit(report)).removed
    assert (await stub.Lookup(LookupRequest(query=QUERY))).miss.reason == MISS_REASON_NOT_FOUND


async def test_figures(stub: CacheServiceStub):
    """What was done and saved, and what is held, is reported for one tenant and for all."""
    await stub.Store(store_request(savings=Savings(prompt_token_count=3, cost_micro_usd=7)))
    await stub.Lookup(LookupRequest(query=QUERY))
    stranger = Query(key=EntryKey(namespace=Namespace(tenant="o"), model="m", request_digest=b"d" * 32), schema_tag="x")
    stranger.key.canonical_version = 1
    await stub.Lookup(LookupRequest(query=stranger))
    total = (await stub.GetStats(GetStatsRequest())).stats
    own = (await stub.GetStats(GetStatsRequest(tenant="acme"))).stats
    unknown = (await stub.GetStats(GetStatsRequest(tenant="nobody"))).stats

    assert (total.lookup_count, own.lookup_count, unknown.lookup_count) == (2, 1, 0)
    assert [(count.kind, count.count) for count in own.hits] == [(HIT_KIND_EXACT, 1)]
    assert [(count.reason, count.count) for count in total.misses] == [(MISS_REASON_NOT_FOUND, 1)]
    assert (own.entry_count, unknown.entry_count, own.store_count) == (1, 0, 1)
    assert (own.saved.prompt_token_count, own.saved.cost_micro_usd) == (3, 7)
    assert (total.store, total.store_available) == ("embedded", True)
    assert own.size_bytes > 0
    assert own.start_time.seconds > 0
    assert not own.HasField("eviction_count")


def key_with(**changes: Any) -> EntryKey:
    key = EntryKey()
    key.CopyFrom(KEY)
    for name, value in changes.items():
        if name == "namespace":
            key.namespace.CopyFrom(value)
        else:
            setattr(key, name, value)
    return key


def query_with(**changes: Any) -> LookupRequest:
    return LookupRequest(query=Query(**({"key": KEY, "schema_tag": "t"} | changes)))


def draft_with(**changes: Any) -> StoreRequest:
    return store_request(draft=EntryDraft(**({"key": KEY, "schema_tag": "t"} | changes)))


BAD_REQUESTS = [
    ("request_id", LookupRequest(request_id="x" * 129, query=QUERY)),
    ("query.key.request_digest", LookupRequest()),
    ("query.key.request_digest", query_with(key=key_with(request_digest=b"d" * 31))),
    ("query.key.context_digest", query_with(key=key_with(context_digest=b"d" * 33))),
    ("query.key.canonical_version", query_with(key=key_with(canonical_version=0))),
    ("query.key.model", query_with(key=key_with(model=""))),
    ("query.key.model", query_with(key=key_with(model="x" * 257))),
    ("query.key.namespace.tenant", query_with(key=key_with(namespace=Namespace()))),
    ("query.key.namespace.user", query_with(key=key_with(namespace=Namespace(tenant="a", user="")))),
    ("query.schema_tag", query_with(schema_tag="")),
    ("query.age_max", query_with(age_max=Duration(seconds=-1))),
    ("query.semantic.compare_text", query_with(semantic=SemanticQuery())),
    ("query.semantic.similarity_min", query_with(semantic=SemanticQuery(compare_text="x", similarity_min=1.1))),
    (
        "query.semantic.similarity_min",
        query_with(semantic=SemanticQuery(compare_text="x", similarity_min=float("nan"))),
    ),
    ("query.semantic.error_max", query_with(semantic=SemanticQuery(compare_text="x", error_max=0))),
    ("query.lease.ttl", query_with(lease=LeaseQuery(ttl=Duration(nanos=99_000_000)))),
    ("query.lease.ttl", query_with(lease=LeaseQuery(ttl=Duration(seconds=601)))),
    ("query.lease.wait", query_with(lease=LeaseQuery(wait=Duration(seconds=601)))),
    ("query.lease.wait", query_with(lease=LeaseQuery(wait=Duration(nanos=-1)))),
    ("lease_id", store_request(lease_id="x" * 257)),
    ("draft.key.request_digest", store_request(draft=EntryDraft())),
    ("draft.schema_tag", draft_with(schema_tag="x" * 129)),
    ("draft.compare_text", draft_with(compare_text="x" * 32_769)),
    ("draft.ttl", draft_with(ttl=Duration())),
    ("draft.ttl", draft_with(ttl=Duration(seconds=30 * 86_400 + 1))),
    ("draft.stale_for", draft_with(stale_for=Duration(seconds=-1))),
    ("draft.tags", draft_with(tags=["x"] * 17)),
    ("draft.tags[1]", draft_with(tags=["x", ""])),
    ("chunks", store_request(chunks=[])),
    ("chunks", store_request(chunks=[b"x", b""])),
    ("chunks", store_request(chunks=[b"x" * 600, b"x" * 425])),
    ("savings.prompt_token_count", store_request(savings=Savings(prompt_token_count=-1))),
    ("savings.completion_token_count", store_request(savings=Savings(completion_token_count=2**31))),
    ("savings.generation_time", store_request(savings=Savings(generation_time=Duration(seconds=2**62)))),
    ("query.age_max", query_with(age_max=Duration(seconds=2**62))),
    ("query.age_max", query_with(age_max=Duration(nanos=2**31 - 1))),
    ("savings.cost_micro_usd", store_request(savings=Savings(cost_micro_usd=-1))),
    ("savings.generation_time", store_request(savings=Savings(generation_time=Duration(seconds=-1)))),
    ("shadow_verdict.shadow_id", store_request(shadow_verdict=ShadowVerdict(shadow_id="x" * 257))),
    ("lease_id", ReleaseRequest()),
    ("namespace.tenant", DeleteRequest(everything=True)),
    ("selector", DeleteRequest(namespace=ACME)),
    ("everything", DeleteRequest(namespace=ACME, everything=False)),
    ("tag", DeleteRequest(namespace=ACME, tag="")),
    ("entry_id", DeleteRequest(namespace=ACME, entry_id="")),
    ("include_users", DeleteRequest(namespace=ACME, entry_id="x", include_users=True)),
    ("include_users", DeleteRequest(namespace=Namespace(tenant="a", user="b"), everything=True, include_users=True)),
    ("entry_id", ReportFalseHitRequest(namespace=ACME)),
    ("compare_text", ReportFalseHitRequest(namespace=ACME, entry_id="x", compare_text="x" * 32_769)),
    ("tenant", GetStatsRequest(tenant="")),
]


@pytest.fixture(scope="module")
def strict_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strict")


async def test_broken_limits_name_the_field(strict_folder: Path):
    """Every limit of the contract is checked, and the refusal names the field."""
    async with serving(path=strict_folder / "entries", entry_bytes_max=1024) as (stub, _):
        for field, request in BAD_REQUESTS:
            method = getattr(stub, type(request).__name__.removesuffix("Request"))
            error = await failure_of(method(request))
            assert [violation.field for violation in error.field_violations] == [field], request
            assert isinstance(error.field_violations[0], FieldViolation)
        assert (await stub.GetStats(GetStatsRequest())).stats.store_count == 0


def spoil(message: Any, draw: random.Random) -> None:
    """Changes about a tenth of a message's fields to values that are at, within or far beyond the limits."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type:
            if not field.is_repeated and (message.HasField(field.name) or draw.random() < 0.1):
                spoil(value, draw)
        elif draw.random() < 0.1:
            parts = draw.choices(NASTY[field.cpp_type], k=2)
            parts = [part.encode() if field.type == field.TYPE_BYTES else part for part in parts]
            if field.is_repeated:
                value.extend(parts)
            else:
                setattr(message, field.name, parts[0])


NASTY: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: [0, 1, -1, 2**31 - 1, -(2**31)],
    FieldDescriptor.CPPTYPE_INT64: [0, 1, 5, -1, 2**63 - 1, -(2**63)],
    FieldDescriptor.CPPTYPE_DOUBLE: [0.0, 0.5, 1.0, -0.0, float("nan"), float("inf")],
    FieldDescriptor.CPPTYPE_BOOL: [True, False],
    FieldDescriptor.CPPTYPE_STRING: ["", "a", "\0", "é" * 32, "d" * 32, "d" * 32, "x" * 300, f"{'a' * 64}.b"],
}


async def test_no_request_is_an_internal_error(stub: CacheServiceStub):
    """Whatever the fields hold, a request is answered or refused by name; nothing breaks."""
    draw = random.Random(20)
    sound = [
        LookupRequest(query=QUERY),
        LookupStreamRequest(query=QUERY),
        store_request(savings=Savings(prompt_token_count=1)),
        ReleaseRequest(lease_id="x"),
        DeleteRequest(namespace=ACME, everything=True),
        ReportFalseHitRequest(namespace=ACME, entry_id="x"),
        GetStatsRequest(),
    ]
    outcomes = Counter[tuple[str, Code]]()
    for request in sound * 150:
        spoilt = type(request).FromString(request.SerializeToString())
        spoil(spoilt, draw)
        name = type(request).__name__.removesuffix("Request")
        call = getattr(stub, name)(spoilt)
        try:
            await (call.read() if name == "LookupStream" else call)
            outcomes[name, Code.OK] += 1
        except grpc.aio.AioRpcError as error:
            outcomes[name, from_rpc_error(error).code] += 1

    assert {name for name, code in outcomes if code is Code.OK} == {name for name, _ in outcomes}
    assert {code for _, code in outcomes} == {Code.OK, Code.INVALID_ARGUMENT}


@pytest.mark.parametrize(
    ("field", "parts"),
    [
        ("start", []),
        ("start", [b"chunk"]),
        ("start", [StoreStart(draft=DRAFT), StoreStart(draft=DRAFT)]),
        ("start.draft.schema_tag", [StoreStart(draft=EntryDraft(key=KEY))]),
        ("chunk", [StoreStart(draft=DRAFT), StoreFinish()]),
        ("chunk", [StoreStart(draft=DRAFT), b""]),
        ("finish.savings.completion_token_count", [
            StoreStart(draft=DRAFT), b"x", StoreFinish(savings=Savings(completion_token_count=-1))]),
    ],
)  # fmt: skip
async def test_broken_stream_names_the_field(stub: CacheServiceStub, field: str, parts: list[Any]):
    """A stream out of order, or that breaks a limit, is refused by name and keeps nothing."""
    error = await failure_of(stub.StoreStream(feed(*parts)))

    assert [violation.field for violation in error.field_violations] == [field]
    assert (await stub.GetStats(GetStatsRequest())).stats.entry_count == 0


async def test_streamed_lookup_checks_its_query(stub: CacheServiceStub):
    """A streamed lookup is held to the same limits."""
    error = await failure_of(stub.LookupStream(LookupStreamRequest(query=Query(key=KEY))).read())

    assert [violation.field for violation in error.field_violations] == ["query.schema_tag"]


async def test_service_serves_without_redis(tmp_path: Path):
    """With Redis away the service is up and misses, says so of Redis, and refuses to store."""
    with socket.socket() as nobody:  # Bound and not listening: connections are refused for as long as it is held.
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        async with serving(store="redis", redis_url=url) as (stub, channel):
            found = await stub.Lookup(LookupRequest(query=QUERY))
            error = await failure_of(stub.Store(store_request()))
            stats = (await stub.GetStats(GetStatsRequest())).stats
            health = health_pb2_grpc.HealthStub(channel)
            statuses = [
                (await health.Check(health_pb2.HealthCheckRequest(service=name))).status
                for name in ("", FULL_NAME, REDIS_HEALTH)
            ]

    assert found.miss.reason == MISS_REASON_STORE_UNAVAILABLE
    assert error.reason == "STORE_UNAVAILABLE"
    assert error.retry_after_ms
    assert (stats.store, stats.store_available, stats.HasField("entry_count")) == ("redis", False, False)
    serving_status, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert statuses == [serving_status, serving_status, not_serving]


async def test_service_keeps_entries_in_redis(shared_redis):
    """The service on Redis finds what it stored, and Redis is healthy."""
    shared_redis.command("flushall")
    async with serving(store="redis", redis_url=shared_redis.url, redis_read_timeout_s=5) as (stub, channel):
        await stub.Store(store_request())
        found = await stub.Lookup(LookupRequest(query=QUERY))
        request = health_pb2.HealthCheckRequest(service=REDIS_HEALTH)
        status = (await health_pb2_grpc.HealthStub(channel).Check(request)).status

    assert list(found.hit.entry.chunks) == [b"answer"]
    assert status == health_pb2.HealthCheckResponse.SERVING
