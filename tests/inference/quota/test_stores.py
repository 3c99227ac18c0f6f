"""The contract of the stores of quotas, for each kind: in this process, on Redis, and on a cluster of Redis."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from services.inference.quota.limit import Claim, Standing, Unit, Window
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import HOLD_MS, RECORD_MS, QuotaStore
from tests.inference.quota.parts import MINUTE_MS, HandClock, at_once, claim, limit, tokens


async def granted(store: QuotaStore, asked: Claim) -> bool:
    """Whether a claim is granted."""
    return all(standing.fits for standing in await store.take(asked))


async def remaining(store: QuotaStore, asked: Claim) -> int:
    """What is left of the first limit, found out by a claim of nothing."""
    first = asked.limits[0]
    return (await store.take(claim((first, 0))))[0].remaining


async def test_asking_takes_nothing(store: QuotaStore, clock: HandClock) -> None:
    """A claim without an id says where limits stand, also those on what runs at once, and is never overdue."""
    limits = (limit(5), at_once(2), tokens(100))
    assert await granted(store, claim(*((one, 1) for one in limits)))
    asks = Claim("", "acme", limits, (0, 0, 0))

    for _ in range(3):
        assert [standing.remaining for standing in await store.take(asks)] == [4, 1, 99]
    clock.now_ms += 10 * HOLD_MS
    await store.tend(["acme"])
    assert [standing.remaining for standing in await store.take(asks)] == [5, 2, 99]


async def test_a_minute_gives_its_limit_and_no_more(store: QuotaStore, clock: HandClock) -> None:
    """Five of five fit, the sixth is told when it will, and comes just then and not a millisecond earlier."""
    five = limit(5)

    for left in (4, 3, 2, 1, 0):
        assert await store.take(claim((five, 1))) == (Standing(True, left, 0, (5 - left) * 12_000),)
    assert await store.take(claim((five, 1))) == (Standing(False, 0, 12_000, MINUTE_MS),)
    clock.now_ms += 11_999
    assert not await granted(store, claim((five, 1)))
    clock.now_ms += 1
    assert await granted(store, claim((five, 1)))
    assert not await granted(store, claim((five, 1)))


async def test_a_burst_is_taken_at_once_and_comes_back_at_the_rate(store: QuotaStore, clock: HandClock) -> None:
    """A bucket smaller or larger than a minute's worth holds so much, and fills at the minute's rate."""
    small = limit(600, burst=2)

    assert [await granted(store, claim((small, 1))) for _ in range(3)] == [True, True, False]
    clock.now_ms += 100
    assert [await granted(store, claim((small, 1))) for _ in range(2)] == [True, False]


async def test_a_clock_that_is_put_back_holds_nobody_for_longer(store: QuotaStore, clock: HandClock) -> None:
    """Whoever has used up a minute's limit is let in as soon as told, also where the clock goes back a day."""
    five = limit(5)
    assert [await granted(store, claim((five, 1))) for _ in range(6)] == [True] * 5 + [False]

    clock.now_ms -= 86_400_000
    (refused,) = await store.take(claim((five, 1)))
    assert (refused.fits, refused.wait_ms) == (False, 12_000)
    clock.now_ms += 12_000

    assert [await granted(store, claim((five, 1))) for _ in range(2)] == [True, False]


async def test_all_limits_are_taken_or_none(store: QuotaStore) -> None:
    """A claim that one limit has no room for leaves the others as they were."""
    roomy, full = limit(10), tokens(100)
    asked = claim((roomy, 1), (full, 101))

    first, second = await store.take(asked)

    assert (first.fits, first.remaining) == (True, 10)
    assert (second.fits, second.remaining, second.wait_ms) == (False, 100, None)
    assert await remaining(store, asked) == 10


