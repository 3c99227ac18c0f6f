"""Whatever is taken, ended, renewed and lost in whatever order: the stores agree with a model on one page.

The model counts in fractions and keeps every claim; it has no keys, no expiry and no shortcuts.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from services.inference.quota.limit import Claim, Unit
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import HOLD_MS, RECORD_MS, QuotaStore
from services.inference.quota.windows import DAY_MS
from tests.fakes.redis_server import RedisServer
from tests.inference.quota.conftest import redis_lane
from tests.inference.quota.parts import MINUTE_MS, NOON_MS, HandClock, at_once, claim, limit, tokens

MINUTE, DAY, RUNNING = 0, 1, 2


@dataclass
class Open:
    """A claim that is not ended, in the model."""

    claim: Claim
    day: int
    reported: int
    overdue_ms: int


class Stores(RuleBasedStateMachine):
    """Claims of tokens by the minute and by the day, and of a slot, against one subject's three limits."""

    store: QuotaStore

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = HandClock(NOON_MS)
        self.flowing, self.at_ms = Fraction(0), NOON_MS
        self.spent: dict[int, int] = {}
        self.open: dict[str, Open] = {}
        self.ended: list[Claim] = []
        self.slots: dict[str, int] = {}

    def run(self, step: Any) -> Any:
        return self.loop.run_until_complete(step)

    @initialize(
        rate=st.integers(1, 5_000), burst=st.integers(1, 200), day=st.integers(1, 1_000), slots=st.integers(1, 4)
    )
    def begin(self, rate: int, burst: int, day: int, slots: int) -> None:
        self.limits = (limit(rate, unit=Unit.TOKENS, burst=burst), tokens(day), at_once(slots))

    @property
    def today(self) -> int:
        return self.clock.now_ms // DAY_MS

    def flow(self) -> Fraction:
        """What is used of the minute now."""
        back = Fraction(self.clock.now_ms - self.at_ms) * self.limits[MINUTE].maximum / MINUTE_MS
        self.flowing, self.at_ms = max(Fraction(0), self.flowing - back), self.clock.now_ms
        return self.flowing

    def running(self) -> int:
        return sum(until > self.clock.now_ms for until in self.slots.values())

    def charge(self, one: Open, used: int) -> None:
        """Puts what was used in the place of what was reserved."""
        change = used - one.claim.amounts[MINUTE]
        self.flowing = max(Fraction(0), self.flow() + change)
        if one.day == self.today:  # nobody looks at a day that is over
            self.spent[one.day] = max(0, self.spent.get(one.day, 0) + change)
        self.slots.pop(one.claim.id, None)
        del self.open[one.claim.id]
        self.ended.append(one.claim)

    @rule(amount=st.integers(0, 300))
    def take(self, amount: int) -> None:
        asked = claim((self.limits[MINUTE], amount), (self.limits[DAY], amount), (self.limits[RUNNING], 1))
        standings = self.run(self.store.take(asked))
        minute, day, slots = self.limits
        used, spent, running = self.flow(), self.spent.get(self.today, 0), self.running()
        fits = [used + amount <= minute.burst, spent + amount <= day.maximum, running < slots.maximum]
        assert [one.fits for one in standings] == fits
        if all(fits):
            self.flowing = used = used + amount
            self.spent[self.today] = spent = spent + amount
            self.slots[asked.id] = self.clock.now_ms + HOLD_MS
            self.open[asked.id] = Open(asked, self.today, amount, self.clock.now_ms + HOLD_MS)
            running += 1
        left = [math.floor(minute.burst - used), day.maximum - spent, slots.maximum - running]
        assert [one.remaining for one in standings] == [max(0, amount) for amount in left]

    @rule(data=st.data(), used=st.integers(0, 600))
    def end(self, data: st.DataObject, used: int) -> None:
        if not self.open:
            return
        one = data.draw(st.sampled_from(list(self.open.values())))
        if self.clock.now_ms < one.overdue_ms - HOLD_MS + RECORD_MS:
            assert self.run(self.store.end(one.claim, (used, used, 0)))
            self.charge(one, used)

    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        if self.ended:
            one = data.draw(st.sampled_from(self.ended))
            assert not self.run(self.store.end(one, (0, 0, 0)))
            assert not self.run(self.store.renew(one, (0, 0, 0)))

    @rule(data=st.data(), used=st.integers(0, 600))
    def renew(self, data: st.DataObject, used: int) -> None:
        if not self.open:
            return
        one = data.draw(st.sampled_from(list(self.open.values())))
        if self.clock.now_ms < one.overdue_ms:
            assert self.run(self.store.renew(one.claim, (used, used, 1)))
            one.reported, one.overdue_ms = used, self.clock.now_ms + HOLD_MS
            self.slots[one.claim.id] = one.overdue_ms

    @rule(ms=st.one_of(st.integers(0, 2 * MINUTE_MS), st.just(DAY_MS // 2)))
    def wait(self, ms: int) -> None:
        # Redis forgets a record by its own clock, which nobody turns: who waits that long looks for the lost before.
        self.clock.now_ms += min(ms, HOLD_MS)
        self.tend()
        self.clock.now_ms += max(0, ms - HOLD_MS) if not self.open else 0

    @rule()
    def tend(self) -> None:
        self.run(self.store.tend(("acme",)))
        for one in [one for one in self.open.values() if one.overdue_ms <= self.clock.now_ms]:
            self.charge(one, one.reported)

    @invariant()
    def nothing_is_overspent(self) -> None:
        """What was reserved and not ended never exceeds a limit by itself."""
        if hasattr(self, "limits"):
            reserved = sum(one.claim.amounts[DAY] for one in self.open.values() if one.day == self.today)
            assert reserved <= self.limits[DAY].maximum

    def teardown(self) -> None:
        self.loop.close()


class MemoryStores(Stores):
    """In this process."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore(self.clock)


def test_memory_agrees_with_the_model() -> None:
    """The store of one process, over hundreds of histories."""
    run_state_machine_as_test(MemoryStores, settings=settings(max_examples=100, stateful_step_count=40, deadline=None))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_redis_agrees_with_the_model(shared_redis: RedisServer) -> None:
    """The scripts, on a real Redis."""

    class RedisStores(Stores):
        def __init__(self) -> None:
            super().__init__()
            shared_redis.command("flushall")
            self.lane = redis_lane(shared_redis.url)
            self.store = RedisStore(self.lane, self.clock)

        def teardown(self) -> None:
            self.run(self.lane.close())
            super().teardown()

    quick = settings(
        max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(RedisStores, settings=quick)
