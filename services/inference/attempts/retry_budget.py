"""The retry budget of a target: repeated tries are at most a share of its recent calls.

Without it every layer that retries multiplies the load of a target that is down; with it a dead target sees hardly
more than the calls themselves. It counts, and never waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from services.inference.attempts.sliding_sum import SlidingSum
from services.inference.routing.rules import RetryRule

WINDOW_S = 10.0  # what "recent" is; the rule's `budget_count_min` is per this


class RetryBudget:
    """Counts first tries and gives leave for repeated ones, under a rule that may be replaced at any time."""

    __slots__ = ("_calls", "_clock", "_retries", "rule")

    def __init__(self, rule: RetryRule, clock: Callable[[], float] = time.monotonic) -> None:
        self.rule, self._clock = rule, clock
        self._calls, self._retries = SlidingSum(WINDOW_S), SlidingSum(WINDOW_S)

    def deposit(self) -> None:
        """Counts the first try of a call."""
        self._calls.add(self._clock())

    def withdraw(self) -> bool:
        """Takes leave for one repeated try; false, and nothing is taken, where the budget is used up."""
        now = self._clock()
        allowance = self.rule.budget_count_min + self.rule.budget_share * self._calls.total(now)
        if self._retries.total(now) + 1 > allowance:
            return False
        self._retries.add(now)
        return True
