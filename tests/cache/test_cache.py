import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import FailedPrecondition
from services.cache.cache import Cache, Finish, Lifetime
from services.cache.changes import Behind, Change
from services.cache.entry import Entry, EntryDraft, Savings
from services.cache.flight import FlightTable
from services.cache.key import Address, EntryKey, KeySpace, Namespace
from services.cache.query import (
    Completed,
    Following,
    Found,
    Hit,
    HitKind,
    LeaseQuery,
    LookupEvent,
    Miss,
    MissReason,
    Query,
    Restarted,
)
from services.cache.refresh import RefreshWatch
from services.cache.stats import Stats
from services.cache.store import EntryStore, Selector, Size, StoreUnavailable
from services.cache.worth import Evictions
from tests.cache.conftest import ManualClock, address_of, make_key, sqlite_store

LEASE = LeaseQuery(ttl_s=5, wait_s=5)
LIFETIME = Lifetime(ttl_ms=60_000, ttl_jitter=0.1, stale_for_ms=30_000)
QUERY = Query(make_key(), "test.v1")
DRAFT = EntryDraft(make_key(), "test.v1")


class BrokenStore:
    """A store that never answers; it may be mended."""

    name, available = "broken", False
    evictions: ClassVar[Evictions] = Counter()

    async def get(self, address: Address) -> Entry | None:
        raise StoreUnavailable("broken")

    async def put(self, entry: Entry) -> None:
        raise StoreUnavailable("broken")

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        raise StoreUnavailable("broken")

    async def size(self, tenant: bytes | None) -> Size:
        raise StoreUnavailable("broken")

    async def outlines(self) -> AsyncGenerator[Entry, None]:
        raise StoreUnavailable("broken")
        yield

    async def changes(self) -> AsyncGenerator[Change, None]:
        yield Behind()


class SlowStore(BrokenStore):
    """A store that holds each lookup until it is let go, and then has nothing; entries put later are found."""

    def __init__(self) -> None:
        self.asked, self.let_go = asyncio.Event(), asyncio.Event()
        self.kept: Entry | None = None

    async def get(self, address: Address) -> Entry | None:
        found = self.kept
        self.asked.set()
        await self.let_go.wait()
        return found

    async def put(self, entry: Entry) -> None:
        self.kept = entry


def make_cache(store: EntryStore, clock: ManualClock, draw: float = 0.0) -> Cache:
    return Cache(
        store,
        FlightTable(),
        Stats(clock()),
        KeySpace(),
        LIFETIME,
        RefreshWatch(0.1, 3),
        clock=clock,
        random=lambda: draw,
    )


@pytest.fixture
async def cache(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Cache]:
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    yield make_cache(store, clock)
    await store.close()


def leased(found: Found) -> str:
    """The lease that a lookup gave."""
    assert isinstance(found, Miss)
    assert found.lease is not None
    return found.lease.lease_id


async def test_kept_answer_is_an_exact_hit(cache: Cache, clock: ManualClock):
    """What was kept is found with its age and what it saves."""
    entry = await cache.keep(DRAFT, [b"one", b"two"], Savings(3, 4))
    clock.now_ms += 1500
    found = await cache.lookup(QUERY)

    assert found == Hit(HitKind.EXACT, entry, 1500)
    assert entry.chunks == (b"one", b"two")
    assert cache.stats.tally(None).saved_completion_token_count == 4


@pytest.mark.parametrize(
    ("elapsed_ms", "change", "expected"),
    [
        (0, {"key": make_key("other")}, MissReason.NOT_FOUND),
        (0, {"schema_tag": "test.v2"}, MissReason.SCHEMA_MISMATCH),
        (59_999, {}, HitKind.EXACT),
        (60_000, {}, MissReason.EXPIRED),
        (60_000, {"allow_stale": True}, HitKind.STALE),
        (89_999, {"allow_stale": True}, HitKind.STALE),
        (90_000, {"allow_stale": True}, MissReason.NOT_FOUND),
        (999, {"age_max_ms": 1000}, HitKind.EXACT),
        (1000, {"age_max_ms": 1000}, MissReason.TOO_OLD),
        (0, {"age_max_ms": 0}, MissReason.TOO_OLD),
    ],
)
async def test_what_answers_a_query(
    cache: Cache, clock: ManualClock, elapsed_ms: int, change: dict, expected: HitKind | MissReason
):
    """Key, schema tag, expiry and age decide; hits never prolong a life."""
    await cache.keep(DRAFT, [b"answer"], None)
    for _ in range(10):
        clock.now_ms += elapsed_ms // 10
        await cache.lookup(QUERY)
    clock.now_ms += elapsed_ms % 10
    found = await cache.lookup(replace(QUERY, **change))

    assert (found.kind if isinstance(found, Hit) else found.reason) is expected


