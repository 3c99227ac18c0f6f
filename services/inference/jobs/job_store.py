"""Jobs in the database, for their makers: accepted, read, followed, cancelled and forgotten.

Every method looks at its caller's own jobs only: another's job is NotFound, as one that never was. What workers do is
in `item_store`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.errors import NotFound, ResourceExhausted
from kit.identity import Caller
from services.inference.database.database import Database
from services.inference.jobs.job import Item, Job, JobEvent, NewItem, NewJob, State, new_id, now_ms
from services.inference.jobs.rows import JOB_COLUMNS, caller_json, count_ends, encode_labels, item_of, job_of, job_row
from services.inference.jobs.tables import events, items, jobs

INSERT_COUNT = 500  # rows to a statement: few round trips, and no statement of many megabytes
PAGE_COUNT = 100  # items to a page of a read: an answer is some kilobytes
UPLOAD_TIMEOUT_S = 120.0  # for 50,000 items; a transaction like any other takes milliseconds
RETRY_AFTER_MS = 5_000  # somewhere among thousands of jobs one ends every few seconds
ALL_STATES = tuple(State)
PENDING = [int(state) for state in State if not state.is_ended]
ITEM_COLUMNS = (items.c.idx, items.c.label, items.c.state, items.c.result, items.c.attachment)


class JobStore:
    """The jobs of a database.

    Args:
        database: Where they are.
        ttl_s: How long a job is kept, from its acceptance.
        pending_count_max: Jobs of one caller that may wait or run.
        clock: Seconds since the epoch.
    """

    def __init__(
        self, database: Database, ttl_s: float, pending_count_max: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._database, self._ttl_ms, self._clock = database, int(ttl_s * 1000), clock
        self._pending_count_max = pending_count_max

    async def create(self, new: NewJob, given: Sequence[NewItem]) -> Job:
        """Accepts a job, durable and whole; the same request id of the same caller gives the same job.

        Raises:
            ResourceExhausted: Too many of the caller's jobs wait or run (JOBS_LIMITED). Calls that come at the same
                moment may each see room for the last one.
            Unavailable: The database does not answer.
        """
        now = now_ms(self._clock)
        job_id = new_id(now)
        refused_count = sum(one.result is not None for one in given)
        row = _new_row(new, job_id, now, len(given), self._ttl_ms)
        dialect = sqlite if self._database.is_sqlite else postgresql
        unless_known = dialect.insert(jobs).values(row).on_conflict_do_nothing().returning(jobs.c.job_id)
        async with self._database.writing(UPLOAD_TIMEOUT_S) as connection:
            if await connection.scalar(unless_known) is None:
                return await _known(connection, new)
            await self._check_room(connection, new.caller)
            for start in range(0, len(given), INSERT_COUNT):
                rows = [_new_item(job_id, start + i, one) for i, one in enumerate(given[start : start + INSERT_COUNT])]
                await connection.execute(insert(items), rows)
            if refused_count:
                await count_ends(connection, job_id, now, failed=refused_count)
            job = await job_row(connection, job_id)
        assert job
        return job

    async def _check_room(self, connection: AsyncConnection, caller: Caller) -> None:
        """Undoes the transaction where the caller has one job too many in it."""
        most = self._pending_count_max
        own = (jobs.c.tenant == caller.tenant, jobs.c.principal == caller.principal)
        pending = select(jobs.c.job_id).where(*own, jobs.c.state.in_(PENDING)).limit(most + 1).subquery()
        if (await connection.scalar(select(func.count()).select_from(pending)) or 0) > most:
            raise ResourceExhausted(
                "JOBS_LIMITED",
                f"{most:,} of your jobs wait or run, the most allowed (JOBS_PENDING_COUNT_MAX); retry when one ends",
                retry_after_ms=RETRY_AFTER_MS,
            )

    async def get(self, caller: Caller, job_id: str) -> Job:
        """A job.

        Raises:
            NotFound: The caller has none of this id (JOB_NOT_FOUND).
        """
        async with self._database.reading() as connection:
            return await _own(connection, caller, job_id)

    async def page(self, caller: Caller, kind: str, count: int, before: str) -> list[Job]:
        """The caller's jobs of a kind, or all, newest first, older than the one of id `before`."""
        wanted = [jobs.c.tenant == caller.tenant, jobs.c.principal == caller.principal]
        wanted += [jobs.c.kind == kind] if kind else []
        wanted += [jobs.c.job_id < before] if before else []
        statement = select(*JOB_COLUMNS).where(*wanted).order_by(jobs.c.job_id.desc()).limit(count)
        async with self._database.reading() as connection:
            return [job_of(row) for row in await connection.execute(statement)]

    async def read(
        self, caller: Caller, job_id: str, start: int = 0, states: Sequence[State] = ALL_STATES
    ) -> AsyncIterator[list[Item]]:
        """The items of a job from an index on, as they are now, in pages."""
        await self.get(caller, job_id)
        while True:
            wanted = (items.c.job_id == job_id, items.c.idx >= start, items.c.state.in_([int(one) for one in states]))
            statement = select(*ITEM_COLUMNS).where(*wanted).order_by(items.c.idx).limit(PAGE_COUNT)
            async with self._database.reading() as connection:
                page = [item_of(row) for row in await connection.execute(statement)]
            if page:
                yield page
            if len(page) < PAGE_COUNT:
                return
            start = page[-1].index + 1

    async def item(self, job_id: str, index: int) -> Item | None:
        """One item of a job that the caller has got already; None where it has been forgotten."""
        statement = select(*ITEM_COLUMNS).where(items.c.job_id == job_id, items.c.idx == index)
        async with self._database.reading() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else item_of(row)

    async def events(self, job_id: str, after: int, count: int) -> list[JobEvent]:
        """Events after a sequence number, in order, of a job that the caller has got already."""
        columns = (events.c.sequence, events.c.idx, events.c.payload)
        wanted = (events.c.job_id == job_id, events.c.sequence > after)
        statement = select(*columns).where(*wanted).order_by(events.c.sequence).limit(count)
        async with self._database.reading() as connection:
            return [JobEvent(*row) for row in await connection.execute(statement)]

    async def cancel(self, caller: Caller, job_id: str) -> Job:
        """Cancels what has not ended: queued items at once, running ones as soon as their workers learn of it.

        Raises:
            NotFound: The caller has none of this id (JOB_NOT_FOUND).
        """
        now = now_ms(self._clock)
        async with self._database.writing() as connection:
            job = await _own(connection, caller, job_id)
            if job.state.is_ended or job.cancel_ms is not None:
                return job
            # Items before their job, as workers take them: two orders would be a deadlock.
            queued = (items.c.job_id == job_id, items.c.state == State.QUEUED)
            cancelled = update(items).where(*queued).values(state=int(State.CANCELLED))
            count = (await connection.execute(cancelled)).rowcount
            await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(cancel_ms=now))
            await count_ends(connection, job_id, now, failed=count)
            cancelled_job = await job_row(connection, job_id)
        assert cancelled_job
        return cancelled_job

    async def delete(self, caller: Caller, job_id: str) -> None:
        """Forgets a job, its items and its events; whoever works on it finds it gone.

        Raises:
            NotFound: The caller has none of this id (JOB_NOT_FOUND).
        """
        async with self._database.writing() as connection:
            await _own(connection, caller, job_id)
            await forget(connection, jobs.c.job_id == job_id)


