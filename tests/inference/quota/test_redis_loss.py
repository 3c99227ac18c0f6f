"""Redis frozen, stopped, restarted: requests go on as was chosen, within one deadline, and nothing stays behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.inference.quota.guarded_store import GuardedStore, OnLoss
from services.inference.quota.limit import Window
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.redis_lane import RedisLane
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import StoreLost
from tests.fakes.redis_server import RedisServer
from tests.inference.quota.conftest import redis_lane
from tests.inference.quota.parts import at_once, claim, limit, tokens

TIMEOUT_S = 0.08
# What is waited for happens within a probe or two; a busy machine may take longer.
DEADLINE_S = 10
Make = Callable[..., Awaitable[GuardedStore]]


class Guarded(GuardedStore):
    """A guarded store, its lane and what that announced."""

    lane: RedisLane
    shared: RedisStore
    changes: asyncio.Queue[bool]


@pytest.fixture
async def make(own_redis: RedisServer) -> AsyncIterator[Make]:
    """Makes stores on the test's own Redis."""
    async with AsyncExitStack() as stack:

        async def guarded(on_loss: OnLoss = "local", timeout_s: float = TIMEOUT_S) -> Guarded:
            lane = redis_lane(own_redis.url, timeout_s=timeout_s)
            stack.push_async_callback(lane.close)
            shared = RedisStore(lane)
            store = Guarded(shared, on_loss, MemoryStore())
            store.lane, store.shared, store.changes = lane, shared, asyncio.Queue()
            lane.on_change = store.changes.put_nowait
            await lane.open()
            return store

        yield guarded


async def fits(store: GuardedStore, *wanted: tuple[object, int]) -> bool:
    return all(one.fits for one in await store.take(claim(*wanted)))  # type: ignore[arg-type]


async def change(store: Guarded) -> bool:
    async with asyncio.timeout(DEADLINE_S):
        return await store.changes.get()


async def lose(store: Guarded, redis: RedisServer) -> None:
    """Freezes Redis, and asks until its breaker is open."""
    redis.freeze()
    for _ in range(3):
        await fits(store, (limit(5), 1))
    assert await change(store) is False


