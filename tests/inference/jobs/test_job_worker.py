"""Workers on a real database: items are done under their makers' identity, again where that helps, and never lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from kit.errors import Unavailable
from kit.identity import Caller
from services.inference.database.database import Database
from services.inference.jobs.item_store import ItemStore
from services.inference.jobs.job import Claim, Outcome, State
from tests.inference.jobs.parts import ANNA, DEADLINE_S, Shop, eventually, open_database
from tests.inference.postgres import PostgresServer


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database with its schema."""
    async with open_database(database_url) as opened:
        yield opened


async def begun(shop: Shop) -> None:
    """Waits until an item has begun."""
    async with asyncio.timeout(DEADLINE_S):
        await shop.runner.has_begun.wait()


async def test_items_are_done_as_their_maker_would(database: Database) -> None:
    """Each under a request id of its own, the maker's tenant and name, and the job's deadline."""
    shop = Shop(database)
    async with shop.working():
        job = await shop.ended(await shop.job(b"a", b"b", b"fail"))

    assert (job.state, job.completed_count, job.failed_count) == (State.COMPLETED, 2, 1)
    assert await shop.results(job) == [b"did a", b"did b", b"did fail"]
    assert {context.request_id for context in shop.runner.contexts} == {f"{job.job_id}.{index}" for index in range(3)}
    assert {(context.tenant, context.principal) for context in shop.runner.contexts} == {("acme", "anna")}
    assert all(context.caller == ANNA and context.deadline for context in shop.runner.contexts)


async def test_what_may_help_is_tried_again_up_to_a_bound(database: Database) -> None:
    """The last error is the outcome of an item that failed every time."""
    shop = Shop(database, tries_max=3)
    async with shop.working():
        job = await shop.ended(await shop.job(b"again"))

    assert shop.runner.works == [b"again"] * 3
    assert await shop.results(job) == [b"last error"]


async def test_steps_are_told_while_the_item_runs(database: Database) -> None:
    """Whoever follows the job sees a step before the item has ended."""
    shop = Shop(database)
    async with shop.working():
        job = await shop.job(b"wait", keep_events=True)
        happened = await eventually(lambda: shop.jobs.events(job.job_id, 0, 10))
        state = (await shop.jobs.get(ANNA, job.job_id)).state
        shop.runner.release.set()
        await shop.ended(job)
    told = await shop.jobs.events(job.job_id, 0, 10)

    assert [event.payload for event in happened] == [b"step"]
    assert state is State.RUNNING
    assert [(event.index, event.payload) for event in told] == [(0, b"step"), (0, None), (None, None)]


async def test_cancelling_stops_what_runs(database: Database) -> None:
    """By the process that is told at once, and by any other with its next renewal."""
    shop, other = Shop(database, concurrency=1, lease_s=10.0), Shop(database, concurrency=0)
    async with shop.working():
        job = await shop.job(b"wait", b"never")
        await begun(shop)
        await other.jobs.cancel(ANNA, job.job_id)
        ended = await shop.ended(job)

    assert (ended.state, ended.failed_count) == (State.CANCELLED, 2)
    assert await shop.results(job) == [b"CANCELLED", None]
    assert shop.runner.works == [b"wait"]


async def test_a_process_that_stops_gives_its_items_back(database: Database) -> None:
    """Another one does them at once, not after a lease has run out."""
    leaving, staying = Shop(database, lease_s=600.0), Shop(database, lease_s=600.0)
    async with leaving.working():
        job = await leaving.job(b"wait")
        await begun(leaving)
    staying.runner.release.set()
    async with staying.working():
        await staying.ended(job)

    assert await staying.results(job) == [b"did wait"]


def dead_items(database: Database) -> ItemStore:
    """The store of a process that died a minute ago: what it claims is lost."""
    return ItemStore(database, 1.0, lambda: time.time() - 60)


async def test_a_process_that_dies_loses_nothing(database: Database) -> None:
    """Its items are done by others once its leases have run out; what it says later is not recorded."""
    dead, alive = dead_items(database), Shop(database)
    job = await alive.job(b"a")
    claim = await dead.claim()
    async with alive.working():
        await alive.ended(job)

    assert claim
    assert not await dead.end(claim, Outcome(State.COMPLETED, b"late"))
    assert await alive.results(job) == [b"did a"]


