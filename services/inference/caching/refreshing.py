"""Refreshing: answers that are made anew shortly before they expire, while their callers get the kept ones.

Each is a request of its own, admitted, routed and settled like any other; only nobody waits for it. Where too many are
under way one is left out: its answer then expires, and the next caller makes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import msgspec

from kit import identity
from kit.errors import MillraceError
from services.inference.events import Event
from services.inference.request import Request

log = logging.getLogger(__name__)

RUNNING_COUNT_MAX = 16  # a few percent of what a process runs; answers are refreshed over minutes, not at once
PRIORITY = -100  # whoever waits for an answer goes first

Run = Callable[[Request], AsyncGenerator[Sequence[Event], None]]


class Refreshing:
    """Makes answers anew in the background."""

    def __init__(self, running_count_max: int = RUNNING_COUNT_MAX) -> None:
        self._running_count_max = running_count_max
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, request: Request, lease_id: str, run: Run) -> bool:
        """Has the answer to a request made anew, under a lease, and kept in place of the one there is.

        Returns:
            False where too many are under way: the lease is the caller's to give back.
        """
        if len(self._tasks) >= self._running_count_max:
            return False
        again = msgspec.structs.replace(
            request,
            request_id=f"{request.request_id[:119]}.refresh",  # 128 characters at most
            deadline=None,
            priority=PRIORITY,
            prompt=msgspec.structs.replace(request.prompt, streamed=False),
            cache=msgspec.structs.replace(request.cache, mode="refresh", lease_id=lease_id),
        )
        task = asyncio.create_task(_run(again, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Ends what is under way; answers that are not refreshed expire."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _run(request: Request, run: Run) -> None:
    try:
        with identity.outlive():
            async with aclosing(run(request)) as batches:
                async for _ in batches:
                    pass
    except MillraceError as error:
        log.info("an answer could not be refreshed", extra={"reason": error.reason})
    except Exception:
        log.exception("an answer could not be refreshed")