async def test_a_frozen_redis_costs_one_deadline_then_nothing(
    make: Make, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls at once wait for one trip together and go on; once the breaker is open nobody asks; then Redis is used.

    The log says it once, not for each call.
    """
    store = await make()
    assert await fits(store, (limit(100), 1))
    own_redis.freeze()

    sent = [await asyncio.gather(*(fits(store, (limit(1_000), 1)) for _ in range(200))) for _ in range(3)]

    assert all(all(one) for one in sent)
    assert [record.getMessage() for record in caplog.records] == ["Redis was too late for a limit"]
    assert await change(store) is False
    assert await fits(store, (limit(1_000), 1))  # nobody is asked: there is no deadline to wait for
    assert not store.lane.available
    own_redis.thaw()
    assert await change(store) is True
    assert await fits(store, (limit(100), 1))
    assert (await store.take(claim((limit(100), 0))))[0].remaining < 99


async def test_those_who_wait_hear_of_a_loss_together(make: Make, own_redis: RedisServer) -> None:
    """However many trips the calls at once would be, none waits for more than the first."""
    store = await make(timeout_s=1.0)
    own_redis.freeze()
    began = time.monotonic()

    await asyncio.gather(*(fits(store, (limit(10_000), 1)) for _ in range(500)))

    # Eight trips of a second each, were each to be tried.
    assert time.monotonic() - began < 4


async def test_each_replica_counts_its_share(make: Make, own_redis: RedisServer) -> None:
    """With three replicas known, each lets a third through while Redis is away, and at least one."""
    stores = [await make() for _ in range(3)]
    for store in (*stores, *stores):
        await store.tend(())
    own_redis.kill()

    async def let_in(store: GuardedStore, maximum: int) -> int:
        asked = limit(maximum, subject=f"user:{maximum}")
        return sum([await fits(store, (asked, 1)) for _ in range(maximum)])

    assert [await let_in(store, 30) for store in stores] == [10, 10, 10]
    assert [await let_in(store, 2) for store in stores] == [1, 1, 1]
    shared_out = claim((tokens(90, Window.MINUTE), 30))
    assert all(one.fits for one in await stores[0].take(shared_out))
    await stores[0].end(shared_out, (10,))
    assert [one.fits for one in await stores[0].take(claim((tokens(90, Window.MINUTE), 21)))] == [False]


@pytest.mark.parametrize(("on_loss", "let_in"), [("open", 50), ("local", 5)])
async def test_who_goes_on_is_the_operators_choice(
    make: Make, own_redis: RedisServer, on_loss: OnLoss, let_in: int
) -> None:
    """Without Redis all go on, or as many as this process counts."""
    store = await make(on_loss)
    own_redis.kill()

    assert sum([await fits(store, (limit(5), 1)) for _ in range(50)]) == let_in


async def test_closed_refuses_with_a_time_to_come_back(make: Make, own_redis: RedisServer) -> None:
    """Where nothing may go uncounted a request is refused as unavailable, not as over its limit."""
    store = await make("closed")
    own_redis.kill()

    with pytest.raises(StoreLost) as caught:
        await fits(store, (limit(5), 1))

    assert (caught.value.reason, caught.value.retry_after_ms) == ("QUOTAS_UNAVAILABLE", 1_000)


async def test_what_ends_while_redis_is_away_is_charged_when_it_is_back(make: Make, own_redis: RedisServer) -> None:
    """An end that Redis could not be told is told later, once; what began in this process is charged there, too."""
    store = await make()
    day = tokens(1_000)
    taken = claim((day, 600), (at_once(1), 1))
    assert all(one.fits for one in await store.take(taken))
    await lose(store, own_redis)
    local = claim((day, 300))
    assert all(one.fits for one in await store.take(local))

    await store.end(taken, (40, 0))
    await store.end(local, (250,))
    own_redis.thaw()
    assert await change(store) is True
    await store.tend(())
    await store.tend(())

    assert (await store.take(claim((day, 0))))[0].remaining == 1_000 - 40 - 250
    assert await fits(store, (at_once(1), 1))


async def test_what_a_frozen_redis_granted_to_nobody_is_given_back(make: Make, own_redis: RedisServer) -> None:
    """A claim that nobody heard the answer to, and that Redis granted as it thawed, holds nothing for long."""
    store = await make("open")
    running = at_once(1)
    assert await fits(store, (limit(5), 1))  # Redis knows the script
    own_redis.freeze()
    for _ in range(3):
        assert await fits(store, (running, 1), (tokens(100), 100))
    assert await change(store) is False
    own_redis.thaw()
    assert await change(store) is True

    async with asyncio.timeout(DEADLINE_S):
        while True:
            await store.tend(("acme",))
            if await fits(store, (running, 1), (tokens(100), 100)):
                break


async def test_a_cancelled_claim_is_given_back(make: Make, own_redis: RedisServer) -> None:
    """Whoever leaves while its claim is under way takes nothing with it."""
    store = await make()
    running = at_once(1)
    leaving = asyncio.create_task(fits(store, (running, 1)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    await store.tend(())

    assert await fits(store, (running, 1))


async def test_a_restart_with_nothing_kept_begins_anew(make: Make, own_redis: RedisServer, tmp_path: Path) -> None:
    """A Redis that comes back empty is used again by itself: its scripts are loaded, its counts begin at 0."""
    store = await make()
    taken = claim((limit(5), 5), (tokens(100), 100))
    assert all(one.fits for one in await store.take(taken))
    own_redis.kill()
    for _ in range(3):
        await fits(store, (limit(5), 1))
    assert await change(store) is False
    server = RedisServer(tmp_path, port=own_redis.port)
    try:
        assert await change(store) is True

        assert await store.end(taken, (5, 10)) is False
        assert (await store.take(claim((limit(5), 1))))[0].remaining == 4
        assert (await store.take(claim((tokens(100), 0))))[0].remaining == 100
    finally:
        server.kill()


async def test_a_connection_that_redis_has_closed_is_made_anew(make: Make, own_redis: RedisServer) -> None:
    """One call at most, which was under way as the connection ended, is lost by it; the breaker stays closed."""
    store = await make("closed", timeout_s=1.0)
    for _ in range(3):
        assert await fits(store, (limit(100), 1))
        own_redis.command("client", "kill", "type", "normal")

        with suppress(StoreLost):
            await fits(store, (limit(100), 1))
        assert await fits(store, (limit(100), 1))

    assert store.lane.available
    assert (await store.take(claim((limit(100), 0))))[0].remaining < 95


async def test_a_refusal_of_redis_is_a_loss_without_a_breaker(
    make: Make, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A Redis that answers and refuses (its memory is full) is asked again each time; meanwhile this process counts.

    The log says so once, in Redis's words.
    """
    store = await make()
    own_redis.command("config", "set", "maxmemory", "1")

    assert [await fits(store, (limit(2), 1)) for _ in range(6)] == [True, True, False, False, False, False]
    assert store.lane.available
    [said] = [vars(record) for record in caplog.records]
    assert said["message"] == "Redis refuses to count for a limit"
    assert "maxmemory" in said["reason"]
    own_redis.command("config", "set", "maxmemory", "0")
    assert await fits(store, (limit(2), 1))


@pytest.mark.parametrize(
    ("trouble", "told"),
    [("freeze", "no answer in time"), ("kill", "ConnectionError"), ("password", "AuthenticationError")],
)
async def test_why_redis_is_not_asked_is_known(make: Make, own_redis: RedisServer, trouble: str, told: str) -> None:
    """What an operator has to see to is told apart: a Redis that is slow, gone, or knows another password."""
    store = await make(timeout_s=0.2)
    assert await fits(store, (limit(100), 1))
    if trouble == "password":
        own_redis.command("config", "set", "requirepass", "other")
        own_redis.command("--no-auth-warning", "-a", "other", "client", "kill", "type", "normal")
    else:
        getattr(own_redis, trouble)()

    for _ in range(4):
        await fits(store, (limit(100), 1))

    assert await change(store) is False
    assert told in store.lane.trouble


async def test_nothing_stays_in_redis(make: Make, own_redis: RedisServer) -> None:
    """Whatever is kept expires: there is no key without an end."""
    store = await make()
    taken = claim((limit(5), 1), (tokens(100), 10), (at_once(3), 1))
    assert all(one.fits for one in await store.take(taken))
    await store.renew(taken, (1, 5, 1))
    await store.tend(("acme",))
    client = Redis.from_url(own_redis.url)
    keys = await client.keys("*")

    assert len(keys) == 6  # three limits, the claim, who is open, the replicas
    assert [key for key in keys if await client.pttl(key) <= 0] == []
    await store.end(taken, (1, 5, 0))
    assert {key.decode().rpartition(":")[2] for key in await client.keys("*")} == {
        "requests_minute",
        "tokens_day",
        "replicas",
    }
    await client.aclose()


async def test_a_connection_that_is_being_made_to_a_frozen_redis_holds_nobody_up(
    make: Make, own_redis: RedisServer
) -> None:
    """A Redis that takes connections and says nothing is as frozen as one that took them before."""
    own_redis.freeze()
    store = await make()  # its first trial fails, and opens the breaker
    lane = redis_lane(own_redis.url, timeout_s=TIMEOUT_S)
    fresh = Guarded(RedisStore(lane), "local", MemoryStore())
    began = time.monotonic()

    for _ in range(3):
        assert all(await asyncio.gather(*(fits(fresh, (limit(100), 1)) for _ in range(8))))

    # redis-py's own timeout, which a cancel does not always shorten, is a second for each of the three.
    assert time.monotonic() - began < 2.5
    assert not store.lane.available
    assert not lane.available
    own_redis.thaw()
    await lane.close()


async def test_what_redis_was_too_late_for_runs_on_in_this_process(make: Make, own_redis: RedisServer) -> None:
    """Giving back what Redis may have granted late ends nothing that was let in here instead, and it is charged."""
    store = await make()
    day, running = tokens(1_000), at_once(1)
    assert await fits(store, (limit(5), 1))  # Redis knows the script
    own_redis.freeze()
    taken = claim((running, 1), (day, 600))
    assert all(one.fits for one in await store.take(taken))
    for _ in range(3):
        await fits(store, (limit(5), 1))
    assert await change(store) is False

    with suppress(StoreLost):
        await store.tend(("acme",))

    assert not await fits(store, (running, 1))
    own_redis.thaw()
    assert await change(store) is True
    await store.tend(("acme",))
    await store.tend(("acme",))
    await store.end(taken, (0, 250))
    await store.tend(("acme",))
    assert (await store.take(claim((day, 0))))[0].remaining == 1_000 - 250


async def test_a_charge_whose_answer_is_lost_is_made_once(make: Make, own_redis: RedisServer) -> None:
    """What was let in while Redis was away is charged when it is back, also where it is gone again at that moment."""
    store = await make()
    day = tokens(1_000)
    for used in (100, 250):  # the first has Redis know the script
        await lose(store, own_redis)
        local = claim((day, 300))
        assert all(one.fits for one in await store.take(local))
        await store.end(local, (used,))
        own_redis.thaw()
        assert await change(store) is True
        if used == 250:
            own_redis.freeze()
            with pytest.raises(StoreLost):
                await store.tend(())
            own_redis.thaw()  # and does now what it was asked for

        async with asyncio.timeout(DEADLINE_S):
            while store._uncharged:
                with suppress(StoreLost):
                    await store.tend(())

    assert (await store.take(claim((day, 0))))[0].remaining == 1_000 - 100 - 250


async def test_what_the_ledger_knows_of_is_not_charged_on_top_of_it(make: Make, own_redis: RedisServer) -> None:
    """The ledger's word on a budget holds what was let in while Redis was away, too: that is charged before."""
    store = await make()
    day = tokens(1_000)
    before = claim((day, 200))
    assert all(one.fits for one in await store.take(before))
    await store.end(before, (200,))
    await lose(store, own_redis)
    local = claim((day, 300))
    assert all(one.fits for one in await store.take(local))
    await store.end(local, (250,))
    own_redis.thaw()
    assert await change(store) is True

    await store.floor(claim((day, 450)))
    await store.tend(())

    assert (await store.take(claim((day, 0))))[0].remaining == 1_000 - 450
