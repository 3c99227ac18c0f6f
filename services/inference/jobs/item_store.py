"""Items of jobs in the database, for workers: claimed under a lease, told of, ended once, and found again.

An item is claimed by one worker at a time. A lease that is not renewed runs out, and the item is claimed anew: so it is
done at least once. Only the holder of the lease ends it: so exactly one outcome is recorded.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from services.inference.database.database import Database
from services.inference.jobs.job import Claim, Outcome, State, now_ms
from services.inference.jobs.job_store import forget
from services.inference.jobs.rows import append_events, caller_of, count_ends
from services.inference.jobs.tables import chunks, files, items, jobs

SWEEP_COUNT = 100  # jobs or items that one look puts right: short transactions
Instant = int | BindParameter[int]
_COUNTED = {State.COMPLETED: "completed", State.EXPIRED: "expired"}


class Lease(Enum):
    """How a claim stands when it is renewed."""

    HELD = 1
    LOST = 2
    CANCELLED = 3


class ItemStore:
    """The items of a database.

    Args:
        database: Where they are.
        lease_s: How long a claim holds without being renewed.
        clock: Seconds since the epoch.
    """

    def __init__(self, database: Database, lease_s: float, clock: Callable[[], float] = time.time) -> None:
        self._database, self._lease_ms, self._clock = database, int(lease_s * 1000), clock

    async def claim(self) -> Claim | None:
        """Takes the next item, of the job that has waited longest for its turn; None where nothing is to be done."""
        now = now_ms(self._clock)
        lease_id = secrets.token_hex(16)
        async with self._database.writing() as connection:
            job = (await connection.execute(_next_job(now))).one_or_none()
            if job is None:
                return None
            taken = (
                update(items)
                .where(items.c.job_id == job.job_id, items.c.idx == _next_index(job.job_id, now))
                .values(
                    state=int(State.RUNNING),
                    try_count=items.c.try_count + 1,
                    lease_id=lease_id,
                    lease_ms=now + self._lease_ms,
                )
            )
            item = (await connection.execute(taken.returning(*items.c))).one_or_none()
            if item is None:  # another worker was faster
                return None
            begun = {"served_ms": now, "state": int(State.RUNNING), "started_ms": func.coalesce(jobs.c.started_ms, now)}
            await connection.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(begun))
        caller = caller_of(job.caller)
        return Claim(
            job.job_id, item.idx, item.work, caller, lease_id, item.try_count, job.deadline_ms, job.keep_events
        )

    async def renew(self, claim: Claim) -> Lease:
        """Holds a claim for longer; tells where it has been lost or its job cancelled."""
        until = now_ms(self._clock) + self._lease_ms
        async with self._database.writing() as connection:
            held = await connection.execute(update(items).where(_held(claim)).values(lease_ms=until))
            if not held.rowcount:
                return Lease.LOST
            cancelled = select(jobs.c.cancel_ms).where(jobs.c.job_id == claim.job_id)
            return Lease.HELD if await connection.scalar(cancelled) is None else Lease.CANCELLED

    async def tell(self, claim: Claim, payloads: Sequence[bytes]) -> bool:
        """Appends steps of the item to its job's events; False where the claim has been lost."""
        async with self._database.writing() as connection:
            if await connection.scalar(select(items.c.idx).where(_held(claim))) is None:
                return False
            await append_events(connection, claim.job_id, [(claim.index, payload) for payload in payloads])
        return True

    async def end(self, claim: Claim, outcome: Outcome, payloads: Sequence[bytes] = ()) -> bool:
        """Records an outcome with the last steps; False where the claim has been lost, and nothing was recorded."""
        now = now_ms(self._clock)
        ended = {"state": int(outcome.state), "result": outcome.result, "lease_id": ""}
        async with self._database.writing() as connection:
            if not (await connection.execute(update(items).where(_held(claim)).values(ended))).rowcount:
                return False
            happened: list[tuple[int | None, bytes | None]] = [(claim.index, payload) for payload in payloads]
            await append_events(connection, claim.job_id, [*happened, (claim.index, None)])
            await count_ends(connection, claim.job_id, now, **{_COUNTED.get(outcome.state, "failed"): 1})
        return True

    async def give_back(self, claim: Claim, after_s: float = 0.0, *, is_a_try: bool = True) -> None:
        """Puts an item back into the queue, to be claimed again `after_s` from now."""
        ready_ms = now_ms(self._clock) + int(after_s * 1000)
        back: dict[str, Any] = {"state": int(State.QUEUED), "lease_id": "", "ready_ms": ready_ms}
        if not is_a_try:
            back["try_count"] = items.c.try_count - 1
        async with self._database.writing() as connection:
            await connection.execute(update(items).where(_held(claim)).values(back))

    async def sweep(self) -> int:
        """Puts right what nobody did: lost leases, deadlines, what is to be forgotten. Returns the items to be done."""
        now = now_ms(self._clock)
        ready_count, is_due = await self._look(now)
        if not is_due:  # as nearly always: one question in place of eight statements, and no writer waits
            return ready_count
        async with self._database.writing() as connection:
            await _requeue(connection, now)
            await _end_queued(connection, now, _is_overdue(now), State.EXPIRED)
            await _end_queued(connection, now, jobs.c.cancel_ms.is_not(None), State.CANCELLED)
            await forget(connection, jobs.c.job_id.in_(_first(jobs.c.job_id, jobs.c.expire_ms < now)))
            old = _first(files.c.file_id, files.c.expire_ms < now)
            await connection.execute(delete(chunks).where(chunks.c.file_id.in_(old)))
            await connection.execute(delete(files).where(files.c.file_id.in_(old)))
        return (await self._look(now))[0]

    async def _look(self, now: int) -> tuple[int, bool]:
        """How many items are to be done, as far as they are counted, and whether there is anything to put right."""
        async with self._database.reading() as connection:
            found = (await connection.execute(_LOOK, {"now": now})).one()
        return int(found.ready_count), bool(found.is_due)


