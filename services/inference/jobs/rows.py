"""Between rows and nouns, and the two statements that both stores of jobs share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.identity import Caller
from services.inference.jobs.job import Item, Job, State
from services.inference.jobs.tables import events, jobs

JOB_COLUMNS = [jobs.c[name] for name in Job.__struct_fields__]


def job_of(row: Row[*tuple[Any, ...]]) -> Job:
    """A job."""
    values = dict(row._mapping)
    values["labels"] = msgspec.json.decode(values["labels"], type=dict[str, str])
    values["state"] = State(values["state"])
    return Job(**values)


def item_of(row: Row[*tuple[Any, ...]]) -> Item:
    """An item."""
    return Item(row.idx, row.label, State(row.state), row.result, row.attachment)


def encode_labels(labels: dict[str, str]) -> str:
    """Labels as text."""
    return msgspec.json.encode(labels).decode()


def caller_json(caller: Caller) -> str:
    """A caller as text."""
    return msgspec.json.encode(caller).decode()


def caller_of(text: str) -> Caller:
    """A caller from its text."""
    return msgspec.json.decode(text, type=Caller)


async def append_events(
    connection: AsyncConnection, job_id: str, happened: Sequence[tuple[int | None, bytes | None]]
) -> None:
    """Appends events, numbered without gaps: the job's row is the lock."""
    statement = update(jobs).where(jobs.c.job_id == job_id).values(event_count=jobs.c.event_count + len(happened))
    last = await connection.scalar(statement.returning(jobs.c.event_count))
    if last is None:  # the job has been forgotten
        return
    first = last - len(happened) + 1
    rows = [
        {"job_id": job_id, "sequence": first + offset, "idx": index, "payload": payload}
        for offset, (index, payload) in enumerate(happened)
    ]
    await connection.execute(insert(events), rows)


async def count_ends(
    connection: AsyncConnection, job_id: str, now_ms: int, completed: int = 0, failed: int = 0, expired: int = 0
) -> None:
    """Counts items that have ended; with the last of them the job ends as well."""
    counts = {
        "completed_count": jobs.c.completed_count + completed,
        "failed_count": jobs.c.failed_count + failed + expired,
        "expired_count": jobs.c.expired_count + expired,
    }
    counted = update(jobs).where(jobs.c.job_id == job_id).values(counts).returning(*jobs.c)
    row = (await connection.execute(counted)).one_or_none()
    if row is None or row.completed_count + row.failed_count < row.item_count:
        return
    ended = {"state": int(_ending(row)), "ended_ms": now_ms}
    await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(ended))
    await append_events(connection, job_id, [(None, None)])


def _ending(row: Row[*tuple[Any, ...]]) -> State:
    """How a job has ended: what came to cut it short counts only where it cut something."""
    if row.failed_count and row.cancel_ms is not None:
        return State.CANCELLED
    return State.EXPIRED if row.expired_count else State.COMPLETED


async def job_row(connection: AsyncConnection, job_id: str) -> Job | None:
    """A job, whosever it is."""
    row = (await connection.execute(select(*JOB_COLUMNS).where(jobs.c.job_id == job_id))).one_or_none()
    return None if row is None else job_of(row)