async def test_jitter_only_shortens(tmp_path: Path, clock: ManualClock):
    """A lifetime is shortened by at most the jitter's share, and the draft's own lifetime is kept to."""
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    try:
        lifetimes = []
        for draw in (0.0, 0.5, 0.999):
            entry = await make_cache(store, clock, draw).keep(replace(DRAFT, ttl_ms=10_000), [b"x"], None)
            lifetimes.append(entry.expires_ms - clock())
        assert lifetimes == [10_000, 9_500, 9_001]
        assert entry.gone_ms - entry.expires_ms == LIFETIME.stale_for_ms
    finally:
        await store.close()


async def test_identical_misses_produce_one_answer(cache: Cache):
    """Of 500 callers that miss at once one gets a lease, and all others its answer."""
    lookups = [asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE))) for _ in range(500)]
    done, waiting = await asyncio.wait(lookups, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    leased(done.pop().result())
    entry = await cache.keep(DRAFT, [b"answer"], None)

    assert all(isinstance(found, Hit) and found.entry == entry for found in await asyncio.gather(*waiting))
    assert cache.stats.tally(None).shared_count == 499


async def test_one_takes_over_after_another(cache: Cache):
    """Each leader that fails is followed by exactly one other, until one succeeds."""
    waiting = {asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE))) for _ in range(20)}
    for _ in range(5):
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert await cache.flights.release(leased(done.pop().result()))
    done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    leased(done.pop().result())
    await cache.keep(DRAFT, [b"answer"], None)

    assert len(waiting) == 14
    assert all(isinstance(found, Hit) for found in await asyncio.gather(*waiting))


async def test_wait_ends_with_a_miss(cache: Cache):
    """Who waits in vain is told that another caller holds the lease."""
    leased(await cache.lookup(replace(QUERY, lease=LEASE)))

    assert await cache.lookup(replace(QUERY, lease=LeaseQuery(5, 0))) == Miss(MissReason.LEASED)
    assert await cache.lookup(replace(QUERY, lease=LeaseQuery(5, 0.01))) == Miss(MissReason.LEASED)


async def test_late_answer_is_kept(cache: Cache):
    """An answer that comes after its lease has run out is kept, and ends the wait of those behind the next leader."""
    late = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    assert await cache.flights.release(late)
    leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    waiter = asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE)))
    entry = await cache.keep(DRAFT, [b"answer"], None)

    found = await waiter
    assert isinstance(found, Hit)
    assert found.entry == entry


async def test_answer_that_lands_during_a_lookup_is_not_produced_again(clock: ManualClock):
    """A lookup that read the store just before an answer came reads it again rather than lead."""
    store = SlowStore()
    cache = make_cache(store, clock)
    lookup = asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE)))
    await store.asked.wait()
    await cache.keep(DRAFT, [b"answer"], None)
    store.let_go.set()

    assert isinstance(await lookup, Hit)


class StuckStore(BrokenStore):
    """A store that has nothing, and takes for ever to keep something."""

    async def get(self, address: Address) -> Entry | None:
        return None

    async def put(self, entry: Entry) -> None:
        await asyncio.Event().wait()

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        return 0


