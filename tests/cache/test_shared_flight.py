"""Single flight over replicas: several caches in one process, each with its own connections to one real Redis."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest

from services.cache import redis_leases, shared_flight
from services.cache.cache import Cache, Finish
from services.cache.entry import Entry, Savings
from services.cache.flight import new_lease_id
from services.cache.key import Address
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
    Waiting,
)
from services.cache.redis_leases import Claim, News, RedisLeases, Tenure
from services.cache.redis_link import PREFIX, RedisLink
from services.cache.redis_store import RedisStore
from services.cache.refresh import RefreshWatch
from services.cache.shared_flight import SharedFlightTable
from services.cache.stats import Stats
from services.cache.store import StoreUnavailable
from tests.cache.conftest import KEYS, ManualClock, RedisServer, address_of, make_entry, make_key, redis_link
from tests.cache.test_cache import DRAFT, LIFETIME, QUERY, Feed, chunks_of, leased

LEASED = replace(QUERY, lease=LeaseQuery(ttl_s=30, wait_s=20))
ADDRESS = address_of(QUERY.key)
SOON_S = 10
MakeReplica = Callable[..., Awaitable["Replica"]]


class Replica(Cache):
    """A cache on Redis, as wiring makes it."""

    def __init__(self, link: RedisLink, clock: ManualClock) -> None:
        store = RedisStore(link, entries_max=1000, bytes_max=1 << 30, clock=clock)
        flights = SharedFlightTable(RedisLeases(link, f"replica-{id(self)}"), store.get)
        super().__init__(
            store, flights, Stats(clock()), KEYS, LIFETIME, RefreshWatch(0.1, 3), clock=clock, random=lambda: 0.0
        )
        self.link = link

    async def die(self) -> None:
        """Leaves Redis as a process does that is killed: nothing is said any more, nothing is heard."""
        await self.flights.close()
        self.link.trip()


@pytest.fixture(params=["redis", "redis_cluster"])
async def make_replica(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[MakeReplica]:
    """Makes replicas on an empty Redis."""
    cluster = request.param == "redis_cluster"
    server: RedisServer = request.getfixturevalue("shared_cluster" if cluster else "shared_redis")
    server.command("flushall")
    async with AsyncExitStack() as stack:

        async def make(**options: bool) -> Replica:
            replica = await started(redis_link(server.url, cluster=cluster), clock, **options)
            stack.push_async_callback(stop, replica)
            return replica

        yield make


async def started(link: RedisLink, clock: ManualClock, *, hears: bool = True) -> Replica:
    """A replica; one that does not hear is for ever behind what the others do."""
    replica = Replica(link, clock)
    await replica.store.open()
    if hears:
        replica.flights.start()
    return replica


async def stop(replica: Replica) -> None:
    await replica.flights.close()
    await replica.store.close()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases that outlive their replica by less."""
    for module in (redis_leases, shared_flight):
        monkeypatch.setattr(module, "RENEWAL_S", 0.6)
    monkeypatch.setattr(shared_flight, "RENEW_EVERY_S", 0.2)
    monkeypatch.setattr(shared_flight, "BEAT_S", 0.05)


async def three(make_replica: MakeReplica) -> list[Replica]:
    return [await make_replica() for _ in range(3)]


async def first_done(lookups: list["asyncio.Task[Found]"]) -> tuple[Found, list["asyncio.Task[Found]"]]:
    """The first lookup that is answered, and those that wait on."""
    done, waiting = await asyncio.wait(lookups, return_when=asyncio.FIRST_COMPLETED, timeout=SOON_S)
    assert len(done) == 1
    return done.pop().result(), list(waiting)


def look_up(replicas: list[Replica], count: int) -> list["asyncio.Task[Found]"]:
    return [asyncio.create_task(replica.lookup(LEASED)) for _ in range(count) for replica in replicas]


async def followed(replica: Replica) -> None:
    """Waits until somebody waits at a replica for the answer that another one is to produce."""
    joined = await replica.flights.join(ADDRESS, 30, asyncio.get_running_loop().time())
    assert joined.flight is not None
    assert not joined.leads
    async with asyncio.timeout(SOON_S):
        await joined.flight.followed.wait()