async def forget(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Deletes jobs with all that belongs to them."""
    ids = list(await connection.scalars(select(jobs.c.job_id).where(which)))
    for table in (events, items, jobs) if ids else ():
        await connection.execute(delete(table).where(table.c.job_id.in_(ids)))


async def _own(connection: AsyncConnection, caller: Caller, job_id: str) -> Job:
    job = await job_row(connection, job_id)
    if job is None or (job.tenant, job.principal) != (caller.tenant, caller.principal):
        raise NotFound("JOB_NOT_FOUND", f"there is no job {job_id[:64]!r} of yours")
    return job


async def _known(connection: AsyncConnection, new: NewJob) -> Job:
    """The job that the same caller made by the same request id."""
    same = (
        jobs.c.tenant == new.caller.tenant,
        jobs.c.principal == new.caller.principal,
        jobs.c.request_id == new.request_id,
    )
    return job_of((await connection.execute(select(*JOB_COLUMNS).where(*same))).one())


def _new_row(new: NewJob, job_id: str, now: int, item_count: int, ttl_ms: int) -> dict[str, object]:
    return {
        "job_id": job_id,
        "tenant": new.caller.tenant,
        "principal": new.caller.principal,
        "request_id": new.request_id,
        "caller": caller_json(new.caller),
        "kind": new.kind,
        "labels": encode_labels(new.labels),
        "keep_events": new.keep_events,
        "state": int(State.QUEUED),
        "item_count": item_count,
        "completed_count": 0,
        "failed_count": 0,
        "expired_count": 0,
        "event_count": 0,
        "created_ms": now,
        "deadline_ms": now + int(new.time_max_s * 1000),
        "expire_ms": now + ttl_ms,
        "served_ms": 0,
    }


def _new_item(job_id: str, index: int, given: NewItem) -> dict[str, object]:
    return {
        "job_id": job_id,
        "idx": index,
        "label": given.label,
        "work": given.work,
        "attachment": given.attachment,
        "state": int(State.QUEUED if given.result is None else State.FAILED),
        "result": given.result,
        "try_count": 0,
        "ready_ms": 0,
        "lease_id": "",
        "lease_ms": 0,
    }