async def test_a_day_and_a_month_begin_anew(store: QuotaStore, clock: HandClock) -> None:
    """A budget is whole again at midnight, a month's on its first day, both of UTC; until then it is told how long."""
    clock.now_ms = int(datetime(2028, 2, 28, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000
    day, month = tokens(100), tokens(150, Window.MONTH)

    assert await store.take(claim((day, 100), (month, 100))) == (
        Standing(True, 0, 0, 1_000),
        Standing(True, 50, 0, 86_401_000),  # a leap year
    )
    assert (await store.take(claim((day, 1))))[0].wait_ms == 1_000
    clock.now_ms += 1_000
    assert [one.fits for one in await store.take(claim((day, 51), (month, 51)))] == [True, False]
    clock.now_ms += 86_400_000
    assert await granted(store, claim((day, 100), (month, 150)))
    clock.now_ms = int(datetime(2028, 12, 31, 12, tzinfo=UTC).timestamp()) * 1000
    assert (await store.take(claim((month, 150))))[0] == Standing(True, 0, 0, 12 * 3_600_000)


async def test_what_was_not_used_comes_back(store: QuotaStore) -> None:
    """An end charges what was used in place of what was reserved, of every limit, and frees the slot."""
    running, minute, day = at_once(1), tokens(1_000, Window.MINUTE), tokens(5_000)
    asked = claim((minute, 800), (day, 800), (running, 1))
    assert await granted(store, asked)
    assert not await granted(store, claim((running, 1)))

    assert await store.end(asked, (120, 120, 0))

    assert await remaining(store, asked) == 880
    assert await remaining(store, claim((day, 0))) == 4_880
    assert await granted(store, claim((running, 1)))


async def test_more_than_reserved_is_charged_and_owed(store: QuotaStore, clock: HandClock) -> None:
    """What was used beyond the reservation counts, even beyond the limit: nothing fits until it is paid back."""
    minute, day = tokens(600, Window.MINUTE), tokens(1_000)
    asked = claim((minute, 600), (day, 600))
    assert await granted(store, asked)

    assert await store.end(asked, (1_200, 1_200))

    assert (await store.take(claim((minute, 1))))[0].wait_ms == 60_100
    assert (await store.take(claim((day, 0))))[0].fits is False
    clock.now_ms += 60_100
    assert await granted(store, claim((minute, 1)))


async def test_only_the_first_end_counts(store: QuotaStore) -> None:
    """Of many ends of one claim, at the same time or later, one is told that it was the one, and one charges."""
    asked = claim((tokens(1_000), 500))
    assert await granted(store, asked)

    ends = await asyncio.gather(*(store.end(asked, (used,)) for used in (100,) * 20))

    assert sorted(ends) == [False] * 19 + [True]
    assert not await store.end(asked, (0,))
    assert await remaining(store, asked) == 900


async def test_an_end_after_midnight_leaves_the_new_day_alone(store: QuotaStore, clock: HandClock) -> None:
    """What was reserved of yesterday's budget is settled against yesterday's."""
    day = tokens(1_000)
    asked = claim((day, 800))
    assert await granted(store, asked)
    clock.now_ms += 86_400_000
    assert await granted(store, claim((day, 300)))

    assert await store.end(asked, (100,))

    assert await remaining(store, asked) == 700


async def test_a_renewed_claim_is_kept(store: QuotaStore, clock: HandClock) -> None:
    """A claim that is renewed in time holds its slot for as long as it runs; a renewal after the end is told so."""
    running = at_once(1)
    asked = claim((running, 1))
    assert await granted(store, asked)

    for _ in range(5):
        clock.now_ms += HOLD_MS - 1
        assert await store.renew(asked, (1,))
        await store.tend(["acme"])
        assert not await granted(store, claim((running, 1)))
    assert await store.end(asked, (0,))
    assert not await store.renew(asked, (1,))
    assert await granted(store, claim((running, 1)))


async def test_a_lost_claim_frees_its_slot_by_itself(store: QuotaStore, clock: HandClock) -> None:
    """The slot of a claim that nobody renews is free once its time is over, though nobody looks for it."""
    running = at_once(1)
    assert await granted(store, claim((running, 1)))

    clock.now_ms += HOLD_MS - 1
    assert not await granted(store, claim((running, 1)))
    clock.now_ms += 1
    assert await granted(store, claim((running, 1)))


async def test_a_lost_claim_is_charged_what_was_reported_last(store: QuotaStore, clock: HandClock) -> None:
    """Of a claim that nobody renews any more, what was reported stays spent and the rest comes back, once."""
    day = tokens(1_000)
    lost, silent = claim((day, 400)), claim((day, 500))
    assert await granted(store, lost)
    assert await granted(store, silent)
    assert await store.renew(lost, (30,))

    clock.now_ms += HOLD_MS
    await store.tend(["acme"])
    await store.tend(["acme"])

    assert await remaining(store, lost) == 1_000 - 30 - 500
    assert not await store.end(lost, (0,))
    assert not await store.end(silent, (0,))


async def test_what_was_let_in_elsewhere_is_charged_in_full(store: QuotaStore, clock: HandClock) -> None:
    """A charge counts once, whether or not there is room, in the windows of now, and takes no slot."""
    if not isinstance(store, RedisStore):
        return
    minute, day, month, running = tokens(600, Window.MINUTE), tokens(100), tokens(900, Window.MONTH), at_once(1)
    asked, other = (claim((minute, 1), (day, 1), (month, 1), (running, 1)) for _ in range(2))
    for one in (asked, other, asked):
        await store.charge(one, (600, 70, 70, 0))

    minutes, days, months, _ = await store.take(claim((minute, 1), (day, 0), (month, 0), (running, 0)))
    assert minutes.wait_ms == 60_100
    assert (days.fits, months.remaining) == (False, 760)
    clock.now_ms += 86_400_000
    assert await granted(store, claim((day, 100), (running, 1)))


async def test_a_budget_is_raised_to_what_others_know(store: QuotaStore, clock: HandClock) -> None:
    """A floor raises what a day and a month count, in the windows of now, and never lowers it."""
    day, month, minute = tokens(100), tokens(900, Window.MONTH), tokens(600, Window.MINUTE)
    assert await granted(store, claim((day, 10), (month, 50)))
    await store.floor(claim((day, 70), (month, 30), (minute, 600)))
    await store.floor(claim((day, 20), (month, 30)))

    assert await remaining(store, claim((day, 0))) == 30
    assert await remaining(store, claim((month, 0))) == 850
    assert await granted(store, claim((minute, 600)))
    clock.now_ms += 86_400_000
    assert await granted(store, claim((day, 100)))


async def test_tenants_do_not_share(store: QuotaStore) -> None:
    """What one tenant uses, another still has."""
    assert await granted(store, claim((limit(1), 1), slot="acme"))
    assert await granted(store, claim((limit(1), 1), slot="other"))
    assert not await granted(store, claim((limit(1), 1), slot="acme"))


async def test_huge_amounts_stay_exact(store: QuotaStore) -> None:
    """Nothing is rounded at the largest limits that a file can name."""
    minute, month = tokens(1_000_000_000, Window.MINUTE), tokens(1_000_000_000_000, Window.MONTH)
    money = limit(100_000_000_000_000, Window.MONTH, Unit.MICRO_USD)
    asked = claim((minute, 999_999_999), (month, 999_999_999_999), (money, 99_999_999_999_999))
    assert await granted(store, asked)
    assert [one.remaining for one in await store.take(claim((minute, 1), (month, 1), (money, 1)))] == [0, 0, 0]

    assert await store.end(asked, (1, 1, 1))

    left = await store.take(claim((minute, 0), (month, 0), (money, 0)))
    assert [one.remaining for one in left] == [999_999_998, 999_999_999_998, 99_999_999_999_998]


async def test_a_claim_that_ran_into_forgetting_stays_spent(store: QuotaStore, clock: HandClock) -> None:
    """Where no process was there to end a lost claim while it could be found, all that it reserved stays spent."""
    day = tokens(1_000)
    assert await granted(store, claim((day, 400)))
    clock.now_ms += RECORD_MS + HOLD_MS

    assert (await store.take(claim((day, 0))))[0].remaining == 600
