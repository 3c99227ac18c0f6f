"""Figures of many measurements, told in the same way by every bench."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

LAG_GAP_S = 0.02


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least of the values that `share` of them do not exceed; None where there are none.

    Source: nearest rank, type 1 of Hyndman and Fan 1996.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def rounded(value: float | None) -> float | None:
    """To two digits, for tables."""
    return None if value is None else round(value, 2)


class Lag:
    """How late the bench's own event loop was at worst: what it cannot have measured more exactly than that."""

    def __init__(self) -> None:
        self.max_s = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Watches during a block."""
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            due = time.monotonic() + LAG_GAP_S
            await asyncio.sleep(LAG_GAP_S)
            self.max_s = max(self.max_s, time.monotonic() - due)