async def test_a_dead_process_items_wait_for_none_that_runs(database: Database) -> None:
    """Who has room does them, though it has something else to do that takes long."""
    shop = Shop(database, concurrency=2)
    orphan = await shop.job(b"a", request_id="orphan")
    assert await ItemStore(database, 1.0).claim()  # by a process that dies with it now
    async with shop.working():
        running = await shop.job(b"wait", request_id="running")
        await begun(shop)
        await shop.ended(orphan)
        state = (await shop.jobs.get(ANNA, running.job_id)).state
        shop.runner.release.set()
        await shop.ended(running)

    assert state is State.RUNNING
    assert shop.runner.works == [b"wait", b"a"]


async def test_a_database_that_was_away_leaves_no_worker_idle(database: Database) -> None:
    """Those that found it so work again when it is back, though others went on all the time."""
    shop = Shop(database, concurrency=3)
    away, items = asyncio.Event(), shop.workers._items

    class Away(ItemStore):
        """Claims nothing while it is away."""

        async def claim(self) -> Claim | None:
            if away.is_set():
                raise Unavailable("DATABASE_UNAVAILABLE", "away")
            return await items.claim()

    shop.workers._items = Away(database, 1.0)
    async with shop.working():
        running = await shop.job(b"wait", request_id="running")
        await begun(shop)
        away.set()
        waiting = await shop.job(b"a", b"b", request_id="waiting")

        async def all_but_one_have_looked() -> bool:
            return shop.workers.is_away and shop.workers.working_count == 1

        await eventually(all_but_one_have_looked)
        away.clear()
        await shop.ended(waiting)
        shop.runner.release.set()
        await shop.ended(running)

    assert sorted(shop.runner.works) == [b"a", b"b", b"wait"]


async def test_an_item_that_kills_its_workers_is_given_up(database: Database) -> None:
    """One that never ends well is not tried for ever."""
    dead, shop = dead_items(database), Shop(database, tries_max=2)
    job = await shop.job(b"poison")
    for _ in range(2):
        assert await dead.claim()
        await ItemStore(database, 1.0).sweep()
    async with shop.working():
        await shop.ended(job)

    assert shop.runner.works == []
    assert await shop.results(job) == [b"WORKERS_DIED"]


async def test_an_outcome_waits_for_a_database_that_is_away(postgres: PostgresServer) -> None:
    """What was done while the database was stopped is recorded when it is back, once."""
    async with open_database(postgres.create_database()) as database:
        shop = Shop(database, lease_s=600.0)
        async with shop.working():
            job = await shop.job(b"wait")
            await begun(shop)
            postgres.stop()
            shop.runner.release.set()

            async def is_away() -> bool:
                return shop.workers.is_away

            await eventually(is_away)
            postgres.start()
            await shop.ended(job)

        assert await shop.results(job) == [b"did wait"]
        assert shop.runner.works == [b"wait"]


async def test_an_error_of_the_database_ends_no_worker(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is: it is logged, and the next look does what was left."""
    shop = Shop(database)
    claim, errors = shop.workers._items.claim, [RuntimeError("read-only")] * 3

    async def broken() -> object:
        if errors:
            raise errors.pop()
        return await claim()

    shop.workers._items.claim = broken  # type: ignore[method-assign,assignment]
    async with shop.working():
        job = await shop.ended(await shop.job(b"a"))

    assert await shop.results(job) == [b"did a"]
    assert "the database refuses" in caplog.text


async def test_cancelling_and_working_do_not_block_each_other(database: Database) -> None:
    """Jobs that are cancelled while many work on them all end, and nobody is refused."""
    shop = Shop(database, concurrency=4)
    async with shop.working():
        for number in range(8):
            job = await shop.job(*[b"a"] * 12, request_id=f"r{number}")
            await shop.jobs.cancel(ANNA, job.job_id)
            await shop.ended(job)

    assert not shop.workers.is_away


@pytest.mark.parametrize(("caller", "reason"), [(ANNA, b"KEY_REVOKED"), (replace(ANNA, key_id=""), b"USER_DISABLED")])
async def test_who_may_not_call_any_more_has_nothing_done(database: Database, caller: Caller, reason: bytes) -> None:
    """Neither what runs nor what waits goes on, on whose account it would be; others' jobs do."""
    shop = Shop(database, concurrency=1, lease_s=600.0)
    async with shop.working():
        job = await shop.job(b"wait", b"never", caller=caller)
        await begun(shop)
        shop.shut_out.add(caller)
        await shop.ended(job)
        other = await shop.ended(await shop.job(b"a", request_id="other", caller=replace(ANNA, key_id="k2")))

    assert await shop.results(job) == [reason, reason]
    assert shop.runner.works == [b"wait", b"a"]
    assert other.completed_count == 1
