"""Cancels tasks for sure.

A cancel is not always the end of a task that talks to Redis: redis-py 8.1 may take one that comes while it connects for
a connection that failed, and the task goes on.
"""

import asyncio
from collections.abc import Set
from typing import Any, Final

# Time that a task gets to end once it was cancelled, before it is cancelled again.
CANCEL_AGAIN_S: Final = 0.2


async def cancel_all(tasks: Set[asyncio.Task[Any]]) -> None:
    """Cancels tasks, again and again, until all have ended; those that they start and add meanwhile included."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