async def test_one_of_all_replicas_leads(make_replica: MakeReplica):
    """Of all who miss at three replicas at once one is to produce the answer, and the others get it."""
    replicas = await three(make_replica)
    found, waiting = await first_done(look_up(replicas, 50))
    leased(found)
    entry = await replicas[0].keep(DRAFT, [b"answer"], Savings(1, 2))

    assert len(waiting) == 149
    for hit in await asyncio.gather(*waiting):
        assert isinstance(hit, Hit)
        assert hit.entry == entry


async def test_one_of_all_replicas_takes_over(make_replica: MakeReplica):
    """Each leader that gives up, at whichever replica, is followed by exactly one other."""
    replicas = await three(make_replica)
    waiting, draw = look_up(replicas, 10), random.Random(3)
    for _ in range(6):
        found, waiting = await first_done(waiting)
        assert await draw.choice(replicas).flights.release(leased(found))
    found, waiting = await first_done(waiting)
    leased(found)
    await draw.choice(replicas).keep(DRAFT, [b"answer"], None)

    assert len(waiting) == 23
    assert all(isinstance(hit, Hit) for hit in await asyncio.gather(*waiting))


async def test_answer_under_a_lost_lease_ends_the_next_one(make_replica: MakeReplica):
    """An answer stored where nobody has heard that its lease was released goes to all who wait under the next lease."""
    behind, one, other = await make_replica(hears=False), await make_replica(), await make_replica()
    assert await one.flights.release(leased(await behind.lookup(LEASED)))
    leased(await one.lookup(LEASED))
    waiting = []
    for replica in (one, other):
        waiting += look_up([replica], 1)
        await followed(replica)
    entry = await behind.keep(DRAFT, [b"answer"], None)

    async with asyncio.timeout(SOON_S):
        for hit in await asyncio.gather(*waiting):
            assert isinstance(hit, Hit)
            assert hit.entry == entry


@pytest.mark.parametrize(
    "error", [StoreUnavailable("No memory."), asyncio.CancelledError()], ids=["fails", "cancelled"]
)
@pytest.mark.parametrize("lost", [True, False], ids=["lost", "none"])
async def test_answer_that_is_not_stored_ends_no_lease(
    make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch, error: BaseException, lost: bool
):
    """An answer that the store does not get leaves the lease of another replica to its leader."""
    behind, one, other = await make_replica(hears=False), await make_replica(), await make_replica()
    if lost:
        assert await one.flights.release(leased(await behind.lookup(LEASED)))
    lease_id = leased(await one.lookup(LEASED))

    async def put(entry: Entry) -> None:
        raise error

    monkeypatch.setattr(behind.store, "put", put)
    before = asyncio.all_tasks()
    with pytest.raises(type(error)):
        await behind.keep(DRAFT, [b"answer"], None)
    await ended_since(before)

    assert await other.flights.release(lease_id)


async def ended_since(before: "set[asyncio.Task[Any]]") -> None:
    """Waits for the end of all that began since."""
    async with asyncio.timeout(SOON_S):
        while begun := asyncio.all_tasks() - before:
            await asyncio.wait(begun)


