"""Entries in one SQLite file, with the hot ones in memory.

The default store: it needs nothing but a disk, and survives a restart or a kill. The file belongs to one process at a
time, so that the entries held in memory cannot be out of date. It never touches a file that another program made.
"""

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
from collections.abc import AsyncGenerator, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from kit.errors import ConfigError
from services.cache.changes import Change, ChangeFeed
from services.cache.entry import Entry, decode, decode_outline, encode, encode_outline
from services.cache.hot_entries import HotEntries
from services.cache.key import Address
from services.cache.sqlite_table import EntryTable
from services.cache.sqlite_thread import SqliteThread
from services.cache.store import Clock, Selector, Size, StoreUnavailable
from services.cache.worth import Evictions

_log = logging.getLogger(__name__)
_FULL: Final = (
    "The disk of the cache is full: nothing new is kept. Make room there, or name another file by MILLRACE_CACHE_PATH."
)
# Outlines read at once, between two batches of writes.
PAGE_COUNT: Final = 256
FULL_RETRY_AFTER_MS: Final = 5_000  # a disk is not made room on in a moment
# Oldest SQLite with DELETE ... RETURNING.
SQLITE_VERSION_MIN: Final = (3, 35)

Result = TypeVar("Result")


class SqliteStore:
    """Entries in one SQLite file; those that are worth least leave when it is full."""

    name = "embedded"

    def __init__(self, path: Path, *, entries_max: int, bytes_max: int, hot_bytes_max: int, clock: Clock) -> None:
        self._path, self._clock = path, clock
        self._hot = HotEntries(hot_bytes_max)
        self._table = EntryTable(
            entries_max=entries_max, bytes_max=bytes_max, clock=clock, take_uses=self._hot.take_uses
        )
        self._feed = ChangeFeed()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: SqliteThread | None = None
        self._reader: sqlite3.Connection | None = None
        self._lock_file: int | None = None
        self._is_full = False

    @property
    def available(self) -> bool:
        """Whether the file is open."""
        return self._reader is not None

    @property
    def evictions(self) -> Evictions:
        """Entries that were let go since the start, by reason."""
        return self._table.evictions

    async def open(self) -> None:
        """Opens the file, or makes it.

        Raises:
            ConfigError: Another process has the file, another program made it, or it cannot be written.
        """
        if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
            raise ConfigError(
                f"SQLite {sqlite3.sqlite_version} is too old for MILLRACE_CACHE_STORE=embedded: 3.35 is needed"
            )
        self._loop = asyncio.get_running_loop()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _lock(self._path)
            self._path.touch(mode=0o600)  # Answers may be private.
            self._thread = SqliteThread(self._path, self._table.sweep, self._settle, self._table.recount)
            await asyncio.wrap_future(self._thread.submit(self._table.prepare, writes=False))
            # Never waits: a lookup that finds the file locked is a miss.
            self._reader = sqlite3.connect(self._path, isolation_level=None, timeout=0)
        except (OSError, sqlite3.Error) as error:
            await self.close()
            raise ConfigError(f"MILLRACE_CACHE_PATH={self._path} cannot be used: {error}") from error

    async def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, in memory first.

        The file is read right here: that takes 6 us for a miss and 30 us for a hit of 2 KB. By way of the thread it was
        0.2 ms, and more than 50 ms when the event loop was busy, for the two then take turns (Python 3.11).
        """
        entry = self._hot.get(address) or self._read(address)
        return None if entry is None or entry.gone_ms <= self._clock() else entry

    async def put(self, entry: Entry) -> None:
        """Keeps an entry; it is on the disk when this returns."""
        body, outline = encode(entry), encode_outline(entry)
        await self._ask(lambda connection: self._table.write(connection, entry, body, outline), writes=True)

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them."""
        if dry_run:
            return await self._ask(lambda connection: self._table.count(connection, selector))
        return await self._ask(lambda connection: self._table.delete(connection, selector), writes=True)

    async def size(self, tenant: bytes | None) -> Size:
        """Counts what is kept."""
        return await self._ask(lambda connection: self._table.size(connection, tenant))

    async def outlines(self) -> AsyncGenerator[Entry, None]:
        """Yields the entries that have an embedding, without their chunks, in the order in which they were stored."""
        place = 0
        while page := await self._ask(partial(self._table.outlines, after=place, count=PAGE_COUNT)):
            place = page[-1][0]
            for _, data in page:
                entry = decode_outline(data)
                if entry is not None and entry.gone_ms > self._clock():
                    yield entry

    def changes(self) -> AsyncGenerator[Change, None]:
        """Follows what is stored and removed, until the store is closed."""
        return self._feed.follow()

    async def close(self) -> None:
        """Does what was asked for, then closes the file."""
        thread, self._thread = self._thread, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        if thread is not None:
            await asyncio.to_thread(thread.close)
        self._feed.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def _ask(self, operation: Callable[[sqlite3.Connection], Result], *, writes: bool = False) -> Result:
        if self._thread is None or not self.available:
            raise StoreUnavailable("The store is not open; retry.")
        try:
            result = await asyncio.wrap_future(self._thread.submit(operation, writes=writes))
        except queue.Full as error:
            raise StoreUnavailable("The store is busy; retry.") from error
        except sqlite3.Error as error:
            raise self._failed(error) from error
        if writes and self._is_full:
            self._is_full = False
            _log.info("the cache keeps entries again")
        return result

    def _read(self, address: Address) -> Entry | None:
        if self._reader is None:
            raise StoreUnavailable("The store is not open; retry.")
        epoch = self._hot.epoch
        try:
            row = self._reader.execute("SELECT body FROM entries WHERE entry = ?", (address.entry,)).fetchone()
        except sqlite3.Error as error:
            raise self._failed(error) from error
        entry = None if row is None else decode(row[0], address)
        if entry is not None:
            self._hot.put(entry, len(row[0]), epoch)
        return entry

    def _failed(self, error: sqlite3.Error) -> StoreUnavailable:
        """What a failure is for the caller; a full disk is also said to the operator, once."""
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            return StoreUnavailable(f"The store failed ({error}); see to the disk, then retry.")
        if not self._is_full:
            self._is_full = True
            _log.warning("the disk of the cache is full: nothing new is kept", extra={"path": str(self._path)})
        return StoreUnavailable(_FULL, FULL_RETRY_AFTER_MS)

    # What follows runs in the store's thread.

    def _settle(self) -> None:
        """Forgets what a committed batch removed; not before, or a lookup could read it once more and remember it."""
        removed, changes = self._table.settle()
        if removed:
            self._hot.forget(address.entry for address, _ in removed)
        if changes and self._feed.followed and self._loop is not None:
            self._loop.call_soon_threadsafe(self._feed.publish, changes)


def _lock(path: Path) -> int:
    """Claims a file for this process; the claim ends with the process, however that ends."""
    lock_file = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock_file)
        raise ConfigError(f"MILLRACE_CACHE_PATH={path} is in use by another process; name another file") from error
    return lock_file
