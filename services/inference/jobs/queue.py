"""How workers learn that there is something to do.

The database is where work waits and where it is claimed; a queue only says that some has come. What is said and lost
costs time, never an item: workers look for themselves as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

Work = Callable[[], Awaitable[None]]


class Queue(Protocol):
    """Has work done where it has come."""

    async def announce(self, count: int) -> None:
        """Says that so many items may be claimed; never fails, and never waits for long."""
        ...

    async def run(self, work: Work, concurrency: int) -> None:
        """Calls `work`, which does what there is until nothing is left, when something has come; until cancelled."""
        ...

    async def close(self) -> None:
        """Lets go of what it holds."""
        ...


class LocalQueue:
    """The queue of one process; replicas find each other's work by looking for it."""

    def __init__(self) -> None:
        self._has_come = asyncio.Event()

    async def announce(self, count: int) -> None:
        """Wakes the workers of this process."""
        self._has_come.set()
        self._has_come = asyncio.Event()

    async def run(self, work: Work, concurrency: int) -> None:
        """Works in so many tasks."""
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(work))

    async def _work(self, work: Work) -> None:
        while True:
            has_come = self._has_come  # taken before the look, so that what comes during it is not missed
            await work()
            await has_come.wait()

    async def close(self) -> None:
        """Holds nothing."""
