"""A sum over the last seconds, in constant memory: what breakers and budgets count recent calls with.

The window moves in slots, so that the sum is over the last nine to ten tenths of it. It reads no clock of its own.
"""

from __future__ import annotations

SLOT_COUNT = 10


class SlidingSum:
    """Adds amounts up and forgets each after `window_s`."""

    __slots__ = ("_slot", "_slot_s", "_slots", "_sum", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._slot_s = window_s / SLOT_COUNT
        self._slots = [0.0] * SLOT_COUNT
        self._slot = 0  # number of the newest slot since the clock's beginning
        self._sum = 0.0

    def add(self, now: float, amount: float = 1.0) -> None:
        """Adds an amount at an instant of a clock that never goes back, in seconds."""
        self._advance(now)
        self._slots[self._slot % SLOT_COUNT] += amount
        self._sum += amount

    def total(self, now: float) -> float:
        """The sum of what was added in the window that ends now."""
        self._advance(now)
        return self._sum

    def clear(self) -> None:
        """Forgets everything."""
        self._slots = [0.0] * SLOT_COUNT
        self._sum = 0.0

    def _advance(self, now: float) -> None:
        slot = int(now / self._slot_s)
        if slot == self._slot:
            return
        for stale in range(max(self._slot + 1, slot - SLOT_COUNT + 1), slot + 1):
            self._slots[stale % SLOT_COUNT] = 0.0
        self._slot = slot
        self._sum = sum(self._slots)  # added up anew: differences of floats would drift
