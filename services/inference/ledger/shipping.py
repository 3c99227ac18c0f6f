"""Shipping: brings the journal's records to the database, in batches, each of them exactly once.

It tries for as long as the database is away, and says so once. A batch is one transaction; what was inserted already,
before a crash or by another process, is passed over by its id, and only what was really inserted is added to the sums.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from kit.errors import Unavailable
from services.inference.database.database import is_refusal
from services.inference.ledger.journal import left_behind, records_of
from services.inference.ledger.ledger import Ledger
from services.inference.ledger.row import Begun, Entry, Record, is_begun, lost
from services.inference.ledger.store import LedgerStore

log = logging.getLogger(__name__)

GATHER_S = 1.0  # records of so long go together: a transaction costs 3 ms CPU, a row in it 0.04 ms
BATCH_BYTES = 256 * 1024
AGAIN_S, AGAIN_S_MAX = 0.25, 5.0
ORPHANS_INTERVAL_S = 30.0

_decode = msgspec.msgpack.Decoder(Record).decode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


class Shipping:
    """Ships one ledger, and what dead processes have left beside it.

    Args:
        ledger: What is to be shipped.
        store: Where to.
        gather_s: How long records are gathered.

    Attributes:
        shipped_count: Requests that were shipped.
    """

    def __init__(self, ledger: Ledger, store: LedgerStore, gather_s: float = GATHER_S) -> None:
        self._ledger, self._store, self._gather_s = ledger, store, gather_s
        self._ready = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        self._failing_since: float | None = None
        self.shipped_count = 0

    @property
    def lag_s(self) -> float:
        """For how long the database has been away; 0 while it takes what it is sent."""
        return 0.0 if self._failing_since is None else time.monotonic() - self._failing_since

    def start(self, ready: asyncio.Event) -> None:
        """Ships from now on, or from when the database can be used at all: then `ready` is set."""
        self._ready = ready
        self._tasks = [asyncio.create_task(self._ship_forever()), asyncio.create_task(self._adopt_forever())]

    async def close(self, within_s: float) -> None:
        """Ships what is left, as far as the time allows, and stops."""
        try:
            async with asyncio.timeout(within_s):
                if self._ready.is_set():
                    await self.flush()
        except (TimeoutError, Unavailable):
            log.warning("rows are left for the next start", extra={"bytes": self._ledger.journal.waiting_bytes})
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def flush(self) -> None:
        """Ships everything that was recorded so far.

        Raises:
            Unavailable: The database does not answer.
        """
        async with self._turn:
            self._ledger.write_rest()
            journal = self._ledger.journal
            # Not what comes meanwhile: under load that never ends, in transactions of ever fewer rows.
            left = journal.waiting_bytes
            while left > 0 and (found := await asyncio.to_thread(journal.waiting, BATCH_BYTES)) is not None:
                segment, end, records = found
                left -= end - segment.read
                await self._insert([_decode_entry(data) for data in records if not is_begun(data)])
                journal.shipped(segment, end)

    async def adopt(self) -> None:
        """Ships what dead processes have left.

        Raises:
            Unavailable: The database does not answer.
        """
        journal = self._ledger.journal
        for folder, lock in left_behind(journal.folder.parent, journal.folder):
            try:
                await self._adopt(folder)
            finally:
                os.close(lock)

    async def _adopt(self, folder: Path) -> None:
        begun: dict[str, list[Begun]] = {}
        for records in await asyncio.to_thread(lambda: list(records_of(folder))):
            entries: list[Entry] = []
            for record in map(_decode, records):
                if isinstance(record, Begun):
                    begun.setdefault(record.request.id, []).append(record)
                else:
                    begun.pop(record.request.id, None)
                    entries.append(record)
            await self._insert(entries)
        await self._insert([lost(attempts) for attempts in begun.values()])
        if begun:
            log.warning("a process has died over requests", extra={"request_count": len(begun)})
        await asyncio.to_thread(shutil.rmtree, folder)

    async def _insert(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        try:
            await self._store.insert(entries)
        except Exception as error:
            if not is_refusal(error):  # whatever it is, it may mend: nothing is given up for it
                raise
            await self._insert_one_by_one(entries)
        self.shipped_count += len(entries)

    async def _insert_one_by_one(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            try:
                await self._store.insert([entry])
            except Exception as error:  # one that will never be taken must not keep the others back
                if not is_refusal(error):
                    raise
                log.exception("a row was refused by the database", extra={"row": msgspec.to_builtins(entry.request)})

    async def _ship_forever(self) -> None:
        await self._ready.wait()
        again_s = AGAIN_S
        while True:
            await self._ledger.has_news.wait()
            await asyncio.sleep(self._gather_s)
            self._ledger.has_news.clear()
            try:
                await self.flush()
            except Exception as error:
                self._ledger.has_news.set()
                self._failed(error)
                await asyncio.to_thread(self._ledger.journal.sync)  # the database may be away for long
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, AGAIN_S_MAX)
                continue
            again_s = AGAIN_S
            self._went_well()

    async def _adopt_forever(self) -> None:
        await self._ready.wait()
        while True:
            try:
                await self.adopt()
            except Unavailable:
                pass  # said already by who ships
            except Exception:
                log.exception("rows that a dead process has left cannot be read")
            await asyncio.sleep(ORPHANS_INTERVAL_S)

    def _failed(self, error: Exception) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            log.warning("rows wait for the database", extra={"error": repr(error)})

    def _went_well(self) -> None:
        if self._failing_since is not None:
            log.info("the database has every row again", extra={"seconds": round(self.lag_s, 1)})
            self._failing_since = None
