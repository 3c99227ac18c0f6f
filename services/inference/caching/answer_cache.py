"""The cache's part in a generation: look up before, keep afterwards, never stand in the way.

The cache fails open: a lookup that errs or takes too long is a miss that says so. Of many calls that ask the same at
the same time one looks it up in each process, and of all one makes the answer; the others share it. Answers are kept in
the background, through a bounded queue; a lookup of a key whose answer is just being kept waits for it, so that asking
twice in a row hits. Where every target has failed, a second lookup may find an answer that is past its time, or one to
a similar question.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from kit.errors import MillraceError
from kit.identity import Caller
from services.inference.attempts.deadline import DeadlineBudget
from services.inference.caching import cache_plan, recording
from services.inference.caching.cache_plan import CachePlan
from services.inference.caching.cache_port import (
    STORE_UNAVAILABLE,
    CacheFigures,
    CacheFound,
    CacheKey,
    CacheMiss,
    CachePort,
    CacheQuery,
    Comparison,
    FlightBegun,
    Shadow,
)
from services.inference.caching.comparing import same_answer
from services.inference.caching.flight import Flight
from services.inference.caching.following import Following
from services.inference.caching.nearby import Near, Nearby
from services.inference.caching.recording import Recorded
from services.inference.events import CacheEvent, CacheOutcome, Receipt
from services.inference.request import Request
from services.inference.routing.router import Route

log = logging.getLogger(__name__)

WAIT_S_MAX = 600.0  # the longest that the cache's contract knows
SHARED = CacheEvent(CacheOutcome.EXACT, age_s=0.0, reason="another call was making this answer")


class Recall(msgspec.Struct):
    """What became of the lookup: the event to tell, and the answer where there is one, or another call makes one.

    With a `lease_id` others may wait for what this call makes, and do so where it `is_awaited`; beside an answer the
    lease is for making it anew.
    """

    event: CacheEvent
    plan: CachePlan
    recorded: Recorded | None = None
    following: Following | None = None
    lease_id: str = ""
    is_awaited: bool = False
    shadow: Shadow | None = None


class AnswerCache:
    """Looks answers up and keeps them, as the plan of each request says.

    Args:
        port: The cache.
        pending_count_max: Most answers that may wait to be kept; more are dropped, and counted.
        pending_wait_s: Longest wait for an answer of the same key that is just being kept.
        keep_s: Longest time that keeping one may take.
        clock: As `time.monotonic`.
    """

    def __init__(
        self,
        port: CachePort,
        pending_count_max: int,
        pending_wait_s: float,
        keep_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._port, self._clock = port, clock
        self._pending_wait_s, self._pending_count_max, self._keep_s = pending_wait_s, pending_count_max, keep_s
        self._lookups: dict[CacheQuery, asyncio.Future[CacheFound | CacheMiss | MillraceError | None]] = {}
        self._pending: dict[CacheKey, asyncio.Task[None]] = {}
        self._nearby = Nearby()
        self._waiting_count = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_failing = False
        self.dropped_count = 0

    async def recall(self, request: Request, route: Route) -> Recall:
        """Looks the request up; never raises for the cache's sake."""
        plan = cache_plan.plan(request, route)
        if plan.query is None:
            event = CacheEvent(CacheOutcome.BYPASS, reason=plan.reason)
            return Recall(event, plan, lease_id=request.cache.lease_id)
        pending = self._pending.get(plan.query.key)
        if pending and not (await asyncio.wait({pending}, timeout=self._pending_wait_s))[0]:
            return Recall(CacheEvent(CacheOutcome.UNAVAILABLE, reason="STORE_PENDING"), plan)
        try:
            said = await self._lookup(plan.query)
        except MillraceError as error:
            return Recall(CacheEvent(CacheOutcome.UNAVAILABLE, reason=error.reason), plan)
        if isinstance(said, CacheMiss) and said.leased:
            return await self._follow(request, route, plan)
        return _recall_of(said, plan)

    async def _lookup(self, query: CacheQuery) -> CacheFound | CacheMiss:
        """Looks up once for all who ask the same at the same time: a crowd must not wait for itself."""
        while shared := self._lookups.get(query):
            said = await asyncio.shield(shared)
            if isinstance(said, MillraceError):
                raise said
            if said is not None:  # else the one who looked it up has left
                return _for_others(said)
        self._lookups[query] = shared = asyncio.get_running_loop().create_future()
        said = None
        asking = asyncio.create_task(self._port.lookup(query))
        try:
            said = await asyncio.shield(asking)
            return said
        except MillraceError as error:
            said = error
            raise
        except asyncio.CancelledError:
            self._spawn(self._take_back(asking))
            raise
        finally:
            del self._lookups[query]
            shared.set_result(said)

    async def _take_back(self, asking: asyncio.Task[CacheFound | CacheMiss]) -> None:
        """Waits for what a call that has left was to be told: the lease that it may be would keep others waiting."""
        with suppress(MillraceError):
            said = await asking
            lease_id = said.lease_id if isinstance(said, CacheMiss) else said.refresh_lease_id
            if lease_id:
                await self._port.release(lease_id)

    async def _follow(self, request: Request, route: Route, plan: CachePlan) -> Recall:
        """Waits for the first news of an answer that another call makes."""
        assert plan.query
        deadlines = DeadlineBudget(route.rules.deadlines, request, self._clock)
        query = msgspec.structs.replace(plan.query, semantic=None)  # nothing similar was good enough
        wait_s = min(WAIT_S_MAX, max(0.0, deadlines.first_token_at - self._clock()))
        near = Near(self._nearby, query.key, lambda: self._port.follow(query, wait_s))
        following = Following(near.ask(), deadlines, request.prompt.streamed, self._clock, near)
        try:
            first = await following.begin()
        except BaseException:
            await following.close()
            raise
        if isinstance(first, FlightBegun):
            return Recall(SHARED, plan, following=following)
        recall = _recall_of(first, plan)
        recall.is_awaited = True
        return recall

    def take_over(self, recall: Recall) -> bool:
        """Turns the recall of an answer that was followed in vain into the miss that it became; false if it was not."""
        if recall.following is None or not isinstance(recall.following.outcome, CacheMiss):
            return False
        missed = _recall_of(recall.following.outcome, recall.plan)
        recall.event, recall.lease_id, recall.following = missed.event, missed.lease_id, None
        recall.is_awaited = True
        return True

    async def spare(self, recall: Recall) -> Recall | None:
        """Looks the request up once more, now that every target has failed; never raises for the cache's sake.

        Returns:
            An answer, past its time or to a similar question, as its event says; None where there is none, or the route
            or the caller wants none.
        """
        if recall.plan.spare is None:
            return None
        with suppress(MillraceError):
            found = _recall_of(await self._port.lookup(recall.plan.spare), recall.plan)
            return found if found.recorded else None
        return None

    def depart(self, recall: Recall, policy_version: str, total_s: float, *, may_serve_similar: bool) -> Flight | None:
        """Begins the answer that this call makes, for those who wait for it and to be kept; None where it may not be.

        Args:
            recall: What was looked up before.
            policy_version: Of the policy that judged the prompt.
            total_s: Longest time that the answer may take.
            may_serve_similar: Whether similar questions may get the answer, where the plan says so, too.
        """
        if recall.plan.draft is None:
            return None
        text = recall.plan.draft.compare_text if may_serve_similar else None
        draft = msgspec.structs.replace(recall.plan.draft, compare_text=text)
        flight = Flight(self._port, draft, recall.lease_id, self._spawn, policy_version, total_s)
        self._nearby.note(draft.key, flight)
        flight.open(recall.is_awaited)
        recall.lease_id = ""  # it is the flight's to give back
        return flight

    def keep(self, recall: Recall, flight: Flight, receipt: Receipt, policy_version: str) -> None:
        """Keeps a complete answer in the background; drops it where too many wait, and counts that."""
        assert recall.plan.draft
        key = recall.plan.draft.key
        before = self._pending.get(key)
        if flight.is_spoilt or (before and recall.plan.query):  # the one that is being kept is as good
            return
        if self._waiting_count >= self._pending_count_max:
            self.dropped_count += 1
            return
        self._waiting_count += 1
        flight.end(receipt, policy_version)
        task = asyncio.create_task(self._land(flight, receipt, recall.shadow, before))
        self._pending[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: CacheKey, done: asyncio.Task[None]) -> None:
        self._waiting_count -= 1
        if self._pending.get(key) is done:
            del self._pending[key]

    async def _land(
        self, flight: Flight, receipt: Receipt, shadow: Shadow | None, before: asyncio.Task[None] | None
    ) -> None:
        """Keeps an answer, after the one of the same key that a refresh has overtaken."""
        if before:
            await asyncio.wait({before})
        try:
            await flight.land(receipt, _compared(flight, shadow), self._keep_s)
        except MillraceError as error:
            self.dropped_count += 1
            if not self._is_failing:
                log.warning("answers are not cached", extra={"reason": error.reason, "detail": error.message})
            self._is_failing = True
        else:
            self._is_failing = False

    async def figures(self) -> CacheFigures | None:
        """What the cache counts; None where there is none, or it does not answer."""
        with suppress(MillraceError):
            return await self._port.figures()
        return None

    async def report_false_hit(self, caller: Caller, end_user_id: str, entry_id: str, text: str | None) -> bool:
        """Removes an entry that did not fit a text; false if there is none.

        It may be one of the user's own or, where the caller names no user, one that its tenant shares.

        Raises:
            MillraceError: The cache cannot be reached, or there is none.
        """
        own = cache_plan.owner(caller, end_user_id)
        for user in dict.fromkeys((own,) if end_user_id else ("", own)):
            if await self._port.report_false_hit(CacheKey(caller.tenant, user, "", b""), entry_id, text):
                return True
        return False

    def give_back(self, recall: Recall) -> None:
        """Gives back what a recall still holds: a lease under which nothing was made, an answer that is followed."""
        if recall.lease_id:
            self._spawn(self._release(recall.lease_id))
            recall.lease_id = ""
        if recall.following:
            self._spawn(recall.following.close())

    def drop(self, lookup: asyncio.Task[Recall]) -> None:
        """Leaves a lookup that nobody waits for any more, and gives back what it gets."""
        self._spawn(self._dropped(lookup))

    async def _dropped(self, lookup: asyncio.Task[Recall]) -> None:
        await asyncio.wait({lookup}, timeout=self._pending_wait_s)
        if not lookup.cancel() and not lookup.cancelled() and lookup.exception() is None:
            self.give_back(lookup.result())

    async def _release(self, lease_id: str) -> None:
        with suppress(MillraceError):  # it runs out by itself
            await self._port.release(lease_id)

    def _spawn(self, step: Coroutine[Any, Any, None]) -> None:
        """Runs what outlives the call."""
        task = asyncio.create_task(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Waits until what is being kept is kept, and what was held is given back."""
        while waiting := {*self._pending.values(), *self._tasks}:
            await asyncio.wait(waiting)


def _recall_of(said: CacheFound | CacheMiss, plan: CachePlan) -> Recall:
    """What was found, with where it came from; an entry that is in nobody's form is a miss."""
    if isinstance(said, CacheMiss):
        outcome = CacheOutcome.UNAVAILABLE if said.reason == STORE_UNAVAILABLE else CacheOutcome.MISS
        event = CacheEvent(outcome, reason=said.reason)
        return Recall(event, plan, lease_id=said.lease_id, shadow=said.shadow)
    recorded = recording.read(said.chunks)
    if recorded is None:
        return Recall(CacheEvent(CacheOutcome.MISS), plan, lease_id=said.refresh_lease_id)
    event = CacheEvent(said.outcome, said.similarity, said.age_s, said.entry_id, said.reason)
    return Recall(event, plan, recorded, lease_id=said.refresh_lease_id)


def _for_others(said: CacheFound | CacheMiss) -> CacheFound | CacheMiss:
    """What a lookup tells those who shared it: a lease, and what is to be compared, are the first one's alone."""
    if isinstance(said, CacheFound):
        return msgspec.structs.replace(said, refresh_lease_id="")
    return CacheMiss(leased=True) if said.lease_id else msgspec.structs.replace(said, shadow=None)


def _compared(flight: Flight, shadow: Shadow | None) -> Comparison | None:
    """Whether the entry that was held back says the same as the answer that was made; None where none was."""
    kept = recording.read(shadow.chunks) if shadow else None
    if shadow is None or kept is None:
        return None
    fresh = (event for batch in flight.batches for event in batch)
    return Comparison(shadow.shadow_id, same_answer(fresh, kept.events))
