"""What the tests of jobs share: a database of either kind, and a runner whose items do as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from pydantic import SecretStr

from kit import identity
from kit.identity import CallContext, Caller
from services.inference.database.database import Database
from services.inference.database.migrating import prepare
from services.inference.database.settings import DatabaseSettings
from services.inference.jobs.item_store import ItemStore
from services.inference.jobs.job import Claim, Job, NewItem, NewJob, Outcome, State
from services.inference.jobs.job_store import JobStore
from services.inference.jobs.queue import LocalQueue, Queue
from services.inference.jobs.settings import JobSettings
from services.inference.jobs.worker import Workers

ANNA = Caller("anna", "acme", "user", key_id="k1", tier="free")
BOB = Caller("bob", "acme", "user")
DAY_S = 24 * 3600.0
DEADLINE_S = 30.0
T = TypeVar("T")


@asynccontextmanager
async def open_database(url: str) -> AsyncIterator[Database]:
    """A database with its schema."""
    database = Database(DatabaseSettings(url=SecretStr(url)))
    await prepare(database, migrate=True)
    yield database
    await database.close()


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What a look gives as soon as it gives something."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(0.01)


class ScriptedRunner:
    """Does items by their work: `wait` waits until let go, `again` is tried again, `fail` fails, others are echoed."""

    def __init__(self) -> None:
        self.contexts: list[CallContext] = []
        self.works: list[bytes] = []
        self.release = asyncio.Event()
        self.has_begun = asyncio.Event()

    async def run(self, claim: Claim, tell: Callable[[bytes], None] | None) -> Outcome:
        self.contexts.append(identity.current())
        self.works.append(claim.work)
        self.has_begun.set()
        if tell:
            tell(b"step")
        if claim.work == b"wait":
            await self.release.wait()
        if claim.work == b"again":
            return Outcome(State.FAILED, b"last error", retry_after_s=0.0)
        return Outcome(State.FAILED if claim.work == b"fail" else State.COMPLETED, b"did " + claim.work)

    def given_up(self, claim: Claim, reason: str, message: str) -> Outcome:
        return Outcome(State.CANCELLED if reason == "CANCELLED" else State.FAILED, reason.encode())


class Shop:
    """The jobs of one database and the workers of one process."""

    def __init__(self, database: Database, queue: Queue | None = None, **settings: object) -> None:
        given = {"poll_s": 0.05, "lease_s": 1.0, "concurrency": 2} | settings
        self.settings = JobSettings(**given)  # type: ignore[arg-type]
        self.jobs = JobStore(database, 30 * DAY_S, self.settings.pending_count_max)
        self.queue = queue or LocalQueue()
        self.runner = ScriptedRunner()
        items = ItemStore(database, self.settings.lease_s)
        self.shut_out: set[Caller] = set()
        self.workers = Workers(items, self.queue, self.runner, self.settings, lambda one: one not in self.shut_out)

    async def job(self, *works: bytes, request_id: str = "r", caller: Caller = ANNA, keep_events: bool = False) -> Job:
        """Accepts a job and says so."""
        new = NewJob(request_id, caller, "job", {}, DAY_S, keep_events)
        job = await self.jobs.create(new, [NewItem("", work) for work in works])
        await self.queue.announce(len(works))
        return job

    @asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.Task[None]]:
        """The workers work for a block."""
        task = asyncio.create_task(self.workers.run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def ended(self, job: Job) -> Job:
        """The job once it has ended."""

        async def look() -> Job | None:
            now = await self.jobs.get(ANNA, job.job_id)
            return now if now.state.is_ended else None

        return await eventually(look)

    async def results(self, job: Job) -> list[bytes | None]:
        """What came of the items."""
        return [item.result async for page in self.jobs.read(ANNA, job.job_id) for item in page]
