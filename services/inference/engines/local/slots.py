"""Places at a local embedder: so many calls work at once, so many wait their turn, and none waits for ever.

It belongs to one event loop and holds no thread. First come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from kit.errors import ResourceExhausted

# Many calls of a small model take less, so a place is likely to be free then.
RETRY_AFTER_MS = 1_000


class Slots:
    """Hands out the places of one model."""

    def __init__(self, active_max: int, queue_max: int, wait_s_max: float) -> None:
        self._active_max, self._queue_max, self._wait_s_max = active_max, queue_max, wait_s_max
        self._active_count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def active_count(self) -> int:
        """Places that are taken."""
        return self._active_count

    @property
    def waiting_count(self) -> int:
        """Calls that wait for a place."""
        return len(self._waiting)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Holds a place while the block runs.

        Raises:
            ResourceExhausted: QUEUE_FULL at once, or QUEUE_TIMEOUT after the longest wait.
        """
        await self._enter()
        try:
            yield
        finally:
            self._leave()

    async def _enter(self) -> None:
        if self._active_count < self._active_max:
            self._active_count += 1
            return
        if len(self._waiting) >= self._queue_max:
            raise _exhausted("QUEUE_FULL", "the model's queue is full; retry later")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(self._wait_s_max):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave()  # the place came in the same tick as the end of the wait: pass it on
            else:
                with suppress(ValueError):  # `_leave` may have passed over it already
                    self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _exhausted("QUEUE_TIMEOUT", "no place at the model became free in time; retry later") from error
            raise

    def _leave(self) -> None:
        """Passes the place to who waits longest, else frees it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._active_count -= 1


def _exhausted(reason: str, message: str) -> ResourceExhausted:
    return ResourceExhausted(reason, message, retry_after_ms=RETRY_AFTER_MS)
