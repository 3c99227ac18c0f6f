"""A flight: an answer that this call makes, on its way to the cache and to those who wait there for it.

Whatever leaves for the caller is noted here, in batches. A short answer is kept in one piece at its end. One that takes
longer is told to the cache from then on, by a task of its own: seldom while nobody waits for it, so that the lease
lives, and as it comes once somebody does. The caller never waits for any of it, and the cache's failures stay here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from kit.errors import MillraceError, Unavailable
from services.inference.caching import recording
from services.inference.caching.cache_port import (
    CacheDraft,
    CachePort,
    Comparison,
    FlightBegun,
    FlightNews,
    FlightWaits,
    StoreStream,
)
from services.inference.events import Event, Receipt
from services.inference.generation import EngineEvent

STREAM_AFTER_S = 0.2  # most waits for an answer that is over sooner are as short without a stream
HEARTBEAT_S = 1.0  # a third of a lease: one beat may be lost
FEED_INTERVAL_S = 0.05  # what comes within it goes together: 20 messages a second look as smooth as one per token
FLUSH_S = 1.0  # longest time for those who follow to get the last of an answer that failed

Batch = Sequence[Event | EngineEvent]
Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Flight:
    """One answer in the making.

    Args:
        port: The cache.
        draft: What the answer is kept as.
        lease_id: The lease under which it is made; empty where nobody can wait for it.
        spawn: Runs what outlives the call.
        policy_version: Of the policy that judged the prompt.
        total_s: Longest time that the answer may take.
    """

    def __init__(
        self,
        port: CachePort,
        draft: CacheDraft,
        lease_id: str,
        spawn: Spawn,
        policy_version: str = "",
        total_s: float = math.inf,
    ) -> None:
        self._port, self._draft, self._lease_id, self._spawn = port, draft, lease_id, spawn
        self._policy_version, self._total_s = policy_version, total_s
        self.batches: list[Sequence[object]] = [[recording.Heading(policy_version)]]
        self._sent_count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._stream: StoreStream | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._is_followed = self._is_over = self._is_whole = self._is_broken = self.is_spoilt = False
        self._news = asyncio.Event()

    @property
    def may_be_followed(self) -> bool:
        """Whether it is still being made, or complete."""
        return self._is_whole or not self._is_over

    def open(self, is_awaited: bool = False) -> None:
        """Tells those who wait of the answer, once it has taken a while; at once, where some are known to wait."""
        if not self._lease_id:
            return
        self._is_followed = is_awaited
        if is_awaited:
            self._start()
        else:
            self._timer = asyncio.get_running_loop().call_later(STREAM_AFTER_S, self._start)

    def check(self, event: Event | EngineEvent) -> None:
        """Gives the answer up at once where an event, about to be noted, spoils it for others."""
        if not recording.may_be_kept(event):
            self.is_spoilt = True
            self.close()

    def take(self, batch: Batch) -> None:
        """Notes what left for the caller."""
        self.batches.append(batch)
        if self._is_followed:
            self._news.set()

    def close(self) -> None:
        """Gives the answer up, unless it is over: one of those who wait makes it, and they get what there was of it."""
        if not self._is_over:
            self._end()
            if self._lease_id:
                self._spawn(self._abandon())

    async def land(self, receipt: Receipt, comparison: Comparison | None, limit_s: float) -> None:
        """Keeps the complete answer; `end` was called before.

        Raises:
            MillraceError: It was not kept, or not within the limit.
        """
        try:
            async with asyncio.timeout(limit_s):
                await self._fed()
                if self._stream is None or self._is_broken:
                    chunks = [recording.chunk(self.batches)]
                    await self._port.store(self._draft, chunks, receipt, self._lease_id, comparison)
                else:
                    await self._stream.send(self._unsent())
                    await self._stream.finish(receipt, comparison)
        except TimeoutError as error:
            raise Unavailable("CACHE_TIMEOUT", "the cache did not keep the answer in time") from error
        finally:
            self._hang_up()

    async def tell(self) -> AsyncGenerator[FlightNews, None]:
        """Tells it from its beginning as the cache would, to callers of this process for whom the cache is gone.

        It ends without an ending where the answer is given up.
        """
        yield FlightBegun()
        told_count = 0
        while not self.is_spoilt:
            is_over, batches = self._is_over, self.batches[told_count:]
            told_count += len(batches)
            yield recording.chunk(batches) if batches else FlightWaits()
            if is_over:
                return
            await asyncio.sleep(FEED_INTERVAL_S)

    def end(self, receipt: Receipt, policy_version: str) -> None:
        """Notes that the answer is complete; only `land` is left to do."""
        self.batches.append([recording.ending(receipt, policy_version or self._policy_version)])
        self._is_whole = True
        self._end()

    def _start(self) -> None:
        self._feeding = asyncio.create_task(self._feed())

    def _end(self) -> None:
        self._is_over = True
        self._news.set()
        if self._timer:
            self._timer.cancel()

    async def _abandon(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._fed()
                if self._stream is None:
                    await self._port.release(self._lease_id)
                elif self._is_followed and not (self.is_spoilt or self._is_broken):
                    await self._stream.send(self._unsent())
                    await self._stream.give_up()
        except (TimeoutError, MillraceError):
            pass  # the lease runs out by itself
        finally:
            self._hang_up()

    async def _fed(self) -> None:
        """Waits until the feeding has seen the end."""
        if self._feeding:
            await asyncio.wait({self._feeding})

    def _hang_up(self) -> None:
        if self._feeding:
            self._feeding.cancel()
        if self._stream:
            self._stream.cancel()

    async def _feed(self) -> None:
        """Tells the cache of the answer until it is over; a stream that breaks is given up."""
        self._stream = self._port.store_stream(self._draft, self._lease_id, self._total_s)
        watching = asyncio.create_task(self._watch(self._stream))
        try:
            while not self._is_over:
                await self._stream.send(self._unsent())
                await self._pause()
        except MillraceError:
            self._is_broken = True
        finally:
            watching.cancel()

    async def _watch(self, stream: StoreStream) -> None:
        with suppress(MillraceError):
            await stream.followed()
            self._is_followed = True
            self._news.set()

    async def _pause(self) -> None:
        """Waits until there is something to say: what is new where somebody follows, else that the maker lives."""
        if self._is_followed:
            await asyncio.sleep(FEED_INTERVAL_S)
        if self._is_over or (self._is_followed and self._sent_count < len(self.batches)):
            return
        self._news.clear()
        await _within(HEARTBEAT_S, self._news.wait())

    def _unsent(self) -> bytes:
        """A chunk of what was not sent yet; an empty one only tells that the maker lives."""
        batches, self._sent_count = self.batches[self._sent_count :], len(self.batches)
        return recording.chunk(batches)


async def _within(limit_s: float, awaited: Awaitable[object]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await awaited