def _first(column: Any, which: ColumnElement[bool]) -> Any:
    return select(column).where(which).limit(SWEEP_COUNT).scalar_subquery()


def _is_live() -> ColumnElement[bool]:
    return jobs.c.state.in_([int(State.QUEUED), int(State.RUNNING)])


def _is_wanted() -> ColumnElement[bool]:
    return and_(_is_live(), jobs.c.cancel_ms.is_(None))


def _is_ready(now: Instant) -> ColumnElement[bool]:
    return and_(items.c.state == int(State.QUEUED), items.c.ready_ms <= now)


def _is_lost(now: Instant) -> ColumnElement[bool]:
    return and_(items.c.state == int(State.RUNNING), items.c.lease_ms < now)


def _is_overdue(now: Instant) -> ColumnElement[bool]:
    return jobs.c.deadline_ms < now


def _held(claim: Claim) -> ColumnElement[bool]:
    return and_(
        items.c.job_id == claim.job_id,
        items.c.idx == claim.index,
        items.c.state == int(State.RUNNING),
        items.c.lease_id == claim.lease_id,
    )


def _next_job(now: int) -> Any:
    has_ready = exists().where(items.c.job_id == jobs.c.job_id, _is_ready(now))
    columns = (jobs.c.job_id, jobs.c.caller, jobs.c.deadline_ms, jobs.c.keep_events)
    return select(*columns).where(_is_wanted(), has_ready).order_by(jobs.c.served_ms).limit(1)


def _next_index(job_id: str, now: int) -> Any:
    first = select(items.c.idx).where(items.c.job_id == job_id, _is_ready(now)).order_by(items.c.idx).limit(1)
    return first.with_for_update(skip_locked=True).scalar_subquery()  # SQLite, where a writer is alone, knows no lock


async def _requeue(connection: AsyncConnection, now: int) -> None:
    """Queues items anew whose workers have died."""
    await connection.execute(
        update(items).where(_is_lost(now)).values(state=int(State.QUEUED), lease_id="", ready_ms=0)
    )


async def _end_queued(connection: AsyncConnection, now: int, which: ColumnElement[bool], state: State) -> None:
    """Ends items that still wait at their job's deadline, or were given back after it was cancelled."""
    for job_id in list(await connection.scalars(select(jobs.c.job_id).where(_is_live(), which).limit(SWEEP_COUNT))):
        waiting = and_(items.c.job_id == job_id, items.c.state == int(State.QUEUED))
        count = (await connection.execute(update(items).where(waiting).values(state=int(state)))).rowcount
        if count:
            await count_ends(connection, job_id, now, **{_COUNTED.get(state, "failed"): count})


def _looking() -> Select[tuple[int, bool]]:
    """One question for all that a look is for; it is made once, which takes longer than to answer it."""
    now: BindParameter[int] = bindparam("now", type_=BigInteger)
    wanted = select(items.c.idx).join(jobs, jobs.c.job_id == items.c.job_id).where(_is_wanted(), _is_ready(now))
    ready = select(func.count()).select_from(wanted.limit(SWEEP_COUNT).subquery()).scalar_subquery()
    is_due = or_(
        exists(select(items.c.idx).where(_is_lost(now))),
        exists(select(jobs.c.job_id).where(_is_live(), or_(_is_overdue(now), jobs.c.cancel_ms.is_not(None)))),
        exists(select(jobs.c.job_id).where(jobs.c.expire_ms < now)),
        exists(select(files.c.file_id).where(files.c.expire_ms < now)),
    )
    return select(ready.label("ready_count"), is_due.label("is_due"))


_LOOK = _looking()
