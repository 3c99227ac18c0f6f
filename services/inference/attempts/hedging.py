"""Hedging: a second target is asked where the first is slow to begin, and the quicker one answers.

Only before the first delta; the loser is cancelled at once. What hedging may cost is capped per window, as a share of
calls and, where the prices are known, in money.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from services.inference.attempts.sliding_sum import SlidingSum
from services.inference.generation import EngineEvent
from services.inference.routing.rules import HedgeRule

Answer = AsyncGenerator[Sequence[EngineEvent], None]
CALLS_MIN = 20  # what a window counts at least, so that rare traffic may hedge once in a while


class HedgeBudget:
    """How many second tries a model may have: over a sliding window, at most a share of its calls."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._calls = self._hedges = self._cost_usd = SlidingSum(0.0)

    def called(self, rule: HedgeRule) -> None:
        """Counts a call."""
        if rule.window_s != self._calls.window_s:
            self._calls, self._hedges, self._cost_usd = (SlidingSum(rule.window_s) for _ in range(3))
        self._calls.add(self._clock())

    def take(self, rule: HedgeRule, cost_usd: float | None) -> bool:
        """Takes leave for one hedge of a call that was counted.

        Args:
            rule: The bounds.
            cost_usd: What it is expected to cost; None, where that is unknown, is no leave if money is bounded.
        """
        now = self._clock()
        if self._hedges.total(now) + 1 > rule.share_max * max(CALLS_MIN, self._calls.total(now)):
            return False
        if rule.cost_usd_max is not None:
            if cost_usd is None or self._cost_usd.total(now) + cost_usd > rule.cost_usd_max:
                return False
            self._cost_usd.add(now, cost_usd)
        self._hedges.add(now)
        return True


class Race:
    """One or two answers that have not begun, of which the quicker to begin wins.

    Leaving the context closes every answer, however the race went.
    """

    def __init__(self, first: Answer) -> None:
        self._running: dict[asyncio.Task[Sequence[EngineEvent]], Answer] = {}
        self._answers: list[Answer] = []
        self.winner = first
        self.add(first)

    def add(self, answer: Answer) -> None:
        """Lets another answer run."""
        self._answers.append(answer)
        self._running[asyncio.create_task(_first_batch(answer))] = answer

    async def has_begun(self, within_s: float) -> bool:
        """Waits a while for an answer to begin, or to fail."""
        done, _ = await asyncio.wait(self._running, timeout=within_s)
        return bool(done)

    async def decide(self, is_hopeless: Callable[[], bool]) -> Sequence[EngineEvent]:
        """Waits for the first answer to begin, stops the others, and returns what it begins with.

        Args:
            is_hopeless: Whether the others need not be waited for, now that one has failed.
        Raises:
            MillraceError: The failure of the last answer, or of a hopeless one.
        """
        while True:
            done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda one: one.exception() is not None):
                self.winner = self._running.pop(task)
                if task.exception() is None or not self._running or is_hopeless():
                    await self._stop()
                    return task.result()

    async def _stop(self) -> None:
        """Stops all that still runs, and waits until it has stopped."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for task in self._running:
            if not task.cancelled():
                task.exception()  # read, so that nobody is told that it was not
        self._running.clear()
        for answer in self._answers:
            if answer is not self.winner:
                await answer.aclose()

    async def __aenter__(self) -> Race:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()
        await self.winner.aclose()


async def _first_batch(answer: Answer) -> Sequence[EngineEvent]:
    return await anext(answer)