class Unheard:
    """The lease of a lookup whose claim is answered too late; that it was given is `found_out` after `go`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lease_id = ""
        self.go, self.found_out = asyncio.Event(), asyncio.Event()
        self._patch = monkeypatch

    async def claim(self, replica: Replica) -> None:
        claim, renew, asked = RedisLeases.claim, RedisLeases.renew, asyncio.Event()

        async def claim_too_late(leases: RedisLeases, *arguments: Any) -> Claim:
            await claim(leases, *arguments)
            raise StoreUnavailable("Redis did not answer in time.")

        async def renew_late(leases: RedisLeases, *arguments: Any) -> tuple[Tenure, bool]:
            asked.set()
            await self.go.wait()
            try:
                return await renew(leases, *arguments)
            finally:
                self.found_out.set()

        self._patch.setattr(RedisLeases, "claim", claim_too_late)
        self._patch.setattr(RedisLeases, "renew", renew_late)
        self.lease_id = leased(await replica.lookup(LEASED))
        async with asyncio.timeout(SOON_S):
            await asked.wait()
        self._patch.setattr(RedisLeases, "claim", claim)
        self._patch.setattr(RedisLeases, "renew", renew)

    async def find_out(self) -> None:
        self.go.set()
        async with asyncio.timeout(SOON_S):
            await self.found_out.wait()


class Slow:
    """The lease of a lookup whose claim is answered after `go`; by then the lookup has its answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go = asyncio.Event()
        self._patch = monkeypatch
        self._claiming: list[asyncio.Task[Found]] = []

    async def claim(self, replica: Replica) -> None:
        claim, claimed = RedisLeases.claim, asyncio.Event()

        async def claim_slowly(leases: RedisLeases, *arguments: Any) -> Claim:
            found = await claim(leases, *arguments)
            claimed.set()
            await self.go.wait()
            return found

        self._patch.setattr(RedisLeases, "claim", claim_slowly)
        self._claiming = look_up([replica], 1)
        async with asyncio.timeout(SOON_S):
            await claimed.wait()
        self._patch.setattr(RedisLeases, "claim", claim)

    async def find_out(self) -> None:
        self.go.set()
        assert isinstance(await self._claiming[0], Hit)


async def test_lease_that_was_given_unheard_is_cared_for(make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch):
    """A lookup whose lease is given after its time was over leads all replicas, and not its own alone."""
    one, other, unheard = await make_replica(), await make_replica(), Unheard(monkeypatch)
    await unheard.claim(one)
    await unheard.find_out()
    follower, feed = Follower(other), Feed()
    keeping = asyncio.create_task(one.keep_stream(DRAFT, aiter(feed), unheard.lease_id))
    feed.send(b"one")
    await follower.until(Following(), b"one")
    feed.send(Finish())
    entry = await keeping

    await follower.task
    assert follower.seen == [Following(), b"one", Completed(entry, 1)]


async def test_lease_that_was_given_unheard_is_followed_where_it_is_used(
    make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch
):
    """A lease that another replica adopted before this one found out that it has it is followed there."""
    one, other, unheard = await make_replica(), await make_replica(), Unheard(monkeypatch)
    await unheard.claim(one)
    feed = Feed()
    keeping = asyncio.create_task(other.keep_stream(DRAFT, aiter(feed), unheard.lease_id))
    feed.send(b"one")
    followers = [Follower(other), Follower(one)]
    await followers[0].until(Following(), b"one")
    await unheard.find_out()
    await followers[1].until(Following(), b"one")
    feed.send(Finish())
    entry = await keeping

    for follower in followers:
        await follower.task
        assert follower.seen == [Following(), b"one", Completed(entry, 1)]


