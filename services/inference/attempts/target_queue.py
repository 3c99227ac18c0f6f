"""The queue of a target: how many calls it serves at once, who waits for a place, and who is told to come back.

A call that would wait too long is refused at once instead of after the wait: under overload that is the difference
between slow answers for some and no answer in time for anybody. Higher priorities go first, and within one priority
the eldest; where the queue is full the lowest priority goes out, newest first. It never asks the target anything.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter

from kit.errors import ResourceExhausted
from services.inference.routing.rules import QueueRule

HELD_WEIGHT = 0.1  # of the newest call in the moving average of how long places are held
RETRY_AFTER_MS_MIN = 100
RETRY_AFTER_MS_UNKNOWN = 1_000  # until the first call has ended; one of a hundred tokens takes about a second

_rank_of = attrgetter("rank")


class TargetQueue:
    """Places at one target and the line before them.

    Attributes:
        rule: What it goes by; `follow` replaces it.
        running_count: Calls that have a place.
    """

    def __init__(self, rule: QueueRule, clock: Callable[[], float] = time.monotonic) -> None:
        self.running_count = 0
        self.rule, self._clock = rule, clock
        self._waiters: list[_Waiter] = []  # the next one first
        self._arrival_count = 0
        self._held_s = 0.0  # how long places are held, a moving average; 0 until it is known

    @property
    def waiting_count(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiters)

    async def enter(self, priority: int, until: float) -> None:
        """Takes a place, at once where one is free; `leave` must follow unless this raises.

        Args:
            priority: Higher goes first.
            until: Instant of the clock after which a place is of no use; waits end at the rule's bound as well.
        Raises:
            ResourceExhausted: There is no place in time, or a higher priority took the one in the line (TARGET_FULL).
        """
        if self.running_count < self.rule.running_count_max:
            self.running_count += 1
        else:
            await self._wait(priority, min(until - self._clock(), self.rule.wait_s_max))

    def leave(self, held_s: float) -> None:
        """Gives a place back, which was held for so long, to the next in the line."""
        self._held_s = self._held_s + HELD_WEIGHT * (held_s - self._held_s) if self._held_s else held_s
        self.running_count -= 1
        if self._waiters:
            self._admit()

    def follow(self, rule: QueueRule) -> None:
        """Goes on under another rule: nobody loses a place that he has, in the line the last ones may."""
        self.rule = rule
        self._admit()
        while len(self._waiters) > rule.queue_count_max:
            self._refuse(self._waiters[-1])

    async def _wait(self, priority: int, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._arrival_count += 1
        waiter = _Waiter((-priority, self._arrival_count), loop.create_future())
        ahead_count = bisect_left(self._waiters, waiter.rank, key=_rank_of)
        if wait_s <= 0 or self._expected_wait_s(ahead_count) > wait_s or not self._has_room(priority):
            raise self._full(ahead_count)
        self._waiters.insert(ahead_count, waiter)
        timer = loop.call_later(wait_s, self._refuse, waiter)
        try:
            refusal = await waiter.answer
        except asyncio.CancelledError:
            self._forget(waiter)
            raise
        finally:
            timer.cancel()
        if refusal:
            raise refusal

    def _admit(self) -> None:
        """Gives free places to the next in the line. A place has its new owner at once, so nobody can jump in."""
        while self._waiters and self.running_count < self.rule.running_count_max:
            waiter = self._waiters.pop(0)
            if not waiter.answer.done():  # one that is cancelled just now does not need it
                waiter.answer.set_result(None)
                self.running_count += 1

    def _forget(self, waiter: _Waiter) -> None:
        """Takes a cancelled one out of the line, or passes on the place that it was given in the same moment."""
        if waiter.answer.cancelled():
            self._remove(waiter)
        elif waiter.answer.result() is None:
            self.running_count -= 1
            self._admit()

    def _has_room(self, priority: int) -> bool:
        """Whether one more may stand in the line; the last one goes for a higher priority."""
        if len(self._waiters) < self.rule.queue_count_max:
            return True
        if not self._waiters or self._waiters[-1].rank[0] <= -priority:
            return False
        self._refuse(self._waiters[-1])
        return True

    def _refuse(self, waiter: _Waiter) -> None:
        self._remove(waiter)
        if not waiter.answer.done():
            waiter.answer.set_result(self._full(len(self._waiters)))

    def _remove(self, waiter: _Waiter) -> None:
        index = bisect_left(self._waiters, waiter.rank, key=_rank_of)
        if index < len(self._waiters) and self._waiters[index] is waiter:
            del self._waiters[index]

    def _expected_wait_s(self, ahead_count: int) -> float:
        """How long one waits with so many ahead: a place comes free every `held / places`, the first in half of it."""
        return (ahead_count + 0.5) * self._held_s / self.rule.running_count_max

    def _full(self, ahead_count: int) -> ResourceExhausted:
        wait_ms = math.ceil(self._expected_wait_s(ahead_count) * 1000)
        retry_after_ms = max(wait_ms, RETRY_AFTER_MS_MIN if self._held_s else RETRY_AFTER_MS_UNKNOWN)
        return ResourceExhausted(
            "TARGET_FULL",
            f"the target serves {self.running_count} calls and {self.waiting_count} wait, too many to have an answer "
            f"in time; retry after {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )


class _Waiter:
    """A call in the line; its answer is None for a place, or why it gets none."""

    __slots__ = ("answer", "rank")

    def __init__(self, rank: tuple[int, int], answer: asyncio.Future[ResourceExhausted | None]) -> None:
        self.rank, self.answer = rank, answer
