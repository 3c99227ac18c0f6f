"""What is known of every target: its breaker, budgets, queue, latency, rest and counts, shared by all its calls.

States outlive the models file they came with: after a reload a target that is still named keeps its own, under the
new rules. Names behind a pattern are the callers' to invent, so only the most recent states are kept, and those that
some call still holds. It decides nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakValueDictionary

from services.inference.attempts.breaker import Breaker
from services.inference.attempts.hedging import HedgeBudget
from services.inference.attempts.latency import FirstTokenTimes
from services.inference.attempts.retry_budget import RetryBudget
from services.inference.attempts.target_queue import TargetQueue
from services.inference.routing.catalog import Target
from services.inference.routing.router import RouteTarget
from services.inference.routing.rules import RetryRule, Rules

STATE_COUNT_MAX = 4096
REST_S_MAX = 300.0  # a target may ask for a day, by mistake or not: to look after five minutes costs one call

_Place = tuple[str | None, ...]
_Key = tuple[_Place, str]


class TargetState:
    """What is known of one model at one target.

    Attributes:
        label: What receipts call the target.
        target_model: The model there.
        queue: The target's queue, which its models share.
        rests_until: Instant of the clock until which it asked to be left alone; 0 when it never did.
        running_count: Calls that it serves now.
        call_count: Calls since it is known: hedges and repeated tries included, skipped ones not.
    """

    __slots__ = (
        "__weakref__", "_clock", "breaker", "budget", "call_count", "failure_count", "first_tokens", "hedge_count",
        "hedges", "label", "queue", "rests_until", "retry_count", "running_count", "skipped_count", "target_model",
    )  # fmt: skip

    def __init__(
        self, candidate: RouteTarget, retries: RetryRule, queue: TargetQueue, clock: Callable[[], float]
    ) -> None:
        self.label, self.target_model = candidate.target.label, candidate.target_model
        self.queue = queue
        self._clock = clock
        self.breaker = Breaker(candidate.target.breaker, clock)
        self.budget = RetryBudget(retries, clock)
        self.first_tokens = FirstTokenTimes(clock)
        self.hedges = HedgeBudget(clock)
        self.rests_until = 0.0
        self.running_count = 0
        self.call_count = self.failure_count = self.retry_count = self.hedge_count = self.skipped_count = 0

    def entered(self) -> None:
        """Counts a call that is sent to it; `left` must follow."""
        self.running_count += 1
        self.call_count += 1

    def left(self) -> None:
        """Counts the end of a call."""
        self.running_count -= 1

    def rest(self, seconds: float) -> None:
        """Leaves it alone for so long, five minutes at most, or longer where it has said so already."""
        self.rests_until = max(self.rests_until, self._clock() + min(seconds, REST_S_MAX))

    def retry_after_s(self) -> float:
        """Seconds until it may be asked, by its rest and its breaker; 0 when it may be asked now."""
        return max(self.rests_until - self._clock(), self.breaker.retry_after_s(), 0.0)


class Targets:
    """The states of all targets of a process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, state_count_max: int = STATE_COUNT_MAX) -> None:
        self._clock, self._state_count_max = clock, state_count_max
        self._recent: OrderedDict[_Key, TargetState] = OrderedDict()  # the most recent one last
        # States that a call holds are found here though they are not recent; queues live as long as their states.
        self._states: WeakValueDictionary[_Key, TargetState] = WeakValueDictionary()
        self._queues: WeakValueDictionary[_Place, TargetQueue] = WeakValueDictionary()

    def of(self, candidate: RouteTarget, rules: Rules) -> TargetState:
        """The state of a candidate, from now on under these rules; hold it for as long as the call lasts."""
        target = candidate.target
        key = (_place(target), candidate.target_model)
        state = self._recent.get(key)
        if state is None:
            state = self._keep(key, candidate, rules)
        else:
            self._recent.move_to_end(key)
        state.budget.rule = rules.retries
        if state.breaker.rule is not target.breaker:
            state.breaker.follow(target.breaker)
        if state.queue.rule is not target.queue:
            state.queue.follow(target.queue)
        return state

    def queue_of(self, target: Target) -> TargetQueue:
        """The queue of a target; hold it, or a state of the target, for as long as it is needed."""
        place = _place(target)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = TargetQueue(target.queue, self._clock)
        return queue

    def snapshot(self) -> list[TargetState]:
        """All that are known, by label and model; also for other threads."""
        known: list[TargetState] = []
        for _ in range(3):
            with suppress(RuntimeError):  # one came while they were copied
                known = list(self._states.values())
                break
        return sorted(known, key=lambda state: (state.label, state.target_model))

    def _keep(self, key: _Key, candidate: RouteTarget, rules: Rules) -> TargetState:
        state = self._states.get(key)
        if state is None:
            state = TargetState(candidate, rules.retries, self.queue_of(candidate.target), self._clock)
            self._states[key] = state
        self._recent[key] = state
        if len(self._recent) > self._state_count_max:
            self._recent.popitem(last=False)
        return state


def _place(target: Target) -> _Place:
    """What makes two targets the same one, whatever rules they stand under; a mended upstream is another one."""
    return (*target.engine_key, target.name, target.model)