class SlowPut:
    """A store that gets an answer after `go`, and whether it had it whenever a lease was ended."""

    def __init__(self, replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go, self.seen = asyncio.Event(), asyncio.Event(), list[bool]()
        self._put, self._end, self._stored = replica.store.put, RedisLeases.end, False
        monkeypatch.setattr(replica.store, "put", self.put)
        monkeypatch.setattr(RedisLeases, "end", lambda *arguments, **options: self.end(*arguments, **options))

    async def put(self, entry: Entry) -> None:
        self.begun.set()
        await self.go.wait()
        await self._put(entry)
        self._stored = True

    async def end(self, *arguments: Any, **options: Any) -> bool:
        self.seen.append(self._stored)
        return await self._end(*arguments, **options)


@pytest.mark.parametrize("given", [Unheard, Slow], ids=["given unheard", "being claimed"])
async def test_lease_stands_until_its_answer_is_stored(
    make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch, given: type[Unheard | Slow]
):
    """An answer that lands before its own lease is known is stored before that ends, for those who wait elsewhere."""
    one, other, lease = await make_replica(), await make_replica(), given(monkeypatch)
    await lease.claim(one)
    before, slow = asyncio.all_tasks(), SlowPut(one, monkeypatch)
    waiting = look_up([other], 1)
    await followed(other)
    keeping = asyncio.create_task(one.keep(DRAFT, [b"answer"], None))
    await slow.begun.wait()
    await lease.find_out()
    slow.go.set()

    assert isinstance(await waiting[0], Hit)
    await keeping
    await ended_since(before)
    assert slow.seen == [True]


async def test_lookup_that_hangs_up_leaves_a_stream_that_began_meanwhile(
    make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch
):
    """A caller that goes while it claims ends nothing that is streamed here by then under another replica's lease."""
    one, other, claim = await make_replica(), await make_replica(), RedisLeases.claim
    asked = asyncio.Event()

    async def claim_for_ever(leases: RedisLeases, *arguments: Any) -> Claim:
        asked.set()
        await asyncio.Event().wait()
        return await claim(leases, *arguments)

    lease_id = leased(await other.lookup(LEASED))
    monkeypatch.setattr(RedisLeases, "claim", claim_for_ever)
    claiming = asyncio.create_task(one.lookup(LEASED))
    async with asyncio.timeout(SOON_S):
        await asked.wait()
    monkeypatch.setattr(RedisLeases, "claim", claim)
    feed = Feed()
    keeping = asyncio.create_task(one.keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"one")
    follower = Follower(one)
    await follower.until(Following(), b"one")
    claiming.cancel()
    await asyncio.wait([claiming])
    feed.send(Finish())
    entry = await keeping

    await follower.task
    assert follower.seen == [Following(), b"one", Completed(entry, 1)]


async def test_answer_that_was_stored_meanwhile_is_no_miss(make_replica: MakeReplica, clock: ManualClock):
    """A lookup that misses just before another replica stores the answer gets it with the lease, and needs none."""
    one, other = await make_replica(), await make_replica()
    since = asyncio.get_running_loop().time()
    assert await one.lookup(QUERY) == Miss(MissReason.NOT_FOUND)
    entry = await other.keep(DRAFT, [b"answer"], None)
    joined = await one.flights.join(ADDRESS, 5, since)

    assert joined.leads
    assert joined.entry == entry


class Follower:
    """A streamed lookup, and what it has seen."""

    def __init__(self, replica: Replica) -> None:
        self.seen: list[LookupEvent] = []
        self.news = asyncio.Event()
        self.task = asyncio.create_task(self._follow(replica))

    async def _follow(self, replica: Replica) -> None:
        async for event in replica.lookup_stream(LEASED):
            if event != Waiting():
                self.seen.append(event)
                self.news.set()

    async def until(self, *events: LookupEvent) -> None:
        """Waits until exactly these events were seen."""
        async with asyncio.timeout(SOON_S):
            while self.seen[: len(events)] != list(events):
                assert len(self.seen) <= len(events), self.seen
                self.news.clear()
                await self.news.wait()


async def test_streams_are_followed_over_replicas(make_replica: MakeReplica):
    """Followers at every replica, early or late, see each chunk while the answer is made, and then the same entry."""
    replicas = await three(make_replica)
    lease_id = leased(await replicas[0].lookup(LEASED))
    followers, feed = [Follower(replica) for replica in replicas for _ in range(5)], Feed()
    keeping = asyncio.create_task(replicas[0].keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"one")
    for follower in followers:
        await follower.until(Following(), b"one")
    feed.send(b"two")
    for follower in followers:
        await follower.until(Following(), b"one", b"two")
    followers += [Follower(replica) for replica in replicas]
    for follower in followers:
        await follower.until(Following(), b"one", b"two")
    for number in range(100):
        feed.send(bytes([number]))
    feed.send(Finish(Savings(1, 2)))
    entry = await keeping

    for follower in followers:
        await follower.task
        chunks = [b"one", b"two", *(bytes([number]) for number in range(100))]
        assert follower.seen == [Following(), *chunks, Completed(entry, 102)]


async def test_followers_restart_with_one_of_them(make_replica: MakeReplica):
    """When a streamed leader hangs up, one follower over all replicas leads, and the others see its whole answer."""
    replicas = await three(make_replica)
    lease_id = leased(await replicas[0].lookup(LEASED))
    followers, feed = [Follower(replica) for replica in replicas for _ in range(4)], Feed()
    keeping = asyncio.create_task(replicas[0].keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"torn")
    for follower in followers:
        await follower.until(Following(), b"torn")
    keeping.cancel()
    done, _ = await asyncio.wait(
        [follower.task for follower in followers], return_when=asyncio.FIRST_COMPLETED, timeout=SOON_S
    )
    assert len(done) == 1
    (leader,) = (follower for follower in followers if follower.task in done)
    assert leader.seen[:3] == [Following(), b"torn", Restarted()]
    entry = await replicas[1].keep_stream(DRAFT, chunks_of(b"whole ", b"answer", Finish()), leased(leader.seen[3]))  # type: ignore[arg-type]

    for follower in followers:
        if follower is not leader:
            await follower.task
            whole = [b"whole ", b"answer", Completed(entry, 2)]
            assert follower.seen[:3] == [Following(), b"torn", Restarted()]
            assert follower.seen[4:] == whole
            assert follower.seen[3] == Following() or isinstance(follower.seen[3], Hit)


async def test_end_that_was_not_read_in_time_is_seen(make_replica: MakeReplica, monkeypatch: pytest.MonkeyPatch):
    """A replica that comes to look when the next leader has cleared the last one's stream follows that next leader."""
    monkeypatch.setattr(shared_flight, "BEAT_S", 1e6)  # no later look will mend it
    ahead, behind = await make_replica(), await make_replica()
    asked, gate, read = asyncio.Event(), asyncio.Event(), RedisLeases.read

    async def read_late(leases: RedisLeases, lease_id: str, position: str) -> News:
        asked.set()
        await gate.wait()
        return await read(leases, lease_id, position)

    monkeypatch.setattr(RedisLeases, "read", read_late)
    first = leased(await ahead.lookup(LEASED))
    waiting = asyncio.create_task(behind.lookup(LEASED))
    async with asyncio.timeout(SOON_S):
        await asked.wait()
    await ahead.flights.release(first)
    leased(await ahead.lookup(LEASED))
    gate.set()
    entry = await ahead.keep(DRAFT, [b"answer"], None)

    async with asyncio.timeout(SOON_S):
        found = await waiting
    assert isinstance(found, Hit)
    assert found.entry == entry


async def test_lease_may_be_used_at_any_replica(make_replica: MakeReplica):
    """A stream under a lease that another replica gave is followed everywhere, that replica included."""
    replicas = await three(make_replica)
    lease_id = leased(await replicas[0].lookup(LEASED))
    followers, feed = [Follower(replica) for replica in replicas], Feed()
    keeping = asyncio.create_task(replicas[1].keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"one")
    for follower in followers:
        await follower.until(Following(), b"one")
    feed.send(Finish())
    entry = await keeping

    for follower in followers:
        await follower.task
        assert follower.seen == [Following(), b"one", Completed(entry, 1)]
    assert not await replicas[2].flights.release(lease_id)


async def test_lease_that_was_given_for_more_is_not_ended(make_replica: MakeReplica, clock: ManualClock):
    """An answer ends the lease of those who missed it, not that of someone who has seen it and makes it anew."""
    replica, lasts = await make_replica(), []
    leases, entry = RedisLeases(replica.link, "another"), make_entry(QUERY.key, clock)
    for _ in range(2):
        lease_id = new_lease_id(ADDRESS)
        await leases.claim(ADDRESS, lease_id, 30, asyncio.get_running_loop().time())
        await replica.store.put(entry)
        await leases.end_any(entry)
        lasts.append(await leases.check(lease_id))

    assert lasts[0] is None
    assert lasts[1] is not None


async def test_one_replica_at_a_time_refreshes(make_replica: MakeReplica, clock: ManualClock):
    """An entry that is due at every replica is produced anew by one caller of one replica, and found by all."""
    replicas = await three(make_replica)
    refreshing = replace(QUERY, lease=LeaseQuery(ttl_s=30, wait_s=20, refresh=True))
    await replicas[0].keep(DRAFT, [b"old"], None)
    clock.now_ms += 55_000
    found = await asyncio.gather(*(replica.lookup(refreshing) for replica in replicas for _ in range(10)))
    assert len([hit for hit in found if isinstance(hit, Hit) and hit.refresh]) == 1
    entry = await replicas[1].keep(DRAFT, [b"new"], None)

    for replica in replicas:
        assert await replica.lookup(refreshing) == Hit(HitKind.EXACT, entry, 0)


async def test_dead_replica_is_taken_over(make_replica: MakeReplica, brisk):
    """When a replica dies with a stream in its middle, one of those who follow elsewhere leads next, within seconds."""
    replicas = await three(make_replica)
    lease_id = leased(await replicas[0].lookup(LEASED))
    feed = Feed()
    keeping = asyncio.create_task(replicas[0].keep_stream(DRAFT, aiter(feed), lease_id))
    followers = [Follower(replica) for replica in replicas[1:] for _ in range(5)]
    feed.send(b"torn")
    for follower in followers:
        await follower.until(Following(), b"torn")
    await replicas[0].die()
    done, _ = await asyncio.wait(
        [follower.task for follower in followers], return_when=asyncio.FIRST_COMPLETED, timeout=SOON_S
    )
    assert len(done) == 1
    (leader,) = (follower for follower in followers if follower.task in done)
    entry = await replicas[1].keep_stream(DRAFT, chunks_of(b"whole", Finish()), leased(leader.seen[3]))  # type: ignore[arg-type]
    for follower in followers:
        await follower.task
    keeping.cancel()

    assert all(follower.seen[-1] == Completed(entry, 1) for follower in followers if follower is not leader)


async def test_silent_leader_keeps_its_lease(make_replica: MakeReplica, brisk):
    """A leader that produces for longer than a renewal keeps its lease, and nobody takes over."""
    one, other = await make_replica(), await make_replica()
    leased(await one.lookup(LEASED))
    waiting = replace(QUERY, lease=LeaseQuery(ttl_s=30, wait_s=2.0))

    assert await other.lookup(waiting) == Miss(MissReason.LEASED)


async def test_lease_ends_when_its_holder_said(make_replica: MakeReplica):
    """A lease that its holder asked for 200 ms runs out then, and one of another replica leads."""
    one, other = await make_replica(), await make_replica()
    leased(await one.lookup(replace(QUERY, lease=LeaseQuery(ttl_s=0.2, wait_s=0))))

    async with asyncio.timeout(SOON_S):
        leased(await other.lookup(LEASED))


async def test_nothing_is_sent_that_nobody_follows(make_replica: MakeReplica):
    """A stream that no other replica follows leaves no trace but its entry."""
    replica = await make_replica()
    lease_id = leased(await replica.lookup(LEASED))
    feed = Feed()
    keeping = asyncio.create_task(replica.keep_stream(DRAFT, aiter(feed), lease_id))
    follower = Follower(replica)
    feed.send(b"one")
    await follower.until(Following(), b"one")
    keys = f"{PREFIX}:{{{ADDRESS.tenant.hex()}}}"
    assert not await replica.link.client.exists(f"{keys}:flight:{ADDRESS.entry.hex()}")
    feed.send(Finish())
    await keeping
    await replica.flights.close()

    assert not await replica.link.client.exists(f"{keys}:lease:{ADDRESS.entry.hex()}")


async def test_streamed_answer_is_not_cut_by_another(make_replica: MakeReplica, clock: ManualClock):
    """An answer stored at another replica meanwhile does not end a stream that is followed."""
    one, other = await make_replica(), await make_replica()
    lease_id = leased(await one.lookup(LEASED))
    feed = Feed()
    keeping = asyncio.create_task(one.keep_stream(DRAFT, aiter(feed), lease_id))
    feed.send(b"first ")
    followers = [Follower(one), Follower(other)]
    for follower in followers:
        await follower.until(Following(), b"first ")
    await other.keep(DRAFT, [b"second"], None)
    feed.send(b"answer")
    feed.send(Finish())
    entry = await keeping

    for follower in followers:
        await follower.task
        assert follower.seen == [Following(), b"first ", b"answer", Completed(entry, 2)]


class SlowMatcher:
    """Looks for similar questions for longer than a lookup may ask Redis, and finds none."""

    async def find(self, query: Query, address: Address, missed: Miss, arrived_ms: int) -> Found:
        await asyncio.sleep(0.5)
        return missed


async def test_time_to_find_similar_questions_is_apart(shared_redis: RedisServer, clock: ManualClock):
    """However long the search for similar questions took, the lease is claimed where all replicas see it."""
    shared_redis.command("flushall")
    replicas = [await started(redis_link(shared_redis.url, read_timeout_s=0.4), clock) for _ in range(2)]
    try:
        for replica in replicas:
            replica.matcher = SlowMatcher()  # type: ignore[assignment]
        query = replace(QUERY, lease=LeaseQuery(ttl_s=30, wait_s=0))
        leased(await replicas[0].lookup(query))
        assert await replicas[1].lookup(query) == Miss(MissReason.LEASED)
    finally:
        for replica in replicas:
            await stop(replica)


async def test_lookup_that_hangs_up_while_it_claims_leaves_no_lease(make_replica: MakeReplica):
    """A caller that goes while its lease is being claimed does not keep others waiting."""
    one, other = await make_replica(), await make_replica()
    for _ in range(20):
        lookup = asyncio.create_task(one.lookup(LEASED))
        await asyncio.sleep(random.uniform(0, 0.002))
        lookup.cancel()
        await asyncio.wait([lookup])
        if not lookup.cancelled():
            await one.flights.release(leased(lookup.result()))

    async with asyncio.timeout(SOON_S):
        leased(await other.lookup(LEASED))


async def test_frozen_redis_leaves_flights_of_ones_own(own_redis: RedisServer, clock: ManualClock):
    """Without Redis each replica has its own leader, followers of another's are let go, and no wait is longer."""
    one, other = [await started(redis_link(own_redis.url, read_timeout_s=0.2), clock) for _ in range(2)]
    try:
        lease_id = leased(await one.lookup(LEASED))
        feed = Feed()
        keeping = asyncio.create_task(one.keep_stream(DRAFT, aiter(feed), lease_id))
        followers = [Follower(other) for _ in range(3)]
        feed.send(b"torn")
        for follower in followers:
            await follower.until(Following(), b"torn")
        own_redis.freeze()
        while other.store.available:
            await other.lookup(replace(QUERY, key=make_key("stranger")))
        done, _ = await asyncio.wait([each.task for each in followers], return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        (leader,) = (follower for follower in followers if follower.task in done)
        own = other.keep_stream(DRAFT, chunks_of(b"own", Finish()), leased(leader.seen[3]))  # type: ignore[arg-type]
        assert isinstance((await asyncio.gather(own, return_exceptions=True))[0], Exception)  # It could not be kept.
        for follower in followers:
            await follower.task
        keeping.cancel()
    finally:
        own_redis.thaw()
        await stop(one)
        await stop(other)

    assert [follower.seen[-2] for follower in followers if follower is not leader] == [b"own"] * 2


async def test_lease_ids_that_are_none_are_no_error(make_replica: MakeReplica, clock: ManualClock):
    """A lease id that was made up leads nothing and releases nothing."""
    replica = await make_replica()
    for lease_id in ("x", "a.b.c", f"{'0' * 64}.{'1' * 64}.x"):
        assert not await replica.flights.release(lease_id)
        assert await replica.flights.lead(lease_id, make_entry(make_key(), clock).address) is None
