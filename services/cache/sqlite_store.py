"""Entries in one SQLite file, with the hot ones in memory.

The default store: it needs nothing but a disk, and survives a restart or a kill. The file belongs to one process at a
time, so that the entries held in memory cannot be out of date. It never touches a file that another program made.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from kit.errors import ConfigError
from services.cache.entry import Entry, decode, encode
from services.cache.hot_entries import HotEntries
from services.cache.key import Address
from services.cache.sqlite_thread import BATCH_MAX, SqliteThread
from services.cache.store import Clock, Selector, Size, StoreUnavailable

# "MRc1": tells our files from those of other programs.
APPLICATION_ID: Final = 0x4D526331
# Raise it when the tables change: an older file is emptied, for it is only a cache.
SCHEMA_VERSION: Final = 1
SCHEMA: Final = """
    DROP TABLE IF EXISTS tags;
    DROP TABLE IF EXISTS entries;
    CREATE TABLE entries (
        entry BLOB PRIMARY KEY, tenant BLOB NOT NULL, namespace BLOB NOT NULL, nonce TEXT NOT NULL,
        gone_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL, size_bytes INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX entries_by_tenant ON entries (tenant, namespace, size_bytes);
    CREATE INDEX entries_by_gone ON entries (gone_ms);
    CREATE INDEX entries_by_use ON entries (used_ms);
    CREATE TABLE tags (
        tenant BLOB NOT NULL, tag TEXT NOT NULL, entry BLOB NOT NULL REFERENCES entries (entry) ON DELETE CASCADE,
        PRIMARY KEY (tenant, tag, entry)) WITHOUT ROWID;
    CREATE INDEX tags_by_entry ON tags (entry);
"""
# Expired entries removed with each batch of writes: more than it can add, so that they never pile up.
SWEEP_COUNT: Final = 2 * BATCH_MAX
# Uses written down with each batch of writes: a hit itself writes nothing.
TOUCH_COUNT: Final = BATCH_MAX
# Oldest SQLite with DELETE ... RETURNING.
SQLITE_VERSION_MIN: Final = (3, 35)

Result = TypeVar("Result")


class SqliteStore:
    """Entries in one SQLite file; the least recently used leave when it is full."""

    name = "embedded"

    def __init__(self, path: Path, *, entries_max: int, bytes_max: int, hot_bytes_max: int, clock: Clock) -> None:
        self._path = path
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._clock = clock
        self._hot = HotEntries(hot_bytes_max)
        self._removed: list[bytes] = []
        self._entry_count = self._size_bytes = 0
        self._thread: SqliteThread | None = None
        self._reader: sqlite3.Connection | None = None
        self._lock_file: int | None = None
        self.eviction_count = 0

    @property
    def available(self) -> bool:
        """Whether the file is open."""
        return self._reader is not None

    async def open(self) -> None:
        """Opens the file, or makes it.

        Raises:
            ConfigError: Another process has the file, another program made it, or it cannot be written.
        """
        if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
            raise ConfigError(
                f"SQLite {sqlite3.sqlite_version} is too old for MILLRACE_CACHE_STORE=embedded: 3.35 is needed"
            )
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = _lock(self._path)
            self._path.touch(mode=0o600)  # Answers may be private.
            self._thread = SqliteThread(self._path, self._tidy, self._settle, self._recount)
            await asyncio.wrap_future(self._thread.submit(self._prepare, writes=False))
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
        body = encode(entry)
        await self._ask(lambda connection: self._write(connection, entry, body), writes=True)

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them."""
        if dry_run:
            return await self._ask(lambda connection: self._count(connection, selector))
        return await self._ask(lambda connection: self._delete(connection, selector), writes=True)

    async def size(self, tenant: bytes | None) -> Size:
        """Counts what is kept."""
        if tenant is None:
            return Size(self._entry_count, self._size_bytes)
        query = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM entries WHERE tenant = ?"
        return await self._ask(lambda connection: Size(*connection.execute(query, (tenant,)).fetchone()))

    async def close(self) -> None:
        """Does what was asked for, then closes the file."""
        thread, self._thread = self._thread, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        if thread is not None:
            await asyncio.to_thread(thread.close)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    async def _ask(self, operation: Callable[[sqlite3.Connection], Result], *, writes: bool = False) -> Result:
        if self._thread is None or not self.available:
            raise StoreUnavailable("The store is not open; retry.")
        try:
            return await asyncio.wrap_future(self._thread.submit(operation, writes=writes))
        except queue.Full as error:
            raise StoreUnavailable("The store is busy; retry.") from error
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The store failed ({error}); see to the disk, then retry.") from error

    def _read(self, address: Address) -> Entry | None:
        if self._reader is None:
            raise StoreUnavailable("The store is not open; retry.")
        epoch = self._hot.epoch
        try:
            row = self._reader.execute("SELECT body FROM entries WHERE entry = ?", (address.entry,)).fetchone()
        except sqlite3.Error as error:
            raise StoreUnavailable(f"The store failed ({error}); see to the disk, then retry.") from error
        entry = None if row is None else decode(row[0], address)
        if entry is not None:
            self._hot.put(entry, len(row[0]), epoch)
        return entry

    # What follows runs in the store's thread.

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (table_count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if table_count and application_id != APPLICATION_ID:
            raise sqlite3.DatabaseError("another program made it")
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != SCHEMA_VERSION:
            stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
            connection.executescript(f"BEGIN; {SCHEMA} {stamp} COMMIT;")
        self._recount(connection)

    def _recount(self, connection: sqlite3.Connection) -> None:
        self._removed.clear()
        query = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM entries"
        self._entry_count, self._size_bytes = connection.execute(query).fetchone()

    def _write(self, connection: sqlite3.Connection, entry: Entry, body: bytes) -> None:
        address = entry.address
        self._remove(connection, "entry = ?", (address.entry,))
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*_place(address), entry.nonce, entry.gone_ms, self._clock(), len(body), body),
        )
        tags = [(address.tenant, tag, address.entry) for tag in set(entry.tags)]
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", tags)
        self._entry_count += 1
        self._size_bytes += len(body)

    def _count(self, connection: sqlite3.Connection, selector: Selector) -> int:
        condition, values = _where(selector)
        query = f"SELECT count(*) FROM entries WHERE {condition} AND gone_ms > ?"
        (count,) = connection.execute(query, (*values, self._clock())).fetchone()
        return int(count)

    def _delete(self, connection: sqlite3.Connection, selector: Selector) -> int:
        count = self._count(connection, selector)
        self._remove(connection, *_where(selector))
        return count

    def _remove(self, connection: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> int:
        query = f"DELETE FROM entries WHERE {condition} RETURNING entry, size_bytes"
        rows = connection.execute(query, values).fetchall()
        for digest, size_bytes in rows:
            self._removed.append(digest)
            self._entry_count -= 1
            self._size_bytes -= size_bytes
        return len(rows)

    def _settle(self) -> None:
        """Forgets what a committed batch removed; not before, or a lookup could read it once more and remember it."""
        if self._removed:
            self._hot.forget(self._removed)
            self._removed.clear()

    def _tidy(self, connection: sqlite3.Connection) -> None:
        """Ends a batch of writes: notes what was used, and removes what has expired or is too much."""
        now_ms = self._clock()
        touched = [(now_ms, digest) for digest in self._hot.take_touched(TOUCH_COUNT)]
        connection.executemany("UPDATE entries SET used_ms = ? WHERE entry = ?", touched)
        expired = "entry IN (SELECT entry FROM entries WHERE gone_ms <= ? LIMIT ?)"
        self._remove(connection, expired, (now_ms, SWEEP_COUNT))
        oldest = "entry = (SELECT entry FROM entries ORDER BY used_ms, rowid LIMIT 1)"
        while self._entry_count > self._entries_max or self._size_bytes > self._bytes_max:
            self.eviction_count += self._remove(connection, oldest, ())


def _place(address: Address) -> tuple[bytes, bytes, bytes]:
    return address.entry, address.tenant, address.namespace


def _where(selector: Selector) -> tuple[str, tuple[object, ...]]:
    """The condition of a selector, and its values."""
    terms: list[tuple[str, tuple[object, ...]]] = [("tenant = ?", (selector.tenant,))]
    if selector.namespace is not None:
        terms.append(("namespace = ?", (selector.namespace,)))
    if selector.entry is not None:
        terms.append(("entry = ? AND nonce = ?", selector.entry))
    if selector.tag is not None:
        tagged = "entry IN (SELECT entry FROM tags WHERE tenant = ? AND tag = ?)"
        terms.append((tagged, (selector.tenant, selector.tag)))
    conditions, values = zip(*terms, strict=True)
    return " AND ".join(conditions), tuple(value for group in values for value in group)


def _lock(path: Path) -> int:
    """Claims a file for this process; the claim ends with the process, however that ends."""
    lock_file = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock_file)
        raise ConfigError(f"MILLRACE_CACHE_PATH={path} is in use by another process; name another file") from error
    return lock_file
