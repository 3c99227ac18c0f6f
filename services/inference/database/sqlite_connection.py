"""A connection to SQLite whose worker is stopped once.

SQLAlchemy ends a connection whose statement was cancelled twice at a time: it closes it and, cancelled again, stops it
(`AsyncAdapt_terminate.terminate`). aiosqlite then asks a worker that has ended to stop, and waits for its answer for
ever: a task that no loop can end, and a process that never leaves.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite

ROWS_AT_ONCE = 64  # aiosqlite's own


class SqliteConnection(aiosqlite.Connection):
    """What `aiosqlite.connect` gives, safe to stop more than once."""

    _stopping: asyncio.Future[Any] | None = None
    _stopped = False

    def stop(self) -> asyncio.Future[Any] | None:
        """Asks the worker to stop, where nobody has.

        Returns: What ends with the worker; None where no loop runs that could wait for it.
        """
        if not self._stopped:
            self._stopped = True
            self._stopping = super().stop()
        return self._stopping


def open_sqlite(database: str | Path, **options: Any) -> SqliteConnection:
    """Makes a connection, opened when it is awaited.

    Args:
        database: The file.
        options: As `sqlite3.connect` takes them.
    """
    connection = SqliteConnection(lambda: sqlite3.connect(database, **options), ROWS_AT_ONCE)
    connection._thread.daemon = True  # as SQLAlchemy sets it: a process does not wait for an idle worker
    return connection
