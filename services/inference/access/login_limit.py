"""How often somebody may try to log in: a bound per name and one per address, in the memory of this process.

Both are token buckets. What is remembered is bounded: a flood of names pushes out names, each of which began full, so
it gains nobody a guess at a name that is being guessed at; and its addresses are bounded beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kit.errors import ResourceExhausted
from services.inference.access.lru import Lru

REMEMBERED_COUNT_MAX = 10_000


class LoginLimit:
    """Counts attempts.

    Args:
        name_max: Attempts per minute for one name.
        address_max: Attempts per minute from one address.
        clock: Seconds that never jump.
    """

    def __init__(self, name_max: int, address_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limits = (("name", name_max), ("address", address_max))
        self._buckets: Lru[tuple[str, str], tuple[float, float]] = Lru(REMEMBERED_COUNT_MAX)

    def count(self, name: str, address: str) -> None:
        """Counts an attempt.

        Raises:
            ResourceExhausted: There were too many (LOGIN_LIMITED); this one counts for nothing.
        """
        now = self._clock()
        left = []
        for (kind, limit), subject in zip(self._limits, (name, address), strict=True):
            tokens, since = self._buckets.get((kind, subject)) or (float(limit), now)
            tokens = min(limit, tokens + (now - since) * limit / 60)
            if tokens < 1:
                retry_after_ms = int((1 - tokens) * 60_000 / limit) + 1
                raise ResourceExhausted(
                    "LOGIN_LIMITED", "too many attempts to log in; retry later", retry_after_ms=retry_after_ms
                )
            left.append(((kind, subject), (tokens - 1, now)))
        for key, bucket in left:
            self._buckets.put(key, bucket)
