"""A cache in memory that stands for the service: entries, leases, and those who follow an answer in the making."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from kit.errors import MillraceError
from services.inference.caching import recording
from services.inference.caching.cache_port import (
    CacheDraft,
    CacheFigures,
    CacheFound,
    CacheKey,
    CacheMiss,
    CacheQuery,
    Comparison,
    FlightNews,
)
from services.inference.caching.recording import Recorded
from services.inference.events import CacheOutcome, Receipt


class FakeStream:
    """A stream to the store: keeps what it is told, and waits at its gate to be kept."""

    def __init__(self, cache: FakeCache, draft: CacheDraft, lease_id: str) -> None:
        self._cache, self.draft, self.lease_id = cache, draft, lease_id
        self.chunks: list[bytes] = []
        self.told = asyncio.Condition()
        self.follower = asyncio.Event()
        self.given_up = False
        self.cancelled = asyncio.Event()
        self.finished: tuple[Receipt, Comparison | None] | None = None

    @property
    def events(self) -> list[object]:
        """What those who follow have been told."""
        return [event for chunk in self.chunks for batch in recording.read_chunk(chunk) or () for event in batch]

    async def followed(self) -> None:
        await self.follower.wait()

    async def send(self, chunk: bytes) -> None:
        if self._cache.failure:
            raise self._cache.failure
        self.chunks.append(chunk)
        async with self.told:
            self.told.notify_all()

    async def until(self, chunk_count: int) -> None:
        """Waits until so many chunks were told."""
        async with self.told:
            await self.told.wait_for(lambda: len(self.chunks) >= chunk_count)

    async def finish(self, receipt: Receipt, comparison: Comparison | None) -> None:
        if self._cache.failure:
            raise self._cache.failure
        await self._cache.gate.wait()
        self.finished = (receipt, comparison)
        self._cache.entries[self.draft.key] = tuple(self.chunks)

    async def give_up(self) -> None:
        self.given_up = True

    def cancel(self) -> None:
        self.cancelled.set()


class FakeCache:
    """Keeps entries in memory, all fresh or all expired; fails where it is told to.

    It waits at its gate to store, and to be let to answer a lookup.

    A lookup that asks for a lease gets one unless `is_leased`; then following it tells the `news`.
    """

    def __init__(self) -> None:
        self.entries: dict[CacheKey, tuple[bytes, ...]] = {}
        self.stored: list[tuple[CacheDraft, str, Receipt, Comparison | None]] = []
        self.queries: list[CacheQuery] = []
        self.missed = CacheMiss()
        self.is_expired = self.is_leased = False
        self.news: list[FlightNews] = []
        self.streams: list[FakeStream] = []
        self.released: list[str] = []
        self.freed = asyncio.Event()
        self.followed, self.unfollowed = asyncio.Event(), asyncio.Event()
        self.gate, self.storing = asyncio.Event(), asyncio.Event()
        self.answers, self.asked = asyncio.Event(), asyncio.Event()
        self.failure: MillraceError | None = None
        self.gate.set()
        self.answers.set()

    async def lookup(self, query: CacheQuery) -> CacheFound | CacheMiss:
        self.queries.append(query)
        self.asked.set()
        await self.answers.wait()
        if self.failure:
            raise self.failure
        chunks = self.entries.get(query.key)
        if chunks is not None and (query.allow_stale or not self.is_expired):
            return CacheFound(CacheOutcome.STALE if self.is_expired else CacheOutcome.EXACT, chunks, "e1", 2.5)
        if query.lease_s is None:
            return self.missed
        if self.is_leased:
            return CacheMiss("LEASED", leased=True)
        return CacheMiss(self.missed.reason, f"lease-{len(self.queries)}", shadow=self.missed.shadow)

    async def follow(self, query: CacheQuery, wait_s: float) -> AsyncGenerator[FlightNews, None]:
        self.queries.append(query)
        self.followed.set()
        try:
            for news in self.news:
                yield news
            await asyncio.Event().wait()
        finally:
            self.unfollowed.set()

    async def store(
        self,
        draft: CacheDraft,
        chunks: Sequence[bytes],
        receipt: Receipt,
        lease_id: str = "",
        comparison: Comparison | None = None,
    ) -> None:
        self.storing.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.entries[draft.key] = tuple(chunks)
        self.stored.append((draft, lease_id, receipt, comparison))

    def store_stream(self, draft: CacheDraft, lease_id: str, timeout_s: float) -> FakeStream:
        stream = FakeStream(self, draft, lease_id)
        self.streams.append(stream)
        return stream

    async def release(self, lease_id: str) -> None:
        self.released.append(lease_id)
        self.freed.set()

    async def figures(self) -> CacheFigures | None:
        if self.failure:
            raise self.failure
        return None

    async def report_false_hit(self, key: CacheKey, entry_id: str, text: str | None) -> bool:
        raise NotImplementedError

    def only(self) -> Recorded:
        """The one entry there is."""
        (chunks,) = self.entries.values()
        recorded = recording.read(chunks)
        assert recorded
        return recorded
