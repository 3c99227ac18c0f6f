"""Rows into SQLite past SQLAlchemy, whose handling of parameters costs more than SQLite does for the row.

The statement and the way values are stored are SQLAlchemy's own, asked for once; only the rows do not go through it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")
# Rows of one statement: for each one SQLite's thread lets the interpreter go and waits to have it back, and wakes the
# event loop's for it, which costs more than the row does. SQLite was once built for 999 parameters at most.
AT_ONCE = 16


class SqliteRows:
    """Inserts structs whose fields are the columns of a table; in transactions that hold the lock of writers.

    Args:
        table: Where to; its first column is `id`.
    """

    def __init__(self, table: Table) -> None:
        dialect = sqlite.dialect()
        self._known = f"SELECT id FROM {table.name} WHERE id IN (SELECT value FROM json_each(?))"
        self._insert = str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=dialect))
        one = f"({', '.join('?' * len(table.c))})"
        assert self._insert.count(one) == 1
        self._insert_many = self._insert.replace(one, ", ".join([one] * AT_ONCE))
        self._values = attrgetter(*(column.name for column in table.c))
        processors = (column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.c)
        self._processors = [(index, process) for index, process in enumerate(processors) if process]

    async def insert(self, connection: AsyncConnection, structs: Sequence[object]) -> None:
        """Inserts what is not there yet."""
        await self._insert_rows(connection, [self._row(one) for one in structs])

    async def insert_new(self, connection: AsyncConnection, structs: Sequence[T]) -> list[T]:
        """Inserts what is not there yet, and returns that."""
        rows = [self._row(one) for one in structs]
        ids = json.dumps([row[0] for row in rows])
        known = set((await connection.exec_driver_sql(self._known, (ids,))).scalars())
        new = [index for index, row in enumerate(rows) if row[0] not in known]
        await self._insert_rows(connection, [rows[index] for index in new])
        return [structs[index] for index in new]

    async def _insert_rows(self, connection: AsyncConnection, rows: Sequence[tuple[Any, ...]]) -> None:
        whole = len(rows) - len(rows) % AT_ONCE
        many = [tuple(chain.from_iterable(rows[at : at + AT_ONCE])) for at in range(0, whole, AT_ONCE)]
        if many:
            await connection.exec_driver_sql(self._insert_many, many)
        if rows[whole:]:
            await connection.exec_driver_sql(self._insert, list(rows[whole:]))

    def _row(self, struct: object) -> tuple[Any, ...]:
        values = list(self._values(struct))
        for index, process in self._processors:
            values[index] = process(values[index])
        return tuple(values)
