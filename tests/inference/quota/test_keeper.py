"""The keeper: what runs for long is kept, what is lost is found, and no request waits for any of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from services.inference.generation import Usage
from services.inference.quota.keeper import Keeper
from services.inference.quota.limit import Claim
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.reservation import Reservation, State
from services.inference.quota.store import HOLD_MS, StoreLost
from tests.inference.quota.parts import HandClock, at_once, claim, tokens


class Flaky(MemoryStore):
    """A store that cannot be asked for a while."""

    lost = False

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        if self.lost:
            raise StoreLost(sent=True)
        return await super().end(claim, used)

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        if self.lost:
            raise StoreLost(sent=True)
        return await super().renew(claim, used)


class Slow(MemoryStore):
    """A store that takes its time to tend, and knows how many ask it to at once."""

    tending_count = tending_count_max = 0

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

    async def tend(self, slots: Collection[str]) -> None:
        self.tending_count += 1
        self.tending_count_max = max(self.tending_count, self.tending_count_max)
        self.begun.set()
        await self.go_on.wait()
        self.tending_count -= 1


async def held(store: MemoryStore, keeper: Keeper, asked: Claim) -> Reservation:
    """A reservation that the keeper looks after."""
    assert all(one.fits for one in await store.take(asked))
    reservation = Reservation(asked, keeper.end)
    keeper.hold(reservation)
    return reservation


async def remaining(store: MemoryStore, asked: Claim) -> int:
    return (await store.take(claim((asked.limits[0], 0))))[0].remaining


async def test_long_streams_keep_their_slot(clock: HandClock) -> None:
    """A reservation is renewed for as long as it is open, and its end frees the slot."""
    store = MemoryStore(clock)
    keeper = Keeper(store)
    reservation = await held(store, keeper, claim((at_once(1), 1)))

    for _ in range(20):
        clock.now_ms += HOLD_MS // 2
        await keeper.round()
        assert not (await store.take(claim((at_once(1), 1))))[0].fits
    reservation.release()
    await asyncio.sleep(0)

    assert (await store.take(claim((at_once(1), 1))))[0].fits


async def test_what_was_used_so_far_is_reported(clock: HandClock) -> None:
    """Of a process that dies, what its streams had used by the last round stays spent, and no more."""
    store = MemoryStore(clock)
    keeper = Keeper(store)
    day = tokens(1_000)
    reservation = await held(store, keeper, claim((day, 500)))
    reservation.progress = lambda: (Usage(10, 20), 0)
    await keeper.round()

    clock.now_ms += HOLD_MS
    await Keeper(store).round()  # another process, which does not know the tenant
    assert await remaining(store, reservation.claim) == 500
    await store.tend(("acme",))

    assert await remaining(store, reservation.claim) == 970


async def test_who_was_given_up_learns_of_it(clock: HandClock) -> None:
    """A process that was stopped for too long finds its reservation expired, and charges nothing more."""
    store = MemoryStore(clock)
    keeper = Keeper(store)
    reservation = await held(store, keeper, claim((tokens(1_000), 500)))
    clock.now_ms += HOLD_MS
    await store.tend(("acme",))

    await keeper.round()
    reservation.settle(Usage(1, 1), None)
    await asyncio.sleep(0)

    assert reservation.state is State.EXPIRED
    assert keeper.open_count == 0
    assert await remaining(store, reservation.claim) == 500


async def test_a_lost_store_is_asked_again(clock: HandClock) -> None:
    """A round that met no store changes nothing; the next one renews as if it had not been."""
    store = Flaky(clock)
    keeper = Keeper(store)
    reservation = await held(store, keeper, claim((at_once(1), 1)))
    store.lost = True
    await keeper.round()
    assert reservation.state is State.OPEN

    store.lost = False
    clock.now_ms += HOLD_MS - 1
    await keeper.round()
    clock.now_ms += HOLD_MS - 1

    assert not (await store.take(claim((at_once(1), 1))))[0].fits


async def test_one_that_cannot_be_renewed_stops_no_other(clock: HandClock) -> None:
    """What is counted in this process while Redis is away is renewed, whatever else is not."""

    class Partly(MemoryStore):
        async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
            if claim is lost.claim:
                raise StoreLost(sent=False)
            return await super().renew(claim, used)

    store = Partly(clock)
    keeper = Keeper(store)
    lost = await held(store, keeper, claim((tokens(1_000), 1)))
    for _ in range(200):
        await held(store, keeper, claim((at_once(200), 1)))

    clock.now_ms += HOLD_MS - 1
    await keeper.round()
    clock.now_ms += 1

    assert not (await store.take(claim((at_once(200), 1))))[0].fits


async def test_closing_settles_what_has_ended(clock: HandClock) -> None:
    """Ends that are under way as the service stops are carried out first."""
    store = MemoryStore(clock)
    keeper = Keeper(store)
    await keeper.start()
    reservation = await held(store, keeper, claim((tokens(1_000), 500)))

    reservation.settle(Usage(5, 5), None)
    await keeper.close()

    assert await remaining(store, reservation.claim) == 990


async def test_a_wake_brings_the_next_round(clock: HandClock) -> None:
    """What is owed need not wait for the next round's time."""
    tended = asyncio.Event()

    class Tended(MemoryStore):
        async def tend(self, slots: object) -> None:
            tended.set()

    keeper = Keeper(Tended(clock), interval_s=3_600)
    await keeper.start()
    keeper.wake()

    async with asyncio.timeout(10):
        await tended.wait()
    await keeper.close()


async def test_the_last_round_waits_for_the_one_under_way() -> None:
    """Two rounds at once would charge twice what waits to be charged."""
    store = Slow()
    keeper = Keeper(store)
    await keeper.start()
    keeper.wake()
    await store.begun.wait()

    closing = asyncio.create_task(keeper.close())
    for _ in range(5):
        await asyncio.sleep(0)
    store.go_on.set()
    await closing

    assert store.tending_count_max == 1
