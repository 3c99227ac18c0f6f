"""What happens to the entries that a semantic index holds: what was stored and what was removed.

An index lives in memory and follows a store by this: it starts behind, reads all outlines, and then keeps up. Whoever
cannot keep up is told that it is behind again; nothing ever waits for it. An index may still be out of date by the time
that a change takes, so an entry that it names is always read from the store before it is served.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Final

from services.cache.entry import Entry
from services.cache.key import Address

# Changes that wait for one follower. Beyond that it reads all outlines again, which is quicker by then.
PENDING_MAX: Final = 10_000

# An entry, and which of those stored at its address: a later one is another.
Version = tuple[Address, str]


@dataclass(frozen=True, slots=True)
class Behind:
    """Changes were missed, or none was seen yet: all outlines are to be read, and what is not among them is gone."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry with an embedding was stored, in place of any at its address; it is told of without its chunks."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Removed:
    """Entries were deleted, evicted, or replaced by one without an embedding. Those that expire are not told of."""

    versions: tuple[Version, ...]


Change = Behind | Stored | Removed


class ChangeFeed:
    """Hands changes to those who follow within this process."""

    def __init__(self, pending_max: int = PENDING_MAX) -> None:
        self._pending_max = pending_max
        self._queues: set[asyncio.Queue[Change | None]] = set()

    @property
    def followed(self) -> bool:
        """Whether anyone follows."""
        return bool(self._queues)

    def publish(self, changes: Iterable[Change]) -> None:
        """Tells all followers."""
        for change in changes:
            for queue in self._queues:
                if queue.qsize() >= self._pending_max:
                    _empty(queue)
                    queue.put_nowait(Behind())
                queue.put_nowait(change)

    async def follow(self) -> AsyncGenerator[Change, None]:
        """Yields `Behind`, then all that is published from then on, until the feed is closed."""
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield Behind()
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._queues.discard(queue)

    def close(self) -> None:
        """Ends what is followed, after what was published."""
        for queue in self._queues:
            queue.put_nowait(None)


def _empty(queue: asyncio.Queue[Change | None]) -> None:
    while not queue.empty():
        queue.get_nowait()
