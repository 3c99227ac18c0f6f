"""The database, table by table: rows as JSON lines, from one moment, whatever the database.

Rows and not a copy of files or `pg_dump`: what SQLite kept can go to PostgreSQL and back, an older release's backup can
be restored by a newer one, and every row can be read with zcat. The readers hold no lock that a writer waits for.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from sqlalchemy import Column, LargeBinary, Table, inspect, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

import services.inference
from cli.backup.archive import DatabasePart, PartWriter, TablePart, reading
from cli.errors import CommandError
from services.inference.database.database import READS, Database
from services.inference.database.migrating import prepare, upgrade, version
from services.inference.database.schema import metadata

ROWS_AT_ONCE: Final = 1_000
# One row, which the migration makes: a database that has only this is empty.
MADE_BY_MIGRATIONS: Final = "access_state"

Told = Callable[[str, int], None]
"""Hears of a part's name and of how many of its rows are done."""


async def dump_tables(database: Database, folder: Path, told: Told) -> tuple[str, dict[str, TablePart]]:
    """Writes every table as it is at one moment; returns the schema's version and the parts.

    Raises:
        ConfigError: The schema is not this release's.
        Unavailable: The database does not answer.
    """
    await prepare(database, migrate=False)
    found = await version(database)
    tables, parts = every_table(), {}
    async with snapshot(database) as connection:
        for table in tables:
            writer = PartWriter(folder / f"{table.name}.jsonl.gz")
            rows = await connection.stream(select(table).order_by(*table.primary_key.columns))
            async for page in rows.partitions(ROWS_AT_ONCE):
                for row in page:
                    writer.write(msgspec.json.encode(list(row)) + b"\n")
                writer.count += len(page)
                told(table.name, writer.count)
            told(table.name, writer.count)
            parts[str(table.name)] = TablePart([str(column.name) for column in table.columns], writer.close())
    assert found is not None
    return found, parts


async def is_empty(database: Database) -> bool:
    """Whether the database has nothing that anybody would miss.

    Raises:
        Unavailable: The database does not answer.
    """
    if await version(database) is None:
        return True
    async with database.reading() as connection:
        present = set(await connection.run_sync(lambda known: inspect(known).get_table_names()))
        for table in every_table():
            if table.name not in present or table.name == MADE_BY_MIGRATIONS:
                continue
            if (await connection.execute(select(table).limit(1))).first() is not None:
                return False
    return True


async def load_tables(database: Database, folder: Path, part: DatabasePart, told: Told) -> None:
    """Puts a backup's rows in place of those that are there, in one transaction, and brings the schema up to date.

    Raises:
        CommandError: The backup has a table or a column that this release does not know.
        Unavailable: The database does not answer.
    """
    await upgrade(database)
    known = {table.name: table for table in every_table()}
    for name, table_part in part.tables.items():
        columns = {column.name for column in known[name].columns} if name in known else set()
        if unknown := [column for column in table_part.columns if column not in columns]:
            raise CommandError(f"the backup has {name}.{unknown[0]}, which this release does not know: use a newer one")
    async with database.engine.begin() as connection:
        await _without_timeout(database, connection)
        for table in known.values():
            if table.name in part.tables or table.name != MADE_BY_MIGRATIONS:
                await connection.execute(table.delete())
        for name, table_part in part.tables.items():
            with reading(folder, table_part.part) as file:
                count = 0
                for rows in _pages(file, known[name], table_part.columns):
                    await connection.execute(known[name].insert(), rows)
                    count += len(rows)
                    told(name, count)
            told(name, count)


@asynccontextmanager
async def snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection that sees the database as it is now until the end, and changes nothing."""
    await database.ping()  # an outage is told in the database's own way
    async with database.engine.connect() as connection:
        if database.is_sqlite:
            await connection.execution_options(**{READS: True})
        else:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        await _without_timeout(database, connection)
        yield connection


async def _without_timeout(database: Database, connection: AsyncConnection) -> None:
    """Lets this transaction take the time that a large table needs."""
    if not database.is_sqlite:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))


def every_table() -> list[Table]:
    """Every table of the code, in an order in which rows may be inserted; each package declares its own."""
    folder = Path(next(iter(services.inference.__path__)))
    for module in sorted(folder.glob("*/tables.py")):
        import_module(f"services.inference.{module.parent.name}.tables")
    return metadata.sorted_tables


def _pages(file: BinaryIO, table: Table, names: list[str]) -> Iterator[list[dict[str, Any]]]:
    """The rows of a part, some at a time, as the table takes them."""
    columns: list[Column[Any]] = [table.columns[name] for name in names]
    binary = [isinstance(column.type, LargeBinary) for column in columns]
    while lines := list(islice(file, ROWS_AT_ONCE)):
        rows = (msgspec.json.decode(line) for line in lines)
        yield [
            {
                name: base64.b64decode(value) if is_binary and value is not None else value
                for name, value, is_binary in zip(names, row, binary, strict=True)
            }
            for row in rows
        ]
