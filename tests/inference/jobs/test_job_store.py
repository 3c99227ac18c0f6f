"""Jobs in a real SQLite and a real PostgreSQL: accepted once, claimed by one, ended once, found again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from kit.errors import NotFound, ResourceExhausted
from kit.identity import Caller
from services.inference.database.database import Database
from services.inference.jobs.item_store import ItemStore, Lease
from services.inference.jobs.job import Claim, Job, NewItem, NewJob, Outcome, State
from services.inference.jobs.job_store import JobStore
from tests.inference.clocks import ManualClock
from tests.inference.jobs.parts import ANNA, BOB, DAY_S, open_database

LEASE_S = 15.0
PENDING_COUNT_MAX = 8


class Stores:
    """Both stores of one database, under one clock."""

    def __init__(self, database: Database) -> None:
        self.clock = ManualClock(1_000_000.0)
        self.jobs = JobStore(database, 30 * DAY_S, PENDING_COUNT_MAX, self.clock)
        self.items = ItemStore(database, LEASE_S, self.clock)

    async def job(self, count: int = 1, request_id: str = "r", caller: Caller = ANNA, **given: object) -> Job:
        options = {"kind": "job", "labels": {}, "time_max_s": DAY_S, "keep_events": True} | given
        new = NewJob(request_id, caller, **options)  # type: ignore[arg-type]
        return await self.jobs.create(new, [NewItem(f"i{index}", b"work%d" % index) for index in range(count)])

    async def claim(self) -> Claim:
        claim = await self.items.claim()
        assert claim
        return claim


@pytest.fixture
async def stores(database_url: str) -> AsyncIterator[Stores]:
    """The stores of an empty database."""
    async with open_database(database_url) as database:
        yield Stores(database)


DONE = Outcome(State.COMPLETED, b"answer")


async def test_a_caller_has_so_many_jobs_at_once(stores: Stores) -> None:
    """One more is refused and leaves nothing; items do not count, others' jobs neither, and an end makes room."""
    made = [await stores.job(3, request_id=f"r{number}") for number in range(PENDING_COUNT_MAX)]
    with pytest.raises(ResourceExhausted, match="8 of your jobs") as caught:
        await stores.job(request_id="more")
    again, other = await stores.job(3, request_id="r0"), await stores.job(caller=BOB)
    await stores.jobs.cancel(ANNA, made[0].job_id)
    later = await stores.job(request_id="more")

    assert (caught.value.reason, caught.value.retry_after_ms) == ("JOBS_LIMITED", 5_000)
    assert again.job_id == made[0].job_id
    assert other.tenant == BOB.tenant
    assert len(await stores.jobs.page(ANNA, "", 100, "")) == PENDING_COUNT_MAX + 1
    assert later.item_count == 1


async def test_the_same_request_gives_the_same_job(stores: Stores) -> None:
    """A call that is repeated makes nothing twice; another caller's same id is another job."""
    first = await stores.job(2)
    again, others = await stores.job(2), await stores.job(2, caller=BOB)

    assert again == first
    assert others.job_id != first.job_id


async def test_jobs_are_their_makers_own(stores: Stores) -> None:
    """Another caller's job is one that never was, whatever is done to it."""
    job = await stores.job()

    for ask in (stores.jobs.get, stores.jobs.cancel, stores.jobs.delete):
        with pytest.raises(NotFound, match="no job"):
            await ask(BOB, job.job_id)
    assert await stores.jobs.page(BOB, "", 10, "") == []


async def test_an_item_comes_with_what_is_needed_to_do_it(stores: Stores) -> None:
    """A claim carries the work, and its maker's identity as it was."""
    job = await stores.job()
    claim = await stores.claim()

    assert (claim.job_id, claim.index, claim.work, claim.caller) == (job.job_id, 0, b"work0", ANNA)
    assert (await stores.jobs.get(ANNA, job.job_id)).state is State.RUNNING


async def test_many_workers_claim_each_item_once(stores: Stores) -> None:
    """Twenty workers at once get twenty items, and nobody an item twice."""
    await stores.job(20)
    claims: list[Claim] = []

    async def work() -> None:
        while len(claims) < 20:
            claim = await stores.items.claim()
            claims.extend([claim] if claim else [])

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work())

    assert Counter(claim.index for claim in claims) == Counter(range(20))
    assert await stores.items.claim() is None


async def test_jobs_take_turns(stores: Stores) -> None:
    """A job of one item does not wait for the end of a job of many."""
    await stores.job(5, "many")
    stores.clock.turn(1)
    await stores.claim()
    stores.clock.turn(1)
    one = await stores.job(1, "one")

    assert (await stores.claim()).job_id == one.job_id


async def test_a_job_counts_its_ends_and_ends_with_the_last(stores: Stores) -> None:
    """Items that are done and items that failed are counted; the job is done when none is left."""
    job = await stores.job(2)
    await stores.items.end(await stores.claim(), DONE)
    halfway = await stores.jobs.get(ANNA, job.job_id)
    await stores.items.end(await stores.claim(), Outcome(State.FAILED, b"error"))
    ended = await stores.jobs.get(ANNA, job.job_id)

    assert (halfway.state, halfway.completed_count, halfway.failed_count) == (State.RUNNING, 1, 0)
    assert (ended.state, ended.completed_count, ended.failed_count) == (State.COMPLETED, 1, 1)
    assert [[(item.state, item.result) for item in page] async for page in stores.jobs.read(ANNA, job.job_id)] == [
        [(State.COMPLETED, b"answer"), (State.FAILED, b"error")]
    ]