async def test_nobody_waits_for_the_store(clock: ManualClock):
    """An answer is given to those who wait, and found by those who come, while the store is still taking it."""
    cache = make_cache(StuckStore(), clock)
    leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    waiter = asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE)))
    await asyncio.sleep(0)
    keeping = asyncio.create_task(cache.keep(DRAFT, [b"answer"], None))

    for found in (await waiter, await cache.lookup(QUERY)):
        assert isinstance(found, Hit)
        assert found.entry.chunks == (b"answer",)
    assert not keeping.done()
    keeping.cancel()
    await asyncio.wait([keeping])
    assert await cache.lookup(QUERY) == Miss(MissReason.NOT_FOUND)


async def test_deleted_answer_is_not_found_while_it_is_kept(clock: ManualClock):
    """What the store is still taking is not served after its tenant's entries were deleted."""
    cache = make_cache(StuckStore(), clock)
    keepings = [
        asyncio.create_task(cache.keep(EntryDraft(make_key(tenant), "test.v1"), [b"x"], None))
        for tenant in ("acme", "other")
    ]
    await asyncio.sleep(0)
    await cache.delete(Selector(address_of(make_key()).tenant), dry_run=True)
    assert isinstance(await cache.lookup(QUERY), Hit)
    await cache.delete(Selector(address_of(make_key()).tenant))

    assert await cache.lookup(QUERY) == Miss(MissReason.NOT_FOUND)
    assert isinstance(await cache.lookup(replace(QUERY, key=make_key("other"))), Hit)
    for keeping in keepings:
        keeping.cancel()
    await asyncio.wait(keepings)


class LateStore(BrokenStore):
    """A store in memory that begins to keep something once it is let."""

    def __init__(self) -> None:
        self.let_go = asyncio.Event()
        self.entries: dict[bytes, Entry] = {}

    async def get(self, address: Address) -> Entry | None:
        return self.entries.get(address.entry)

    async def put(self, entry: Entry) -> None:
        await self.let_go.wait()
        self.entries[entry.address.entry] = entry

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        chosen = [digest for digest, entry in self.entries.items() if selector.means(entry)]
        for digest in chosen:
            del self.entries[digest]
        return len(chosen)


async def test_deleted_answer_is_not_found_once_it_is_kept_either(clock: ManualClock):
    """What the store takes after its deletion is gone all the same; what was not meant stays."""
    cache = make_cache(LateStore(), clock)
    keepings = [
        asyncio.create_task(
            cache.keep(EntryDraft(make_key(request=tag.encode()), "test.v1", tags=(tag,)), [b"x"], None)
        )
        for tag in ("secret", "public")
    ]
    await asyncio.sleep(0)
    await cache.delete(Selector(address_of(make_key()).tenant, tag="secret"))
    assert isinstance(cache.store, LateStore)
    cache.store.let_go.set()
    await asyncio.wait(keepings)

    assert await cache.lookup(replace(QUERY, key=make_key(request=b"secret"))) == Miss(MissReason.NOT_FOUND)
    assert isinstance(await cache.lookup(replace(QUERY, key=make_key(request=b"public"))), Hit)


async def test_broken_store_only_makes_misses(clock: ManualClock):
    """Without a store lookups miss and still share a flight: the answer reaches those who wait, but is not kept."""
    cache = make_cache(BrokenStore(), clock)
    assert await cache.lookup(QUERY) == Miss(MissReason.STORE_UNAVAILABLE)
    leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    waiter = asyncio.create_task(cache.lookup(replace(QUERY, lease=LEASE)))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await cache.keep(DRAFT, [b"answer"], None)

    assert isinstance(await waiter, Hit)
    assert cache.stats.tally(None).store_count == 0


async def chunks_of(*parts: bytes | Finish) -> AsyncIterator[bytes | Finish]:
    for part in parts:
        yield part


