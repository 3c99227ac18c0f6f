"""The ledger's rows in the database: how they get in, and how old ones get out.

Inserting is idempotent by id, on both databases, and the sums grow by what was really inserted, in the same
transaction. Deleting goes in small steps, so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from sqlalchemy import Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.inference.database.database import Database
from services.inference.ledger import tables
from services.inference.ledger.row import AttemptRow, Entry, RequestRow, first_id
from services.inference.ledger.sqlite_rows import SqliteRows

HOUR_MS = 3_600_000
DELETED_AT_ONCE = 1_000
SUM_KEY = ("hour_time_ms", "tenant", "principal", "key_id", "key_name", "model")
COUNTS = [column.name for column in tables.usage.c if column.name not in SUM_KEY]
Sums = dict[tuple[Any, ...], dict[str, Any]]


class LedgerStore:
    """Writes the ledger of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Made once: making a statement costs as much as twenty rows of it.
        dialect = sqlite if database.is_sqlite else postgresql
        self._sqlite_requests = SqliteRows(tables.requests) if database.is_sqlite else None
        self._sqlite_attempts = SqliteRows(tables.attempts) if database.is_sqlite else None
        requests = dialect.insert(tables.requests).on_conflict_do_nothing()
        self._insert_requests = requests.returning(tables.requests.c.id)
        self._insert_attempts = dialect.insert(tables.attempts).on_conflict_do_nothing()
        self._insert_texts = dialect.insert(tables.texts).on_conflict_do_nothing()
        sums = dialect.insert(tables.usage)
        grown = {name: tables.usage.c[name] + sums.excluded[name] for name in COUNTS}
        self._add_sums = sums.on_conflict_do_update(index_elements=SUM_KEY, set_=grown)

    async def insert(self, entries: Sequence[Entry]) -> None:
        """Inserts what is not there yet.

        Raises:
            Unavailable: The database does not answer.
        """
        async with self._database.writing() as connection:
            fresh = await self._insert_new(connection, [entry.request for entry in entries])
            new = {row.id for row in fresh}
            if not new:
                return
            entries = [entry for entry in entries if entry.request.id in new]
            await self._insert_made(connection, [one for entry in entries for one in entry.attempts])
            texts = [
                {"id": entry.request.id, "prompt": entry.prompt, "completion": entry.completion}
                for entry in entries
                if entry.prompt is not None
            ]
            if texts:
                await connection.execute(self._insert_texts, texts)
            await self._add_up(connection, fresh)

    async def delete_before(self, table: Table, time_ms: int) -> int:
        """Deletes some rows older than an instant and returns how many; fewer than DELETED_AT_ONCE: all of them.

        Raises:
            Unavailable: The database does not answer.
        """
        old = select(table.c.id).where(table.c.id < first_id(time_ms)).order_by(table.c.id).limit(DELETED_AT_ONCE)
        async with self._database.writing() as connection:
            ids = (await connection.execute(old)).scalars().all()
            if ids:
                await connection.execute(delete(table).where(table.c.id.in_(ids)))
        return len(ids)

    async def _insert_new(self, connection: AsyncConnection, rows: Sequence[RequestRow]) -> Sequence[RequestRow]:
        """Inserts the requests that are not there yet, and returns those."""
        if self._sqlite_requests:
            return await self._sqlite_requests.insert_new(connection, rows)
        found = await connection.execute(self._insert_requests, [msgspec.structs.asdict(row) for row in rows])
        new = set(found.scalars())
        return [row for row in rows if row.id in new]

    async def _insert_made(self, connection: AsyncConnection, attempts: Sequence[AttemptRow]) -> None:
        """Inserts the attempts that requests have made."""
        if self._sqlite_attempts:
            await self._sqlite_attempts.insert(connection, attempts)
        elif attempts:
            await connection.execute(self._insert_attempts, [msgspec.structs.asdict(row) for row in attempts])

    async def _add_up(self, connection: AsyncConnection, rows: Iterable[RequestRow]) -> None:
        # In one order everywhere, so that two who add to the same sums wait for each other and never for ever.
        await connection.execute(self._add_sums, sorted(sums_of(rows).values(), key=itemgetter(*SUM_KEY)))


def sums_of(rows: Iterable[RequestRow]) -> Sums:
    """What requests add to the sums of their hours."""
    sums: Sums = {}
    for row in rows:
        hour = row.created_time_ms - row.created_time_ms % HOUR_MS
        key = (hour, row.tenant, row.principal, row.key_id, row.key_name, row.model)
        line = sums.get(key)
        if line is None:
            line = sums[key] = {**dict(zip(SUM_KEY, key, strict=True)), **dict.fromkeys(COUNTS, 0)}
        line["request_count"] += 1
        line["failed_request_count"] += row.outcome in ("failed", "lost")
        line["prompt_token_count"] += row.prompt_token_count or 0
        line["completion_token_count"] += row.completion_token_count or 0
        line["cached_prompt_token_count"] += row.cached_prompt_token_count or 0
        line["cache_hit_count"] += row.cache_outcome in ("exact", "semantic", "stale")
        line["cache_miss_count"] += row.cache_outcome in ("miss", "unavailable")
        line["blocked_count"] += row.outcome == "blocked" or row.safety_verdict == "block"
        line["cost_micro_usd"] += row.cost_micro_usd or 0
        line["unpriced_request_count"] += row.cost_micro_usd is None
    return sums
