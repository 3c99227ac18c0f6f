"""A breaker: stops asking what does not answer, and finds out by itself when it does again.

Once open, it costs a caller nothing: trials are made by a task of its own, never by a request.
"""

import asyncio
from collections.abc import Awaitable, Callable

from kit.cancelling import cancel_all
from kit.errors import Unavailable


class Breaker:
    """Opens after `failures_max` failures in a row; closes when `probe` succeeds.

    Args:
        probe: Tries the thing once, within its own deadline; raises Unavailable while it does not answer.
        failures_max: Failures in a row that open the breaker.
        interval_s: Time between probes.
        on_change: Told True when the breaker closes and False when it opens.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        *,
        failures_max: int,
        interval_s: float,
        on_change: Callable[[bool], None] = lambda closed: None,
    ) -> None:
        self._probe, self._on_change = probe, on_change
        self._failures_max, self._interval_s = failures_max, interval_s
        self._failure_count = 0
        self._probing: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether callers may ask."""
        return self._probing is None

    def succeed(self) -> None:
        """Notes an answer."""
        self._failure_count = 0

    def fail(self) -> None:
        """Notes a failure or a timeout."""
        self._failure_count += 1
        if self._failure_count >= self._failures_max:
            self.trip()

    def trip(self) -> None:
        """Opens the breaker."""
        if self._probing is None:
            self._probing = asyncio.create_task(self._recover())
            self._on_change(False)

    async def close(self) -> None:
        """Stops probing."""
        if self._probing is not None:
            await cancel_all({self._probing})

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._probe()
            except Unavailable:
                continue
            self._failure_count, self._probing = 0, None
            self._on_change(True)
            return
