"""Whether limits are counted on Redis: seen by counting, every other second, also while nobody asks for anything.

A Redis that was killed is noticed by its breaker only when something is asked of it, and one that answers and refuses
(it is full, may only be read, or forbids scripts) has no breaker. So what every replica tells it anyway, that it is
there, is told often enough to find out. It is no part of any request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from services.inference.quota.redis_lane import RedisLane
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import StoreLost

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0


class RedisWatch:
    """Keeps asking the Redis that limits are counted on.

    Args:
        shared: The counts on it.
        lane: The way to it.
        on_change: Told, whenever that changes, whether it counts.
        interval_s: Time between two questions.

    Attributes:
        refusal: Redis's words, where it answers and refuses; else empty.
    """

    def __init__(
        self,
        shared: RedisStore,
        lane: RedisLane,
        on_change: Callable[[bool], None],
        interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._shared, self._lane, self._on_change, self._interval_s = shared, lane, on_change, interval_s
        self._task: asyncio.Task[None] | None = None
        self._told = True
        self.refusal = ""

    @property
    def counts(self) -> bool:
        """Whether limits are counted on it."""
        return self._lane.available and not self.refusal

    async def start(self) -> None:
        """Opens the way, whether or not Redis answers; asks once, then goes on in the background."""
        self._lane.on_change = lambda _: self._tell()
        await self._lane.open()
        await self._check()
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stops asking, and closes the way."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._lane.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._check()
            except Exception:  # what redis-py should never raise must not end the watch
                log.exception("Redis could not be asked")

    async def _check(self) -> None:
        try:
            await self._shared.beat()
            self.refusal = ""
        except StoreLost as lost:
            if lost.refusal:
                self.refusal = lost.refusal
            elif self._lane.available:  # late or gone: a second try, with more time than a request has, tells
                await self._lane.open()
        self._tell()

    def _tell(self) -> None:
        if self.counts != self._told:
            self._told = self.counts
            self._on_change(self._told)
