"""Keeps the index what the store is: reads all entries at the start, follows every change, and forgets what expired.

An index that is behind only misses what it does not know yet; that an entry is still there is looked up in the store
before it is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from kit.errors import MillraceError
from services.cache.changes import Behind, Change, Removed, Stored, Version
from services.cache.entry import Entry
from services.cache.semantic.index import VectorIndex
from services.cache.semantic.records import Record, Records
from services.cache.semantic.verifiers import Verifiers
from services.cache.store import Clock, EntryStore

log = logging.getLogger(__name__)

# Entries that go into the index together: some 2 ms of work, so that lookups come in between.
PAGE_COUNT: Final = 32
# Records that are looked at together for what has gone: a millisecond of work.
DROP_COUNT: Final = 5000
# How often expired entries are looked for, and what was learned is kept.
SWEEP_EVERY_S: Final = 60.0
RETRY_S: Final = 1.0


class Follower:
    """Follows a store with an index."""

    def __init__(
        self, store: EntryStore, index: VectorIndex, records: Records, verifiers: Verifiers, clock: Clock
    ) -> None:
        self._store, self._index, self._records = store, index, records
        self._verifiers, self._clock = verifiers, clock
        self.hydrated = asyncio.Event()

    async def follow(self) -> None:
        """Runs until the store is closed."""
        async with aclosing(self._store.changes()) as changes:
            async for change in changes:
                try:
                    await self._apply(change)
                except MillraceError:
                    log.exception("the index missed a change")

    async def sweep(self) -> None:
        """Runs for ever, and tidies up from time to time."""
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            with contextlib.suppress(MillraceError):
                await self.tidy()

    async def tidy(self) -> None:
        """Forgets what has expired, and keeps what was learned."""
        now_ms = self._clock()
        await self._drop(lambda record: record.gone_ms <= now_ms)
        await self._verifiers.save()

    async def _apply(self, change: Change) -> None:
        match change:
            case Behind():
                await self._hydrate()
            case Stored(entry):
                known = self._records.get(entry.address.entry)
                if entry.gone_ms <= self._clock():  # told late, and nothing will tell that it has gone
                    await self._remove([(known.address, known.nonce)] if known else [])
                elif known is None or known.nonce != entry.nonce:  # else it was stored and noted here
                    await self._add([entry])
            case Removed(versions):
                await self._remove(versions)

    async def _hydrate(self) -> None:
        """Reads what the store has, and forgets what it has not; tries until it answers."""
        while True:
            try:
                await self._read_all()
            except MillraceError:
                await asyncio.sleep(RETRY_S)
                continue
            self.hydrated.set()
            return

    async def _read_all(self) -> None:
        known_before, seen, page = self._records.next_number, set[bytes](), list[Entry]()
        async with aclosing(self._store.outlines()) as outlines:
            async for entry in outlines:
                seen.add(entry.address.entry)
                known = self._records.get(entry.address.entry)
                if known is not None and known.nonce == entry.nonce:
                    continue
                page.append(entry)
                if len(page) == PAGE_COUNT:
                    await self._add(page)
                    page = []
                    await asyncio.sleep(0)
        await self._add(page)
        await self._drop(lambda record: record.number < known_before and record.address.entry not in seen)

    async def _drop(self, gone: Callable[[Record], bool]) -> None:
        """Forgets what has gone, while lookups go on."""
        for page in self._records.pages(DROP_COUNT):
            await self._remove([(record.address, record.nonce) for record in page if gone(record)])
            await asyncio.sleep(0)

    async def _add(self, entries: Sequence[Entry]) -> None:
        items = [(entry, self._records.add(entry)) for entry in entries]
        await self._index.add([item for _, item in items if item])
        await self._index.remove([entry.address.entry for entry, item in items if item is None])

    async def _remove(self, versions: Sequence[Version]) -> None:
        removed = self._records.remove(versions)
        if removed:
            await self._index.remove(removed)
