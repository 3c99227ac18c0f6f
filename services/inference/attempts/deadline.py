"""The time that one call has: to its first token, between tokens and to its end, shared by all of its attempts.

Everything is an instant or a span of one monotonic clock, in seconds. It only reckons; whoever waits, enforces.
"""

from __future__ import annotations

from collections.abc import Callable

from services.inference.request import Request
from services.inference.routing.rules import DeadlineRule

NEVER = float("inf")
# A silence shorter than this is nobody's fault, whatever deadline it ran into: callers may be in any hurry.
SILENCE_S_MIN = 0.5
SILENCE_S_UNKNOWN = 0.9  # of a target whose usual time is not known; a caller who gives it a second gave it a chance
MARGIN_SHARE, MARGIN_S_MAX = 0.05, 0.1  # of a call's time, left for the way back, or for a degraded answer


class DeadlineBudget:
    """The deadlines of one call: the route's, cut by the caller's wishes and by the call's own deadline."""

    def __init__(self, rule: DeadlineRule, request: Request, clock: Callable[[], float]) -> None:
        self._rule, self._clock = rule, clock
        self._ttft_s = min(rule.ttft_s, request.ttft_max_s or NEVER)
        self.inter_token_s = min(rule.inter_token_s, request.inter_token_max_s or NEVER)
        self.total_at = min(clock() + rule.total_s, self._own_end(request.deadline))
        self.restart()

    def _own_end(self, deadline: float | None) -> float:
        """When the call must end, so that what became of it still reaches the caller before its deadline."""
        if deadline is None:
            return NEVER
        left_s = max(0.0, deadline - self._clock())
        return deadline - min(left_s * MARGIN_SHARE, MARGIN_S_MAX)

    def restart(self) -> None:
        """Gives the whole time to the first token again: for an answer that had begun and of which nothing has left."""
        self.first_token_at = min(self._clock() + self._ttft_s, self.total_at)

    @property
    def is_over(self) -> bool:
        """Whether no attempt could begin any more."""
        return self._clock() >= self.first_token_at

    def first_token_until(self, another_waits: bool) -> float:
        """The instant by which an attempt that begins now must have answered.

        One behind which another target waits may use half of what is left, so that the other has a chance too.
        """
        if not another_waits:
            return self.first_token_at
        now = self._clock()
        return now + (self.first_token_at - now) / 2

    def next_token_until(self) -> float:
        """The instant by which the delta after one that is just here must come."""
        return min(self._clock() + self.inter_token_s, self.total_at)

    def is_silence_long(self, silent_s: float, usual_ttft_s: float | None, between_tokens: bool) -> bool:
        """Whether a silence says something about the target, rather than about a caller in a hurry.

        Args:
            silent_s: How long the target has said nothing.
            usual_ttft_s: 95th percentile of its recent times to the first token; None where it is not known.
            between_tokens: Whether it had begun.
        """
        patience_s = SILENCE_S_UNKNOWN if usual_ttft_s is None else max(SILENCE_S_MIN, 2 * usual_ttft_s)
        limit_s = self._rule.inter_token_s if between_tokens else self._rule.ttft_s
        return silent_s >= min(limit_s, patience_s) * 0.99  # timers may fire a little early
