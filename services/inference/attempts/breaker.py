"""The breaker of a target: one that keeps failing is left alone for a while, then asked by one call only.

It saves callers the wait and the target the load. It counts what it is told, on an injected clock; what a failure is
and whom else to ask are others' decisions.

    CLOSED     every call may pass; a run or a share of failures opens it
    OPEN       no call may pass until `open_s` is over
    HALF_OPEN  one call may pass, the probe: its first delta closes the breaker, its failure opens it again

After a probe that has only begun, the breaker is on probation: until some call has succeeded, one failure opens it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

from services.inference.attempts.sliding_sum import SlidingSum
from services.inference.routing.rules import BreakerRule

# What callers are told while a probe is out: its answer is not known yet, and is rarely longer in coming.
PROBE_WAIT_S = 1.0


class BreakerState(IntEnum):
    """Whom a breaker lets pass."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3


class Breaker:
    """Lets calls pass to one target, or not.

    Attributes:
        rule: What it goes by; `follow` replaces it.
        opened_count: How often it has opened so far.
    """

    __slots__ = (
        "_calls", "_clock", "_failures", "_failures_in_a_row", "_is_closed", "_is_on_probation", "_is_probed",
        "_open_until", "opened_count", "rule",
    )  # fmt: skip

    def __init__(self, rule: BreakerRule, clock: Callable[[], float] = time.monotonic) -> None:
        self.rule, self._clock = rule, clock
        self._calls, self._failures = SlidingSum(rule.window_s), SlidingSum(rule.window_s)
        self._failures_in_a_row = 0
        self._is_closed = True
        self._is_on_probation = False
        self._is_probed = False  # the probe of a half-open breaker is out
        self._open_until = 0.0
        self.opened_count = 0

    @property
    def state(self) -> BreakerState:
        """Where it stands now."""
        if self._is_closed:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    def admits(self) -> bool:
        """Whether a call may pass now; takes nothing."""
        return self._is_closed or (not self._is_probed and self._clock() >= self._open_until)

    def retry_after_s(self) -> float:
        """Seconds until a call may pass, as far as that is known; 0 when one may pass now."""
        if self.admits():
            return 0.0
        return PROBE_WAIT_S if self._is_probed else self._open_until - self._clock()

    def enter(self) -> Permit | None:
        """Lets one call pass, as the probe when half-open; None when it may not."""
        if self._is_closed:
            return Permit(self, False)
        if not self.admits():
            return None
        self._is_probed = True
        return Permit(self, True)

    def follow(self, rule: BreakerRule) -> None:
        """Goes on under another rule: the state stays, and so does the count unless its window changes."""
        self.rule = rule
        if rule.window_s != self._calls.window_s:
            self._calls, self._failures = SlidingSum(rule.window_s), SlidingSum(rule.window_s)

    def _close(self, on_probation: bool) -> None:
        self._is_closed, self._is_probed, self._is_on_probation = True, False, on_probation

    def _open(self, now: float) -> None:
        self._is_closed = self._is_probed = self._is_on_probation = False
        self._open_until = now + self.rule.open_s
        self.opened_count += 1
        self._failures_in_a_row = 0
        self._calls.clear()
        self._failures.clear()

    def _succeeded(self) -> None:
        self._calls.add(self._clock())
        self._failures_in_a_row = 0
        self._is_on_probation = False

    def _failed(self) -> None:
        now = self._clock()
        self._failures_in_a_row += 1
        self._calls.add(now)
        self._failures.add(now)
        if self._is_on_probation or self._failures_in_a_row >= self.rule.failures_in_a_row or self._fails_often(now):
            self._open(now)

    def _fails_often(self, now: float) -> bool:
        call_count = self._calls.total(now)
        if call_count < self.rule.call_count_min:
            return False
        return self._failures.total(now) >= self.rule.failure_share * call_count


class Permit:
    """Leave for one call. It is ended once, by `succeeded`, `failed` or `forgotten`; what follows has no effect.

    A permit from before the breaker last opened has no effect either: it tells of the past.

    Attributes:
        is_probe: The call is the one that a half-open breaker lets pass, and has not begun.
    """

    __slots__ = ("_breaker", "_opened_count", "is_probe")

    def __init__(self, breaker: Breaker, is_probe: bool) -> None:
        self._breaker: Breaker | None = breaker
        self.is_probe = is_probe
        self._opened_count = breaker.opened_count

    def began(self) -> None:
        """The first delta has come: a probe closes the breaker on probation."""
        if self._breaker and self.is_probe:
            self.is_probe = False
            self._breaker._close(on_probation=True)

    def succeeded(self) -> None:
        """The call was answered in full."""
        if breaker := self._end():
            if self.is_probe:
                breaker._close(on_probation=False)
            breaker._succeeded()

    def failed(self) -> None:
        """The target failed the call."""
        if breaker := self._end():
            if self.is_probe:
                breaker._open(breaker._clock())
            else:
                breaker._failed()

    def forgotten(self) -> None:
        """The call says nothing about the target: it was cancelled, or refused for what it asked."""
        if (breaker := self._end()) and self.is_probe:
            breaker._is_probed = False

    def _end(self) -> Breaker | None:
        """The breaker, where this end is the first and is not of the past."""
        breaker, self._breaker = self._breaker, None
        return breaker if breaker and breaker.opened_count == self._opened_count else None
