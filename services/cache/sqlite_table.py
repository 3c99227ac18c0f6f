"""The tables of the embedded store, and the steps on them. All of it runs in the store's thread, in its transactions.

What a transaction does to the figures, and what it changes, counts once it is committed (`settle`); `recount` forgets
it. This module never opens a file and never reads an answer.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable
from typing import Final

from services.cache.changes import Change, Removed, Stored, Version
from services.cache.entry import Entry, outline_of
from services.cache.key import Address
from services.cache.sqlite_thread import BATCH_MAX
from services.cache.store import Clock, Selector, Size
from services.cache.worth import EvictionReason, Evictions, bound_passed, score, worth

# "MRc1": tells our files from those of other programs.
APPLICATION_ID: Final = 0x4D526331
# Raise it when the tables change: an older file is emptied, for it is only a cache.
SCHEMA_VERSION: Final = 2
SCHEMA: Final = """
    DROP TABLE IF EXISTS tags;
    DROP TABLE IF EXISTS outlines;
    DROP TABLE IF EXISTS entries;
    DROP TABLE IF EXISTS figures;
    CREATE TABLE entries (
        entry BLOB PRIMARY KEY, tenant BLOB NOT NULL, namespace BLOB NOT NULL, nonce TEXT NOT NULL,
        gone_ms INTEGER NOT NULL, use_count INTEGER NOT NULL, density REAL NOT NULL, score REAL NOT NULL,
        size_bytes INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE INDEX entries_by_tenant ON entries (tenant, namespace, gone_ms, size_bytes);
    CREATE INDEX entries_by_gone ON entries (gone_ms, size_bytes);
    CREATE INDEX entries_by_score ON entries (score);
    CREATE TABLE outlines (
        place INTEGER PRIMARY KEY, entry BLOB NOT NULL UNIQUE REFERENCES entries (entry) ON DELETE CASCADE,
        outline BLOB NOT NULL);
    CREATE TABLE tags (
        tenant BLOB NOT NULL, tag TEXT NOT NULL, entry BLOB NOT NULL REFERENCES entries (entry) ON DELETE CASCADE,
        PRIMARY KEY (tenant, tag, entry)) WITHOUT ROWID;
    CREATE INDEX tags_by_entry ON tags (entry);
    CREATE TABLE figures (floor REAL NOT NULL);
    INSERT INTO figures VALUES (0);
"""
# Expired entries removed with each batch of writes: more than it can add, so that they never pile up.
SWEEP_COUNT: Final = 2 * BATCH_MAX
# Entries whose uses are written down with each put: a hit itself writes nothing.
USED_COUNT: Final = 64

# A row that was removed: its version, its size, and its uses.
_Row = tuple[Version, int, int]
TakeUses = Callable[[int], list[tuple[bytes, int]]]


class EntryTable:
    """The entries of one file, held to their bounds.

    Args:
        take_uses: Hands over how often up to so many entries were used since it was last asked.
    """

    def __init__(self, *, entries_max: int, bytes_max: int, clock: Clock, take_uses: TakeUses) -> None:
        self._entries_max, self._bytes_max, self._clock = entries_max, bytes_max, clock
        self._take_uses = take_uses
        self._entry_count = self._size_bytes = 0
        self._removed: list[Version] = []
        self._changes: list[Change] = []
        self._evicted: Evictions = Counter()
        self.evictions: Evictions = Counter()

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Makes the tables, or finds them.

        Raises:
            sqlite3.DatabaseError: The file is another program's.
        """
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
        self.recount(connection)

    def recount(self, connection: sqlite3.Connection) -> None:
        """Takes the figures from the file, and forgets what was not committed."""
        self._removed, self._changes, self._evicted = [], [], Counter()
        query = "SELECT count(*), coalesce(sum(size_bytes), 0) FROM entries"
        self._entry_count, self._size_bytes = connection.execute(query).fetchone()

    def settle(self) -> tuple[list[Version], list[Change]]:
        """Ends a transaction; returns the versions that it removed, and the changes to tell of."""
        removed, self._removed = self._removed, []
        changes, self._changes = self._changes, []
        self.evictions.update(self._evicted)
        self._evicted.clear()
        return removed, changes

    def write(self, connection: sqlite3.Connection, entry: Entry, body: bytes, outline: bytes | None) -> None:
        """Puts an entry in place of any at its address, whose uses it inherits, once there is room for it."""
        address, size_bytes = entry.address, len(body) + len(outline or b"")
        replaced = self._remove(connection, "entry = ?", (address.entry,))
        self._note_uses(connection)
        self._make_room(connection, size_bytes)
        use_count = sum(uses for _, _, uses in replaced)
        density = worth(entry.savings) / size_bytes
        place = (address.entry, address.tenant, address.namespace, entry.nonce, entry.gone_ms)
        rank = (use_count, density, score(_floor(connection), use_count, density))
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (*place, *rank, size_bytes, body)
        )
        tags = [(address.tenant, tag, address.entry) for tag in set(entry.tags)]
        connection.executemany("INSERT INTO tags VALUES (?, ?, ?)", tags)
        if outline is not None:
            connection.execute("INSERT INTO outlines (entry, outline) VALUES (?, ?)", (address.entry, outline))
            self._changes.append(Stored(outline_of(entry)))
        self._entry_count += 1
        self._size_bytes += size_bytes

    def count(self, connection: sqlite3.Connection, selector: Selector) -> int:
        """Counts the entries that a selector means."""
        condition, values = _where(selector)
        query = f"SELECT count(*) FROM entries WHERE {condition} AND gone_ms > ?"
        (count,) = connection.execute(query, (*values, self._clock())).fetchone()
        return int(count)

    def delete(self, connection: sqlite3.Connection, selector: Selector) -> int:
        """Removes the entries that a selector means, and counts them."""
        count = self.count(connection, selector)
        self._remove(connection, *_where(selector))
        return count

    def size(self, connection: sqlite3.Connection, tenant: bytes | None) -> Size:
        """Counts the entries that are not gone, and their bytes."""
        condition, values = ("", ()) if tenant is None else ("tenant = ? AND ", (tenant,))
        query = f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM entries WHERE {condition}gone_ms > ?"
        return Size(*connection.execute(query, (*values, self._clock())).fetchone())

    def outlines(self, connection: sqlite3.Connection, after: int, count: int) -> list[tuple[int, bytes]]:
        """The outlines that come after a place, in order, with their places."""
        query = "SELECT place, outline FROM outlines WHERE place > ? ORDER BY place LIMIT ?"
        return connection.execute(query, (after, count)).fetchall()

    def sweep(self, connection: sqlite3.Connection) -> int:
        """Removes entries that have gone, and counts them."""
        expired = "entry IN (SELECT entry FROM entries WHERE gone_ms <= ? LIMIT ?)"
        count = len(self._remove(connection, expired, (self._clock(), SWEEP_COUNT)))
        self._evicted[EvictionReason.EXPIRED] += count
        return count

    def _note_uses(self, connection: sqlite3.Connection) -> None:
        uses = self._take_uses(USED_COUNT)
        if uses:
            floor = _floor(connection)
            connection.executemany(
                "UPDATE entries SET use_count = use_count + ?, score = ? + (1 + use_count + ?) * density"
                " WHERE entry = ?",
                [(count, floor, count, digest) for digest, count in uses],
            )

    def _make_room(self, connection: sqlite3.Connection, size_bytes: int) -> None:
        """Lets entries go until one more fits."""
        while self._entry_count and (
            reason := bound_passed(
                self._entry_count + 1, self._entries_max, self._size_bytes + size_bytes, self._bytes_max
            )
        ):
            if self.sweep(connection):
                continue
            query = "SELECT entry, score FROM entries ORDER BY score, rowid LIMIT 1"
            digest, floor = connection.execute(query).fetchone()
            connection.execute("UPDATE figures SET floor = ?", (floor,))
            self._evicted[reason] += len(self._remove(connection, "entry = ?", (digest,)))

    def _remove(self, connection: sqlite3.Connection, condition: str, values: tuple[object, ...]) -> list[_Row]:
        query = (
            f"DELETE FROM entries WHERE {condition} RETURNING tenant, namespace, entry, nonce, size_bytes, use_count"
        )
        found = connection.execute(query, values).fetchall()
        rows = [((Address(*place), nonce), size, uses) for *place, nonce, size, uses in found]
        if rows:
            versions = tuple(version for version, _, _ in rows)
            self._removed += versions
            self._changes.append(Removed(versions))
            self._entry_count -= len(rows)
            self._size_bytes -= sum(size for _, size, _ in rows)
        return rows


def _floor(connection: sqlite3.Connection) -> float:
    (floor,) = connection.execute("SELECT floor FROM figures").fetchone()
    return float(floor)


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