class Feed:
    """Chunks that a test hands to a stream one by one."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | Finish | EOFError] = asyncio.Queue()
        self.send = self._queue.put_nowait

    async def __aiter__(self) -> AsyncIterator[bytes | Finish]:
        while not isinstance(part := await self._queue.get(), EOFError):
            yield part


async def test_stream_is_replayed_in_its_chunks(cache: Cache):
    """An answer kept as a stream is found with the same chunks, and replayed as them."""
    entry = await cache.keep_stream(DRAFT, chunks_of(b"a", b"bc", b"d", Finish()), "")
    events = [event async for event in cache.lookup_stream(QUERY)]

    assert events == [Hit(HitKind.EXACT, entry, 0), b"a", b"bc", b"d", Completed(entry, 3)]


async def test_lease_that_did_not_reach_its_caller_is_free_again(cache: Cache):
    """A caller that leaves while it is given the lease does not hold it up."""
    lookup = cache.lookup_stream(replace(QUERY, lease=LEASE))
    assert isinstance(await anext(lookup), Miss)
    await lookup.aclose()

    assert cache.flights.lease_count == 0


async def test_maker_hears_that_somebody_waits(cache: Cache):
    """Once, and not before."""
    feed, heard = Feed(), asyncio.Event()

    async def tell() -> None:
        assert not heard.is_set()
        heard.set()

    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    keeping = asyncio.create_task(cache.keep_stream(DRAFT, aiter(feed), lease_id, tell))
    feed.send(b"one")
    other = await cache.lookup(replace(QUERY, lease=replace(LEASE, wait_s=0)))
    assert isinstance(other, Miss)
    assert not heard.is_set()

    async with aclosing(cache.lookup_stream(replace(QUERY, lease=LEASE))) as lookup:
        assert [await anext(lookup) for _ in range(2)] == [Following(), b"one"]
        await asyncio.wait_for(heard.wait(), 5)
    keeping.cancel()
    await asyncio.wait({keeping})


async def test_stream_without_an_end_keeps_nothing(cache: Cache):
    """A stream that breaks off is refused, keeps nothing and gives its lease back."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    with pytest.raises(FailedPrecondition) as caught:
        await cache.keep_stream(DRAFT, chunks_of(b"a", b"b"), lease_id)

    assert caught.value.reason == "STREAM_INCOMPLETE"
    leased(await cache.lookup(replace(QUERY, lease=LEASE)))


async def test_followers_see_an_answer_while_it_is_made(cache: Cache):
    """A streamed lookup yields each chunk as its leader hands it in, then the entry."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    follower = cache.lookup_stream(replace(QUERY, lease=LEASE))
    first = asyncio.ensure_future(anext(follower))
    feed = Feed()
    keeping = asyncio.create_task(cache.keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"one")
    assert await first == Following()
    assert await anext(follower) == b"one"
    feed.send(b"two")
    assert await anext(follower) == b"two"
    assert not keeping.done()

    feed.send(Finish(Savings(1, 2)))
    assert await anext(follower) == Completed(await keeping, 2)
    assert [event async for event in follower] == []


async def test_followers_restart_when_the_leader_breaks_off(cache: Cache):
    """When a streamed leader fails, exactly one follower is to lead and the others see that one's whole answer."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    seen: list[list[LookupEvent]] = [[] for _ in range(10)]
    lead: asyncio.Queue[str] = asyncio.Queue()
    torn_count = asyncio.Semaphore(0)

    async def follow(events: list[LookupEvent]) -> None:
        async for event in cache.lookup_stream(replace(QUERY, lease=LEASE)):
            events.append(event)
            if event == b"torn":
                torn_count.release()
            if isinstance(event, Miss):
                lead.put_nowait(leased(event))

    async with asyncio.TaskGroup() as group:
        for events in seen:
            group.create_task(follow(events))
        await asyncio.sleep(0)
        feed = Feed()
        keeping = asyncio.create_task(cache.keep_stream(DRAFT, aiter(feed), lease_id))
        feed.send(b"torn")
        for _ in seen:
            await torn_count.acquire()
        keeping.cancel()
        entry = await cache.keep_stream(DRAFT, chunks_of(b"whole ", b"answer", Finish()), await lead.get())

    assert lead.empty()
    torn = [Following(), b"torn", Restarted()]
    assert sum(events == [*torn, events[-1]] and isinstance(events[-1], Miss) for events in seen) == 1
    whole = [b"whole ", b"answer", Completed(entry, 2)]
    followed = [events for events in seen if not isinstance(events[-1], Miss)]
    assert all(events[:3] == torn and events[4:] == whole for events in followed)
    assert all(events[3] == Following() or isinstance(events[3], Hit) for events in followed)


