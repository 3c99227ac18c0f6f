"""Watching: one snapshot a second for all who watch, and none while nobody does."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import msgspec

from kit.cancelling import cancel_all
from services.inference.caching.cache_port import CacheFigures
from services.inference.live.figures import LiveFigures, Snapshot

INTERVAL_S: Final = 1.0
# What the cache has saved is another service's figure: it is asked for it more rarely.
SAVED_INTERVAL_COUNT: Final = 5


class Seen(msgspec.Struct, frozen=True):
    """A snapshot, with what others tell: money saved in millionths of a US dollar, and who is there."""

    snapshot: Snapshot
    saved_micro_usd: int | None
    available: dict[str, bool]


class Watching:
    """Takes snapshots for as long as somebody watches.

    Args:
        figures: Sum up.
        cache_figures: Asks the cache what it has saved; None where it does not tell.
        sleep: Waits for the next second.

    Attributes:
        available: Whether each thing that inference leans on is there.
        watcher_count: Who watches now.
    """

    def __init__(
        self,
        figures: LiveFigures,
        cache_figures: Callable[[], Awaitable[CacheFigures | None]],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._figures, self._cache_figures, self._sleep = figures, cache_figures, sleep
        self.available: dict[str, bool] = {}
        self._seen: Seen | None = None
        self._renewed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False
        self.watcher_count = 0

    def tell(self, name: str, available: bool) -> None:
        """Takes note of whether something is there; names are those of the health service."""
        if name.startswith("dependency/"):
            self.available[name.removeprefix("dependency/")] = available

    async def watch(self) -> AsyncGenerator[Seen, None]:
        """Yields what is seen, once a second, until the process is to stop."""
        self.watcher_count += 1
        try:
            if not self._tasks:
                # Not part of the first watcher's call: others go on to watch when it has ended.
                self._tasks.add(asyncio.create_task(self._look(), context=contextvars.Context()))
            elif self._seen is not None:
                yield self._seen
            while not self._is_over:
                await self._renewed.wait()
                if self._seen is not None:
                    yield self._seen
        finally:
            self.watcher_count -= 1
            if not self.watcher_count:
                await self.close()

    def end(self) -> None:
        """Ends every watch: they would hold up a drain."""
        self._is_over, self._seen = True, None
        self._renewed.set()

    async def close(self) -> None:
        """Looks no more."""
        tasks, self._tasks = self._tasks, set()
        await cancel_all(tasks)
        self._seen = None

    async def _look(self) -> None:
        saved: int | None = None
        for count in itertools.count():
            if count % SAVED_INTERVAL_COUNT == 0:
                cache = await self._cache_figures()
                saved = None if cache is None else cache.saved_cost_micro_usd
            self._seen = Seen(self._figures.snapshot(), saved, dict(self.available))
            renewed, self._renewed = self._renewed, asyncio.Event()
            renewed.set()
            await self._sleep(INTERVAL_S)
