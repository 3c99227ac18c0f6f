"""Whether the thread of a model gets on: what tells one that has much to do from one that hangs within a step.

Who waits while steps end waits for others, and the model is well. Who waits while no step ends waits for nothing: a
driver that hangs, memory on a disk that has gone. The thread notes its steps, and the event loop looks; nothing waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# Steps take milliseconds. Where a large model reads a prompt on a small machine they may take seconds, and who waits
# then is to wait; but no answer may pause for longer than 30 s by default.
STUCK_S = 20.0
# Where such steps are usual, so many times the longest of late, which is forgotten within some thousand steps.
MARGIN, FORGETTING = 4.0, 0.999


class StepWatch:
    """Times the steps of one thread; it is read by others.

    Args:
        stuck_s: No step that lasts less is said to hang.
        clock: Monotonic, in seconds.
    """

    def __init__(self, stuck_s: float = STUCK_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._stuck_s, self._clock = stuck_s, clock
        self._began: float | None = None
        self._longest_s = 0.0

    @property
    def left_s(self) -> float:
        """For how long the step in hand, or one that begins now, may yet last; negative for one that hangs."""
        began = self._began  # the thread may end the step meanwhile
        return self._allowed_s - (0.0 if began is None else self._clock() - began)

    @property
    def is_stuck(self) -> bool:
        """Whether the step in hand hangs."""
        return self.left_s <= 0

    def begin(self) -> None:
        """Notes that a step begins."""
        self._began = self._clock()

    def end(self) -> None:
        """Notes that the step has ended, whatever became of it."""
        assert self._began is not None
        # One that hung for an hour and came back does not make an hour usual.
        seconds = min(self._clock() - self._began, self._allowed_s)
        self._began = None
        self._longest_s = max(seconds, FORGETTING * self._longest_s)

    @property
    def _allowed_s(self) -> float:
        return max(self._stuck_s, MARGIN * self._longest_s)