async def test_a_lost_lease_is_claimed_anew_and_only_its_holder_ends_it(stores: Stores) -> None:
    """The worker that was thought dead records nothing: exactly one outcome is kept."""
    job = await stores.job()
    dead = await stores.claim()
    stores.clock.turn(LEASE_S + 1)
    assert await stores.items.sweep() == 1
    alive = await stores.claim()

    assert alive.try_count == 2
    assert await stores.items.renew(dead) is Lease.LOST
    assert not await stores.items.tell(dead, [b"step"])
    assert not await stores.items.end(dead, Outcome(State.COMPLETED, b"late"))
    assert await stores.items.end(alive, DONE)
    assert not await stores.items.end(alive, Outcome(State.FAILED, b"twice"))
    assert (await stores.jobs.get(ANNA, job.job_id)).completed_count == 1


async def test_a_renewed_lease_holds(stores: Stores) -> None:
    """Work that takes longer than a lease stays its worker's."""
    await stores.job()
    claim = await stores.claim()
    for _ in range(3):
        stores.clock.turn(LEASE_S * 0.9)
        assert await stores.items.renew(claim) is Lease.HELD
        assert await stores.items.sweep() == 0


async def test_what_is_given_back_waits_its_time(stores: Stores) -> None:
    """An item that is to be tried later is nobody's before that."""
    await stores.job()
    await stores.items.give_back(await stores.claim(), 10.0)

    assert await stores.items.claim() is None
    stores.clock.turn(11)
    assert (await stores.claim()).try_count == 2


async def test_what_a_stopping_process_gives_back_is_no_try(stores: Stores) -> None:
    """A restart costs an item none of its tries."""
    await stores.job()
    await stores.items.give_back(await stores.claim(), is_a_try=False)

    assert (await stores.claim()).try_count == 1


async def test_cancelling_ends_what_waits_and_tells_who_works(stores: Stores) -> None:
    """Queued items end at once; the running one's worker learns of it; the job ends with it."""
    job = await stores.job(3)
    await stores.items.end(await stores.claim(), DONE)
    running = await stores.claim()
    cancelled = await stores.jobs.cancel(ANNA, job.job_id)

    assert (cancelled.state, cancelled.failed_count) == (State.RUNNING, 1)
    assert await stores.items.renew(running) is Lease.CANCELLED
    assert await stores.items.end(running, Outcome(State.CANCELLED, b""))
    ended = await stores.jobs.get(ANNA, job.job_id)
    assert (ended.state, ended.completed_count, ended.failed_count) == (State.CANCELLED, 1, 2)
    assert await stores.jobs.cancel(ANNA, job.job_id) == ended


async def test_a_deadline_ends_what_still_waits(stores: Stores) -> None:
    """Items that nobody came to are expired, and so is their job."""
    job = await stores.job(2, time_max_s=60.0)
    await stores.items.end(await stores.claim(), DONE)
    stores.clock.turn(61)
    await stores.items.sweep()
    ended = await stores.jobs.get(ANNA, job.job_id)

    assert (ended.state, ended.completed_count, ended.failed_count) == (State.EXPIRED, 1, 1)


async def test_events_are_numbered_without_gaps(stores: Stores) -> None:
    """Steps of two items told at the same time, their ends and the job's are one sequence."""
    job = await stores.job(2)
    first, second = await stores.claim(), await stores.claim()
    await asyncio.gather(*(stores.items.tell(claim, [b"a", b"b"]) for claim in (first, second) for _ in range(5)))
    await stores.items.end(first, DONE, [b"last"])
    await stores.items.end(second, DONE)
    happened = await stores.jobs.events(job.job_id, 0, 100)

    assert [event.sequence for event in happened] == list(range(1, 25))
    assert [(event.index, event.payload) for event in happened[-4:]] == [
        (0, b"last"), (0, None), (1, None), (None, None)
    ]  # fmt: skip
    assert await stores.jobs.events(job.job_id, 23, 100) == happened[-1:]


async def test_what_was_refused_counts_as_failed(stores: Stores) -> None:
    """An item that its maker could not make sense of is never claimed; a job of such items is over at once."""
    new = NewJob("r", ANNA, "batch", {"a": "b"}, DAY_S, keep_events=False)
    job = await stores.jobs.create(new, [NewItem("bad", b"", result=b"why")])

    assert (job.state, job.failed_count, job.labels) == (State.COMPLETED, 1, {"a": "b"})
    assert await stores.items.claim() is None


async def test_a_job_is_forgotten_whole_and_in_time(stores: Stores) -> None:
    """After its time nothing of it is left, and neither after it was deleted."""
    old = await stores.job(request_id="old")
    stores.clock.turn(30 * DAY_S + 1)
    new = await stores.job(request_id="new")
    await stores.items.sweep()
    await stores.jobs.delete(ANNA, new.job_id)

    for job in (old, new):
        with pytest.raises(NotFound):
            await stores.jobs.get(ANNA, job.job_id)
        assert await stores.jobs.events(job.job_id, 0, 10) == []
        assert await stores.jobs.item(job.job_id, 0) is None


async def test_pages_go_from_the_newest(stores: Stores) -> None:
    """Each page goes on where the last one ended, and a kind can be asked for."""
    made = []
    for number in range(3):
        stores.clock.turn(1)
        made.append(await stores.job(request_id=f"r{number}", kind="batch" if number else "job"))
    first = await stores.jobs.page(ANNA, "batch", 1, "")
    second = await stores.jobs.page(ANNA, "batch", 5, first[0].job_id)

    assert [job.job_id for job in first + second] == [made[2].job_id, made[1].job_id]
