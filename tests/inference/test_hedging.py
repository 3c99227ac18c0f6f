"""Hedging: what it may cost, and who wins."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Unavailable
from services.inference.attempts.hedging import CALLS_MIN, HedgeBudget, Race
from services.inference.generation import Delta
from services.inference.routing.rules import HedgeRule
from tests.inference.parts import FakeEngine, prompt, saying

DOWN = Unavailable("DOWN", "down")


class Clock:
    """A clock that stands until it is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def race(*engines: FakeEngine) -> Race:
    """A race of these engines' answers."""
    first, *others = (engine.generate(prompt(), None) for engine in engines)
    running = Race(first)
    for other in others:
        running.add(other)
    return running


def never() -> bool:
    return False


def test_hedges_are_a_share_of_calls() -> None:
    """No more than the share of a window's calls, and rare traffic counts as some."""
    clock, rule = Clock(), HedgeRule(enabled=True, share_max=0.05, window_s=60)
    budget = HedgeBudget(clock)
    budget.called(rule)
    assert budget.take(rule, None), f"one of {CALLS_MIN} is the share of rare traffic"
    assert not budget.take(rule, None)

    for _ in range(99):
        budget.called(rule)
    assert [budget.take(rule, None) for _ in range(6)] == [True] * 4 + [False] * 2

    clock.now = 61
    assert budget.take(rule, None), "the window has moved on"


def test_hedges_are_capped_in_money() -> None:
    """What second tries are expected to cost stays below the cap, and an unknown price is no leave."""
    clock, rule = Clock(), HedgeRule(enabled=True, share_max=1, cost_usd_max=0.01, window_s=60)
    budget = HedgeBudget(clock)
    budget.called(rule)

    assert [budget.take(rule, 0.004) for _ in range(3)] == [True, True, False]
    assert not budget.take(rule, None)
    clock.now = 61
    assert budget.take(rule, 0.004)


async def test_the_first_to_begin_wins_and_the_other_is_stopped() -> None:
    """The loser's work ends before the winner's first words are passed on."""
    slow, quick = FakeEngine(asyncio.Event()), saying("quick")
    async with race(slow, quick) as running:
        assert await running.decide(never) == [Delta(text="quick")]
        assert slow.closed
        rest = [event async for batch in running.winner for event in batch]

    assert len(rest) == 2
    assert quick.closed


async def test_a_failure_is_waited_past() -> None:
    """One that fails at once does not win: the other may still answer."""
    gate = asyncio.Event()
    failing, late = FakeEngine(DOWN), FakeEngine(gate, [Delta(text="late")])
    async with race(failing, late) as running:
        assert await running.has_begun(60)
        asyncio.get_running_loop().call_soon(gate.set)
        assert await running.decide(never) == [Delta(text="late")]


async def test_the_last_failure_is_the_races() -> None:
    """When all have failed, so has the race."""
    async with race(FakeEngine(DOWN), FakeEngine(DOWN)) as running:
        with pytest.raises(Unavailable):
            await running.decide(never)


async def test_a_hopeless_failure_ends_it() -> None:
    """What is wrong everywhere is not waited past."""
    silent = FakeEngine(asyncio.Event())
    async with race(FakeEngine(DOWN), silent) as running:
        with pytest.raises(Unavailable):
            await running.decide(lambda: True)

    assert silent.closed


async def test_leaving_stops_everyone() -> None:
    """A caller who leaves before anybody has begun leaves nobody at work."""
    one, two = FakeEngine(asyncio.Event()), FakeEngine(asyncio.Event())

    async def wait() -> None:
        async with race(one, two) as running:
            await running.decide(never)

    work = asyncio.create_task(wait())
    await one.waiting.wait()
    await two.waiting.wait()
    work.cancel()
    await asyncio.wait({work})

    assert one.closed
    assert two.closed


async def test_nobody_begins_within_a_moment() -> None:
    """The wait before a hedge ends in time and says so."""
    async with race(FakeEngine(asyncio.Event())) as running:
        assert not await running.has_begun(0.001)