async def test_stream_of_another_schema_is_not_followed(cache: Cache):
    """Chunks in a format that was not asked for are not handed out; the lookup leads once they have ended."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    feed = Feed()
    keeping = asyncio.create_task(cache.keep_stream(replace(DRAFT, schema_tag="other.v1"), aiter(feed), lease_id))
    follower = cache.lookup_stream(replace(QUERY, lease=LEASE))
    first = asyncio.ensure_future(anext(follower))
    feed.send(b"other")
    feed.send(Finish())
    await keeping

    event = await first
    leased(event)  # type: ignore[arg-type]
    assert event.reason is MissReason.SCHEMA_MISMATCH  # type: ignore[union-attr]


async def test_stream_cannot_lead_under_another_key(cache: Cache):
    """A lease lets its holder write for its own key only."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    stranger = replace(DRAFT, key=make_key("other"))
    await cache.keep_stream(stranger, chunks_of(b"foreign", Finish()), lease_id)

    assert await cache.lookup(replace(QUERY, lease=LeaseQuery(5, 0))) == Miss(MissReason.LEASED)


async def test_second_stream_of_a_lease_is_not_mixed_in(cache: Cache):
    """While a flight is streamed, neither another stream under its lease nor a whole answer reaches its followers."""
    lease_id = leased(await cache.lookup(replace(QUERY, lease=LEASE)))
    feed = Feed()
    keeping = asyncio.create_task(cache.keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"first")
    follower = cache.lookup_stream(replace(QUERY, lease=LEASE))
    assert [await anext(follower), await anext(follower)] == [Following(), b"first"]
    await cache.keep_stream(DRAFT, chunks_of(b"second", Finish()), lease_id)
    await cache.keep(DRAFT, [b"third"], None)
    feed.send(b" answer")
    feed.send(Finish())

    assert [event async for event in follower] == [b" answer", Completed(await keeping, 2)]


REFRESHING = replace(QUERY, lease=LeaseQuery(ttl_s=5, wait_s=5, refresh=True))


async def test_one_is_asked_to_refresh(cache: Cache, clock: ManualClock):
    """Of all who hit an entry that is used often and about to expire one gets a lease, the others the old answer."""
    entry = await cache.keep(DRAFT, [b"old"], None)
    clock.now_ms += 55_000
    found = await asyncio.gather(*(cache.lookup(REFRESHING) for _ in range(50)))
    hits = [hit for hit in found if isinstance(hit, Hit)]
    leases = [hit.refresh for hit in hits if hit.refresh]

    assert [hit.entry for hit in hits] == [entry] * 50
    assert len(leases) == 1
    assert cache.stats.tally(None).refresh_count == 1
    renewed = await cache.keep(DRAFT, [b"new"], None)
    assert await cache.flights.lead(leases[0].lease_id, entry.address) is None
    assert await cache.lookup(REFRESHING) == Hit(HitKind.EXACT, renewed, 0)


async def test_misses_wait_for_a_refresh(cache: Cache, clock: ManualClock):
    """Those who come when the entry has expired wait for who refreshes it, and nobody else produces it."""
    await cache.keep(DRAFT, [b"old"], None)
    clock.now_ms += 59_000
    found = [await cache.lookup(REFRESHING) for _ in range(3)][-1]
    assert isinstance(found, Hit)
    assert found.refresh is not None
    clock.now_ms += 2_000
    waiter = asyncio.create_task(cache.lookup(REFRESHING))
    await asyncio.sleep(0)
    renewed = await cache.keep(DRAFT, [b"new"], None)

    hit = await waiter
    assert isinstance(hit, Hit)
    assert hit.entry == renewed


@pytest.mark.parametrize(
    ("elapsed_ms", "hit_count", "change"),
    [
        (50_000, 50, {}),
        (55_000, 2, {}),
        (55_000, 50, {"lease": None}),
        (55_000, 50, {"lease": LEASE}),
        (61_000, 50, {"allow_stale": True}),
    ],
)
async def test_only_what_is_due_is_refreshed(
    cache: Cache, clock: ManualClock, elapsed_ms: int, hit_count: int, change: dict
):
    """Nobody refreshes an entry that is young, used seldom, or stale, nor if not asking for it."""
    await cache.keep(DRAFT, [b"old"], None)
    clock.now_ms += elapsed_ms
    for _ in range(hit_count):
        found = await cache.lookup(replace(REFRESHING, **change))
        assert isinstance(found, Hit)
        assert found.refresh is None


