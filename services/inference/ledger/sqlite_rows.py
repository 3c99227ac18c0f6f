"""Rows into SQLite past SQLAlchemy, whose handling of parameters costs more than SQLite does for the row.

The statement and the way values are stored are SQLAlchemy's own, asked for once; only the rows do not go through it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class SqliteRows:
    """Inserts structs whose fields are the columns of a table; in transactions that hold the lock of writers.

    Args:
        table: Where to; its first column is `id`.
    """

    def __init__(self, table: Table) -> None:
        dialect = sqlite.dialect()
        self._known = f"SELECT id FROM {table.name} WHERE id IN (SELECT value FROM json_each(?))"
        self._insert = str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=dialect))
        self._values = attrgetter(*(column.name for column in table.c))
        processors = (column.type.dialect_impl(dialect).bind_processor(dialect) for column in table.c)
        self._processors = [(index, process) for index, process in enumerate(processors) if process]

    async def insert(self, connection: AsyncConnection, structs: Sequence[object]) -> None:
        """Inserts what is not there yet."""
        if structs:
            await connection.exec_driver_sql(self._insert, [self._row(one) for one in structs])

    async def insert_new(self, connection: AsyncConnection, structs: Sequence[T]) -> list[T]:
        """Inserts what is not there yet, and returns that."""
        rows = [self._row(one) for one in structs]
        ids = json.dumps([row[0] for row in rows])
        known = set((await connection.exec_driver_sql(self._known, (ids,))).scalars())
        new = [index for index, row in enumerate(rows) if row[0] not in known]
        if new:
            await connection.exec_driver_sql(self._insert, [rows[index] for index in new])
        return [structs[index] for index in new]

    def _row(self, struct: object) -> tuple[Any, ...]:
        values = list(self._values(struct))
        for index, process in self._processors:
            values[index] = process(values[index])
        return tuple(values)
