"""How long a target takes to its first token: a moving average to choose by, and a percentile to hedge by.

Only times of answers that began are told to it; what fails is the breaker's matter.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

NEWEST_WEIGHT = 0.2  # of the newest time in the moving average
KNOWN_S = 60.0  # a target that was slow longer ago may have recovered: nothing is known of it, so that it is tried
SAMPLE_COUNT_MAX = 200
SAMPLE_COUNT_MIN = 20  # fewer say nothing about one in twenty
REFRESH_COUNT = 10  # times between two sortings: 200 floats take as long as a whole call may cost here


class FirstTokenTimes:
    """The recent times to the first token of one target."""

    __slots__ = ("_average_s", "_clock", "_p95_s", "_samples", "_told_at", "_unsorted_count")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[float] = deque(maxlen=SAMPLE_COUNT_MAX)
        self._average_s: float | None = None
        self._told_at = -math.inf
        self._p95_s: float | None = None
        self._unsorted_count = 0

    def record(self, seconds: float) -> None:
        """Takes note of one time."""
        now = self._clock()
        known_s = self._average_s if now - self._told_at < KNOWN_S else None
        self._average_s = seconds if known_s is None else known_s + NEWEST_WEIGHT * (seconds - known_s)
        self._told_at = now
        self._samples.append(seconds)
        self._unsorted_count += 1

    @property
    def ewma_s(self) -> float | None:
        """The moving average in seconds; None where no answer has begun in the last minute."""
        return self._average_s if self._clock() - self._told_at < KNOWN_S else None

    def p95_s(self) -> float | None:
        """What 95 of 100 recent times do not exceed, up to ten calls old; None where fewer than 20 are known."""
        count = len(self._samples)
        if count < SAMPLE_COUNT_MIN:
            return None
        if self._p95_s is None or self._unsorted_count >= REFRESH_COUNT:
            self._p95_s = sorted(self._samples)[math.ceil(0.95 * count) - 1]
            self._unsorted_count = 0
        return self._p95_s