async def test_failed_refresh_is_not_tried_again(cache: Cache, clock: ManualClock):
    """A refresh that fails leaves the entry until it expires: an upstream that is down is not asked by every hit."""
    await cache.keep(DRAFT, [b"old"], None)
    clock.now_ms += 55_000
    found = [await cache.lookup(REFRESHING) for _ in range(3)][-1]
    assert isinstance(found, Hit)
    assert found.refresh is not None
    assert await cache.flights.release(found.refresh.lease_id)

    for _ in range(20):
        hit = await cache.lookup(REFRESHING)
        assert isinstance(hit, Hit)
        assert hit.refresh is None


async def test_reported_entry_is_gone(cache: Cache):
    """An entry reported as a false hit is removed and counted; one of another namespace or no entry is not."""
    entry = await cache.keep(DRAFT, [b"wrong"], None)
    for namespace, entry_id in (
        (Namespace("other"), entry.entry_id),
        (Namespace("acme", "ann"), entry.entry_id),
        (Namespace("acme"), "nonsense"),
        (Namespace("acme"), f"{'z' * 64}.1"),
    ):
        assert not await cache.report_false_hit(namespace, entry_id)
    assert isinstance(await cache.lookup(QUERY), Hit)

    assert await cache.report_false_hit(Namespace("acme"), entry.entry_id)
    assert await cache.lookup(QUERY) == Miss(MissReason.NOT_FOUND)
    assert cache.stats.tally(entry.address.tenant).false_hit_count == 1


async def test_counts_are_per_tenant_and_total(cache: Cache):
    """Hits and misses are counted by kind and reason, for each tenant and for all."""
    entry = await cache.keep(DRAFT, [b"x"], None)
    await cache.lookup(QUERY)
    await cache.lookup(QUERY)
    await cache.lookup(replace(QUERY, key=make_key("other")))
    own, total = cache.stats.tally(entry.address.tenant), cache.stats.tally(None)

    assert (own.hits[HitKind.EXACT], own.misses.total(), own.store_count, own.lookup_count) == (2, 0, 1, 2)
    assert (total.hits[HitKind.EXACT], total.misses[MissReason.NOT_FOUND], total.lookup_count) == (2, 1, 3)


SMALL_NAMES = st.sampled_from(["a", "b", "ab", "aa", "a\0", "A"])
SMALL_KEYS = st.builds(
    EntryKey,
    namespace=st.builds(Namespace, tenant=SMALL_NAMES, user=st.none() | SMALL_NAMES),
    model=SMALL_NAMES,
    request_digest=st.sampled_from([b"1" * 32, b"2" * 32]),
    canonical_version=st.integers(1, 2),
    context_digest=st.sampled_from([b"", b"1" * 32]),
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@settings(max_examples=30, deadline=None)
@given(st.lists(SMALL_KEYS, min_size=50, max_size=200), st.integers(0, 2**32))
def test_no_lookup_crosses_a_key(folder: Path, keys: list[EntryKey], seed: int):
    """Among random tenants, users, models and contexts, a hit is always the answer of exactly that key."""

    async def story() -> None:
        store = sqlite_store(folder / "entries", ManualClock(), hot_bytes_max=2000)
        await store.open()
        try:
            cache = make_cache(store, ManualClock())
            kept = set(random.Random(seed).sample(keys, len(keys) // 2))
            keeps = (cache.keep(EntryDraft(key, "test.v1"), [repr(key).encode()], None) for key in kept)
            await asyncio.gather(*keeps)
            for key in keys:
                found = await cache.lookup(Query(key, "test.v1"))
                assert isinstance(found, Hit) == (key in kept)
                assert isinstance(found, Miss) or found.entry.chunks == (repr(key).encode(),)
            await asyncio.gather(*(store.delete(Selector(address_of(key).tenant)) for key in kept))
        finally:
            await store.close()

    asyncio.run(story())
