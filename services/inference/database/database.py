"""The database: short transactions with a deadline, on SQLite or PostgreSQL.

Whoever uses it gets a connection for a block and says what it does with SQLAlchemy Core. Nothing waits for it without
a bound: a database that is down, frozen or too slow is `Unavailable` (DATABASE_UNAVAILABLE; DATABASE_FULL where its
disk is, DATABASE_DAMAGED where it cannot be read), never a hang and never another error. It knows no table; it never
retries.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from kit.errors import ConfigError, InvalidArgument, Unavailable
from services.inference.database.settings import DatabaseSettings
from services.inference.database.sqlite_connection import open_sqlite

RETRY_AFTER_MS = 1_000  # a database that restarts is back in seconds
FULL_RETRY_AFTER_MS = 5_000  # a disk is not made room on in a moment
FULL = "53100"  # PostgreSQL's disk_full
DAMAGED = ("XX001", "XX002")  # PostgreSQL's data_corrupted and index_corrupted
SQLITE_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
NOT_TEXT = "22021"  # PostgreSQL's text holds every character but NUL
READS = "millrace_reads"
# Several connections write: who meets another's lock waits for it, since transactions are short.
SQLITE_PRAGMAS = ("synchronous=FULL", "foreign_keys=ON", "busy_timeout={timeout_ms}")
SQLITE_AGAIN_S = 0.02


class Database:
    """One database.

    Args:
        settings: Where it is, and how long anything may take.

    Raises:
        ConfigError: The URL is none, or names a driver that is not supported.

    Attributes:
        place: Where it is, without a password.
        trouble: Why it could not be used when it last could not.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._timeout_s = settings.timeout_s
        self.trouble = ""
        url = _url(settings)
        self.place = url.database if url.get_backend_name() == "sqlite" else url.render_as_string()
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.engine: AsyncEngine = _sqlite(url, settings) if self.is_sqlite else _postgresql(url, settings)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Lends a connection for a block that only reads.

        Raises:
            Unavailable: The database did not answer in time, or at all (DATABASE_UNAVAILABLE).
        """
        async with self._bounded(), self.engine.connect() as connection:
            await connection.execution_options(**{READS: True})
            yield connection

    @asynccontextmanager
    async def writing(self, timeout_s: float | None = None) -> AsyncIterator[AsyncConnection]:
        """Lends a connection for one transaction: committed at the end of the block, undone where it raises.

        Args:
            timeout_s: Longest time for the whole block; None: as the settings say.
        Raises:
            Unavailable: The database did not answer in time, or at all (DATABASE_UNAVAILABLE), or its disk is full
            (DATABASE_FULL).
        """
        async with self._bounded(timeout_s), self.engine.begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Asks whether the database answers.

        Raises:
            Unavailable: It does not.
        """
        async with self.reading() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes every connection."""
        await self.engine.dispose()

    @asynccontextmanager
    async def _bounded(self, timeout_s: float | None = None) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task
        before = task.cancelling()
        try:
            with _told_apart():
                async with asyncio.timeout(timeout_s or self._timeout_s):
                    yield
        except Unavailable as error:
            self.trouble = _words(error.__cause__)
            raise
        finally:
            # A cancel that comes while a driver cleans up may end there as another error, or as none at all.
            if task.cancelling() > before:
                raise asyncio.CancelledError


@contextmanager
def _told_apart() -> Iterator[None]:
    """Tells an outage from what the database refuses."""
    try:
        yield
    except (TimeoutError, PoolTimeout, OSError) as error:
        raise _unavailable() from error
    except DBAPIError as error:
        if _is_full(error):
            raise _full() from error
        if _is_damaged(error):
            raise Unavailable("DATABASE_DAMAGED", "the database is damaged; whoever runs it must restore it") from error
        if error.connection_invalidated or _is_outage(error):
            raise _unavailable() from error
        if _state(error) == NOT_TEXT:
            raise InvalidArgument("request", "must not hold the character NUL") from error
        raise


def _words(error: BaseException | None) -> str:
    """What an outage looks like, without what was asked."""
    error = getattr(error, "orig", None) or error
    return str(error) or type(error).__name__


def is_refusal(error: Exception) -> bool:
    """Whether the database will never take what it was told, however often: the data are wrong, not their moment."""
    if isinstance(error, InvalidArgument | IntegrityError | DataError):
        return True
    return isinstance(error, DBAPIError) and _state(error)[:2] in ("22", "23")


def _unavailable() -> Unavailable:
    return Unavailable(
        "DATABASE_UNAVAILABLE", "the database does not answer; retry later", retry_after_ms=RETRY_AFTER_MS
    )


def _full() -> Unavailable:
    problem = "the disk of the database is full; whoever runs it must make room there"
    return Unavailable("DATABASE_FULL", problem, retry_after_ms=FULL_RETRY_AFTER_MS)


def _is_full(error: DBAPIError) -> bool:
    """Whether there is no room for what the database was told; it may answer what it is asked all the same."""
    return _state(error) == FULL or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL


def _is_damaged(error: DBAPIError) -> bool:
    """Whether what is kept cannot be read, or never was a database."""
    code = getattr(error.orig, "sqlite_errorcode", None)
    return _state(error) in DAMAGED or (code is not None and code & 0xFF in SQLITE_DAMAGED)


def _is_outage(error: DBAPIError) -> bool:
    """Whether the database could not be used at all, in place of refusing what it was told."""
    if (state := _state(error)) == NOT_TEXT:
        return False
    # PostgreSQL: connection, read-only after a failover, deadlock, locks, resources, operator intervention, system,
    # rights. SQLite: locked, or not to be opened.
    # 28: who asks. 3D: a database that is not there.
    classes = ("08", "25", "28", "3D", "40", "42", "53", "55", "57", "58")
    return state[:2] in classes or type(error).__name__ in ("OperationalError", "InterfaceError")


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _url(settings: DatabaseSettings) -> URL:
    try:
        url = make_url(settings.url.get_secret_value())
    except ArgumentError:
        raise ConfigError("MILLRACE_INFERENCE_DATABASE_URL (a secret): is no URL") from None
    if url.drivername in ("postgres", "postgresql"):
        # As hosts hand their databases out, in the terms of another driver.
        url = url.set(drivername="postgresql+asyncpg")
        if mode := url.query.get("sslmode"):
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    if url.drivername not in ("sqlite+aiosqlite", "postgresql+asyncpg"):
        allowed = "sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/NAME"
        raise ConfigError(f"MILLRACE_INFERENCE_DATABASE_URL: {url.drivername!r} is not supported: use {allowed}")
    return url


def _sqlite(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    options: dict[str, Any] = {"hide_parameters": True}  # prompts and hashes of keys are no matter for a log
    if url.database and url.database != ":memory:":
        options |= {"pool_size": settings.pool_size, "max_overflow": 0, "pool_timeout": settings.timeout_s}
        # What one connection writes the others have to read anew: so one does what it can by itself.
        options["pool_use_lifo"] = True
        try:
            _make_private(Path(url.database))
        except OSError as error:
            raise ConfigError(f"MILLRACE_INFERENCE_DATABASE_URL: {url.database}: {error.strerror}") from None
    engine = create_async_engine(url, **options)

    @event.listens_for(engine.sync_engine, "do_connect")
    def open_it(dialect: Any, entry: ConnectionPoolEntry, positional: list[Any], options: dict[str, Any]) -> None:
        options["async_creator_fn"] = open_sqlite

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        cursor = connection.cursor()
        for pragma in SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma.format(timeout_ms=int(settings.timeout_s * 1000))}")
        _write_ahead(cursor)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that began as a reader would be refused at once where another has written meanwhile.
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(READS) else "BEGIN IMMEDIATE")

    return engine


def _make_private(path: Path) -> None:
    """Makes the file where there is none: it will have prompts and hashes of passwords, which are no matter for others.

    What SQLite keeps beside a file it keeps as private as that.

    Raises:
        OSError: It is there and cannot be used, by this user at least: waiting would not mend that.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
    elif path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    elif not os.access(path, os.R_OK | os.W_OK):  # not by opening it: closing it again would end SQLite's own locks
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _write_ahead(cursor: Any) -> None:
    """Has a database keep a write-ahead log, within the time that the caller has.

    Of several that find it without one SQLite turns all but one away at once, whatever time they have to wait.
    """
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # or one of its kinds
                raise
        await_only(asyncio.sleep(SQLITE_AGAIN_S))


def _postgresql(url: URL, settings: DatabaseSettings) -> AsyncEngine:
    return create_async_engine(
        url,
        hide_parameters=True,
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.timeout_s,
        pool_pre_ping=True,
        connect_args={
            "timeout": settings.timeout_s,
            "server_settings": {
                "application_name": "millrace-inference",
                "statement_timeout": str(int(settings.timeout_s * 1000)),  # the server, too, stops what nobody awaits
            },
        },
    )
