"""How long text of a stream has waited, and a timer for when that is as long as the policy allows.

A stream holds what may be the beginning of a finding until more arrives. If nothing does, what is held is judged as it
stands: an answer whose model has fallen silent in the middle of a word is shown up to there. Nothing is kept per token:
times are noted a few times in a hold, so that text goes a little early rather than late.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable

# Times are noted this often in the longest wait.
_NOTES = 4


class Waiting:
    """When the oldest text that is held arrived."""

    def __init__(self, hold_s: float) -> None:
        self._hold_s = hold_s
        self._notes: deque[tuple[int, float]] = deque()  # where text began to arrive, and when

    def arrived(self, begin: int, now_s: float) -> None:
        """Notes that text from a position on arrived."""
        if not self._notes or now_s - self._notes[-1][1] >= self._hold_s / _NOTES:
            self._notes.append((begin, now_s))

    def released(self, through: int, end: int) -> None:
        """Forgets the times of text that has left; everything before `end` has arrived."""
        if through >= end:
            self._notes.clear()
        while len(self._notes) > 1 and self._notes[1][0] <= through:
            self._notes.popleft()

    @property
    def due_s(self) -> float:
        """When it will have waited as long as it may; infinite while nothing waits."""
        return self._notes[0][1] + self._hold_s if self._notes else math.inf


class HoldTimer:
    """Acts when text is due. One timer a stream, set again only when it has rung.

    Args:
        due_s: When the next text is due; infinite: nothing waits.
        act: Releases it.
        clock: What `due_s` is told by.
    """

    def __init__(
        self, due_s: Callable[[], float], act: Callable[[], Awaitable[None]], clock: Callable[[], float]
    ) -> None:
        self._due_s, self._act, self._clock = due_s, act, clock
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Future[None] | None = None

    def look(self) -> None:
        """Sets the timer, if something waits and it is not set."""
        if self._timer is None and self._task is None and (due_s := self._due_s()) < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(due_s - self._clock(), 0.0), self._ring)

    def cancel(self) -> None:
        """Stops it; harmless at any time."""
        if self._timer:
            self._timer.cancel()
        if self._task:
            self._task.cancel()

    def _ring(self) -> None:
        self._timer = None
        if self._due_s() > self._clock():
            self.look()  # what was held has left, and other text waits
            return
        self._task = asyncio.ensure_future(self._act())
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._task = None
        # A stream that cannot be written to has ended, which its handler learns by itself.
        if not task.cancelled() and task.exception() is None:
            self.look()
