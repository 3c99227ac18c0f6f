"""History: what the ledger tells of the past, to whom it may: pages of requests, and sums over spans of time.

A page is found by the id where the last one ended, so that the thousandth costs what the first does. Sums come from the
sums by the hour. What this process has recorded is shipped first, so that a caller finds what it has just done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, select

from services.inference.database.database import Database
from services.inference.ledger import tables
from services.inference.ledger.row import first_id
from services.inference.ledger.store import COUNTS, HOUR_MS

RECENT_COUNT = 1_000  # requests that percentiles are taken of
LINES_MAX = 10_000  # of one report

Row = dict[str, Any]


class Scope(msgspec.Struct, frozen=True):
    """Whose rows are meant; None means everybody's. Times are milliseconds since the epoch, the end is exclusive."""

    tenant: str | None = None
    principal: str | None = None
    key_id: str | None = None
    model: str | None = None
    start_ms: int | None = None
    end_ms: int | None = None


class History:
    """Reads the ledger.

    Args:
        database: Where it is.
        flush: Ships what was recorded here.
    """

    def __init__(self, database: Database, flush: Callable[[], Awaitable[None]]) -> None:
        self._database, self._flush = database, flush

    async def page(self, scope: Scope, size: int, before: str | None) -> list[Row]:
        """Some requests, newest first, each with its `attempts` and, where they are kept, `prompt` and `completion`.

        Args:
            scope: Whose.
            size: Most to return.
            before: Id of the last one of the page before.
        Raises:
            Unavailable: The database does not answer.
        """
        await self._flush()
        requests = tables.requests
        query = _within(select(requests), scope)
        if before is not None:
            query = query.where(requests.c.id < before)
        async with self._database.reading() as connection:
            found = await connection.execute(query.order_by(requests.c.id.desc()).limit(size))
            entries = [dict(row) for row in found.mappings()]
            by_id = {entry["id"]: entry for entry in entries}
            for entry in entries:
                entry.update(attempts=[], prompt="", completion="")
            made = select(tables.attempts).where(tables.attempts.c.id.in_(by_id)).order_by(tables.attempts.c.number)
            for attempt in (await connection.execute(made)).mappings():
                by_id[attempt["id"]]["attempts"].append(attempt)
            kept = select(tables.texts).where(tables.texts.c.id.in_(by_id))
            for text in (await connection.execute(kept)).mappings():
                by_id[text["id"]].update(prompt=text["prompt"], completion=text["completion"])
        return entries

    async def sums(self, scope: Scope, width_ms: int | None = None, by: Sequence[str] = ()) -> list[Row]:
        """Sums of what was used, by span of time and by what else is asked for; whole hours, the end rounded up.

        Args:
            scope: Whose, and when.
            width_ms: Length of the spans, a multiple of an hour; None: all time together.
            by: Columns: tenant, principal, key_id, key_name, model.
        Returns:
            Lines with `start_time_ms` (0 where all time is together), the columns of `by` and the sums, in order.
        Raises:
            Unavailable: The database does not answer.
        """
        await self._flush()
        usage = tables.usage.c
        start = (usage.hour_time_ms - usage.hour_time_ms % width_ms) if width_ms else 0 * func.min(usage.hour_time_ms)
        lines = [usage[name] for name in by]
        query = select(start.label("start_time_ms"), *lines, *(_sum(usage[name]).label(name) for name in COUNTS))
        for name in ("tenant", "principal", "key_id", "model"):
            if (value := getattr(scope, name)) is not None:
                query = query.where(usage[name] == value)
        if scope.start_ms is not None:
            query = query.where(usage.hour_time_ms >= scope.start_ms - scope.start_ms % HOUR_MS)
        if scope.end_ms is not None:
            query = query.where(usage.hour_time_ms < scope.end_ms)
        if width_ms:
            query = query.group_by(start, *lines).order_by(start, *lines)
        elif lines:
            query = query.group_by(*lines).order_by(*lines)
        async with self._database.reading() as connection:
            found = (await connection.execute(query.limit(LINES_MAX))).mappings().all()
        return [dict(line) for line in found if line["request_count"]]

    async def recent(self, scope: Scope) -> tuple[list[float], list[float]]:
        """Durations and times to the first token of recent requests, in milliseconds.

        Raises:
            Unavailable: The database does not answer.
        """
        requests = tables.requests
        columns = select(requests.c.duration_ms, requests.c.ttft_ms)
        query = _within(columns, scope).order_by(requests.c.id.desc()).limit(RECENT_COUNT)
        async with self._database.reading() as connection:
            found = (await connection.execute(query)).all()
        return [one[0] for one in found if one[0] is not None], [one[1] for one in found if one[1] is not None]


def _sum(column: ColumnElement[int]) -> ColumnElement[int]:
    """The sum of whole numbers as one: PostgreSQL's is a decimal, which no field of a message takes."""
    return cast(func.sum(column), BigInteger)


def _within(query: Select[Any], scope: Scope) -> Select[Any]:
    columns = tables.requests.c
    for name in ("tenant", "principal", "key_id", "model"):
        if (value := getattr(scope, name)) is not None:
            query = query.where(columns[name] == value)
    if scope.start_ms is not None:
        query = query.where(columns.id >= first_id(scope.start_ms))
    if scope.end_ms is not None:
        query = query.where(columns.id < first_id(scope.end_ms))
    return query
