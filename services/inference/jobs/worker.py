"""Workers: claim items, do them as their makers would have, and record what came of them.

Each item is done under its maker's identity, through the same front door as any call. It decides only what is tried
again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from kit import identity
from kit.cancelling import cancel_all
from kit.errors import Unavailable
from kit.identity import CallContext, Caller
from services.inference.jobs.held_item import HeldItem
from services.inference.jobs.item_store import ItemStore, Lease
from services.inference.jobs.job import Claim, Outcome
from services.inference.jobs.queue import Queue
from services.inference.jobs.settings import JobSettings

log = logging.getLogger(__name__)
T = TypeVar("T")

HEAR_AGAIN_S = 10.0  # a queue deals with its outages by itself: what it cannot deal with lasts


class ItemRunner(Protocol):
    """Does items; what their bytes mean is its business."""

    async def run(self, claim: Claim, tell: Callable[[bytes], None] | None) -> Outcome:
        """Does an item under the current identity and tells its steps; failures are outcomes."""
        ...

    def given_up(self, claim: Claim, reason: str, message: str) -> Outcome:
        """What came of an item that is not done to its end."""
        ...


class Workers:
    """The workers of one process.

    Args:
        items: Where items are claimed.
        queue: Tells when some have come.
        runner: Does one item.
        settings: How many at once, for how long, how often.
        is_good: Whether a caller would still be let in; asked at every look, so it must cost nothing.

    Attributes:
        working_count: Tasks that claim items, one after the other, until there is none or the database is away.
        is_away: Whether the database did not answer when it was last asked.
    """

    def __init__(
        self,
        items: ItemStore,
        queue: Queue,
        runner: ItemRunner,
        settings: JobSettings,
        is_good: Callable[[Caller], bool],
    ) -> None:
        self._items, self._queue, self._runner, self._settings = items, queue, runner, settings
        self._is_good = is_good
        self._running: defaultdict[str, dict[asyncio.Task[Outcome], Claim]] = defaultdict(dict)
        self.is_away = False
        self._slots = asyncio.Semaphore(max(1, settings.concurrency))
        self.working_count = 0

    async def run(self) -> None:
        """Works until cancelled; what runs then is given back for others to do."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep(group))
            if self._settings.concurrency:
                group.create_task(self._hear())

    async def _hear(self) -> None:
        """Works when news comes; without any, the sweep finds what there is."""
        while True:
            try:
                await self._queue.run(self._work, self._settings.concurrency)
            except Exception:  # whatever it is, it must not end the workers
                log.exception("news of jobs is not received: they are found by looking for them")
            await asyncio.sleep(HEAR_AGAIN_S)

    def cancel(self, job_id: str) -> None:
        """Stops what runs here of a cancelled job at once; other processes learn of it when they renew."""
        for task in self._running.get(job_id, ()):
            task.cancel()

    async def _work(self) -> None:
        self.working_count += 1
        try:
            async with self._slots:
                while claim := await self._unless_away(self._items.claim):
                    await self._do(claim)
        finally:
            self.working_count -= 1

    async def _do(self, claim: Claim) -> None:
        held = HeldItem(self._items, claim, self._settings.lease_s)
        doing = asyncio.create_task(self._answer(claim, held))
        keeping = asyncio.create_task(held.keep(doing))
        self._running[claim.job_id][doing] = claim
        try:
            await asyncio.wait([doing])
            held.let_go()
            await keeping
            await self._settle(claim, held, doing)
        except Exception:  # its lease runs out, and it is begun anew; the other items go on
            log.exception("an item of a job could not be recorded")
        except asyncio.CancelledError:  # this process stops
            await cancel_all({doing, keeping})
            await self._unless_away(lambda: self._items.give_back(claim, is_a_try=False))
            raise
        finally:
            self._forget(claim, doing)

    def _forget(self, claim: Claim, doing: asyncio.Task[Outcome]) -> None:
        del self._running[claim.job_id][doing]
        if not self._running[claim.job_id]:
            del self._running[claim.job_id]

    async def _answer(self, claim: Claim, held: HeldItem) -> Outcome:
        if claim.try_count > self._settings.tries_max:
            return self._runner.given_up(claim, "WORKERS_DIED", "every process that did this item died; ask for less")
        if not self._is_good(claim.caller):
            return self._shut_out(claim)
        left_s = claim.deadline_ms / 1000 - time.time()
        who = claim.caller
        context = CallContext(
            f"{claim.job_id}.{claim.index}", who.tenant, who.principal, time.monotonic() + left_s, caller=who
        )
        with identity.use(context):
            return await self._runner.run(claim, held.take if claim.keep_events else None)

    def _shut_out(self, claim: Claim) -> Outcome:
        """What came of an item whose maker may not call any more."""
        if claim.caller.key_id:
            return self._runner.given_up(claim, "KEY_REVOKED", "the key that asked for it is not good any more")
        return self._runner.given_up(claim, "USER_DISABLED", "the user who asked for it is disabled")

    def _stop_shut_out(self) -> None:
        """Stops what runs here of those who may not call any more."""
        for running in self._running.values():
            for task, claim in running.items():
                if not self._is_good(claim.caller) and not task.cancelling():
                    task.cancel()

    async def _settle(self, claim: Claim, held: HeldItem, doing: asyncio.Task[Outcome]) -> None:
        """Records what came of it, or puts it back; somebody else's item is left alone."""
        if held.lease is Lease.LOST:
            return
        if doing.cancelled():
            cancelled = self._runner.given_up(claim, "CANCELLED", "the job was cancelled")
            await held.end(cancelled if self._is_good(claim.caller) else self._shut_out(claim))
            return
        outcome = doing.result()
        if outcome.retry_after_s is None or (outcome.is_a_try and claim.try_count >= self._settings.tries_max):
            await held.end(outcome)
            return
        after_s = outcome.retry_after_s
        await self._unless_away(lambda: self._items.give_back(claim, after_s, is_a_try=outcome.is_a_try))

    async def _sweep(self, group: asyncio.TaskGroup) -> None:
        """Puts right what others left undone, and does what nobody has told of."""
        while True:
            self._stop_shut_out()
            ready_count = await self._unless_away(self._items.sweep) or 0
            # Of an item that was given back, or whose process died, there is no news; nor had it come again to who
            # looked while the database was away. So it waits for no item that runs, as long as there is room.
            for _ in range(min(ready_count, self._settings.concurrency - self.working_count)):
                group.create_task(self._work())
            # Replicas look one after the other, not all at once.
            await asyncio.sleep(self._settings.poll_s * random.uniform(0.75, 1.25))

    async def _unless_away(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Asks the database; None where it is away, which is logged once."""
        try:
            answer = await ask()
        except Unavailable as error:
            if not self.is_away:
                log.warning("jobs wait: the database is away", extra={"reason": error.reason})
            self.is_away = True
            return None
        except Exception:  # whatever it is, it must not end the workers: the next look may go well
            log.exception("jobs wait: the database refuses")
            return None
        self.is_away = False
        return answer
