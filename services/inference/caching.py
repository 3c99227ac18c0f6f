"""The cache's part in a generation: look up before, keep afterwards, never stand in the way.

The cache fails open: a lookup that errs or takes too long is a miss that says so. Answers are kept in the background
through a bounded queue; a lookup of a key whose answer is just being kept waits for that, so that asking twice in a
row hits. Where every target has failed, a second lookup may find an answer that is past its time.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

import msgspec

from kit.errors import MillraceError
from services.inference import recording
from services.inference.events import CacheEvent, CacheOutcome, Receipt
from services.inference.recording import CachePlan, Recorded, Recorder
from services.inference.request import Request
from services.inference.routing import Route

log = logging.getLogger(__name__)


class CacheKey(msgspec.Struct, frozen=True):
    """What an answer is kept under; nothing is shared between two keys that differ anywhere."""

    tenant: str
    user: str
    model: str
    digest: bytes


class CacheFound(msgspec.Struct, frozen=True):
    """An entry that the cache gave."""

    outcome: CacheOutcome
    payload: bytes
    entry_id: str
    age_s: float
    similarity: float | None = None
    reason: str = ""


class CachePort(Protocol):
    """The cache service, or what stands for it; failures are raised as `kit.errors` classes."""

    async def lookup(
        self, key: CacheKey, schema_tag: str, age_max_s: float | None, allow_stale: bool = False
    ) -> CacheFound | None:
        """Finds an entry, of those past their time only where that is allowed; None is a miss."""
        ...

    async def store(
        self, key: CacheKey, schema_tag: str, payload: bytes, plan: CachePlan, tags: tuple[str, ...], receipt: Receipt
    ) -> None:
        """Keeps an entry, for as long as the plan says."""
        ...


class Recall(msgspec.Struct):
    """What became of the lookup: the event to tell, and the answer where there is one."""

    event: CacheEvent
    plan: CachePlan
    key: CacheKey | None = None
    recorded: Recorded | None = None


class AnswerCache:
    """Looks answers up and keeps them, under the route's rule and the caller's wish."""

    def __init__(self, port: CachePort, pending_count_max: int, pending_wait_s: float) -> None:
        self._port = port
        self._pending_wait_s = pending_wait_s
        self._pending_count_max = pending_count_max
        self._pending: dict[CacheKey, asyncio.Task[None]] = {}
        self._waiting_count = 0
        self.dropped_count = 0

    async def recall(self, request: Request, route: Route) -> Recall:
        """Looks the request up; never raises for the cache's sake."""
        plan = recording.plan(request, route.rules.cache, route.rules.degrade)
        bypass = Recall(CacheEvent(CacheOutcome.BYPASS, reason=plan.reason), plan)
        if not (plan.reads or plan.writes):
            return bypass
        profile = route.rules.safety.chosen(request.safety_profile)
        targets = tuple(candidate.identity for candidate in route.targets)
        digest = recording.digest(route.model_name, targets, request.prompt, profile)
        bypass.key = CacheKey(request.tenant, plan.scope_user, route.model_name, digest)
        return await self._lookup(request, bypass, bypass.key) if plan.reads else bypass

    async def _lookup(self, request: Request, recall: Recall, key: CacheKey) -> Recall:
        if key in self._pending and not (await asyncio.wait({self._pending[key]}, timeout=self._pending_wait_s))[0]:
            recall.event = CacheEvent(CacheOutcome.UNAVAILABLE, reason="STORE_PENDING")
            return recall
        try:
            found = await self._port.lookup(key, recording.SCHEMA_TAG, request.cache.age_max_s)
        except MillraceError as error:
            recall.event = CacheEvent(CacheOutcome.UNAVAILABLE, reason=error.reason)
            return recall
        return _read(found, recall) or Recall(CacheEvent(CacheOutcome.MISS), recall.plan, key)

    async def stale(self, request: Request, recall: Recall) -> Recall | None:
        """Looks the request up once more, now that every target has failed; never raises for the cache's sake.

        Returns:
            An answer, as a rule past its time, as its event says; None where there is none, or the route or the
            caller wants none.
        """
        if recall.key is None or not recall.plan.reads or recall.plan.stale_for_s is None:
            return None
        try:
            found = await self._port.lookup(recall.key, recording.SCHEMA_TAG, request.cache.age_max_s, allow_stale=True)
        except MillraceError:
            return None
        return _read(found, recall)

    def keep(self, request: Request, recall: Recall, recorder: Recorder, receipt: Receipt, policy_version: str) -> None:
        """Keeps a complete answer in the background; drops it where too many wait, and counts that."""
        key = recall.key
        if key is None or not recall.plan.writes:
            return
        payload = recorder.payload(receipt, policy_version)
        before = self._pending.get(key)
        if payload is None or (before and recall.plan.reads):  # the one that is being kept is as good
            return
        if self._waiting_count >= self._pending_count_max:
            self.dropped_count += 1
            return
        self._waiting_count += 1
        task = asyncio.create_task(self._store(key, payload, recall.plan, request.cache.tags, receipt, before))
        self._pending[key] = task
        task.add_done_callback(lambda done: self._forget(key, done))

    def _forget(self, key: CacheKey, done: asyncio.Task[None]) -> None:
        self._waiting_count -= 1
        if self._pending.get(key) is done:
            del self._pending[key]

    async def _store(
        self,
        key: CacheKey,
        payload: bytes,
        plan: CachePlan,
        tags: tuple[str, ...],
        receipt: Receipt,
        before: asyncio.Task[None] | None,
    ) -> None:
        """Keeps an answer, after the one of the same key that a refresh has overtaken."""
        if before:
            await asyncio.wait({before})
        try:
            await self._port.store(key, recording.SCHEMA_TAG, payload, plan, tags, receipt)
        except MillraceError as error:
            self.dropped_count += 1
            log.warning("an answer could not be cached", extra={"reason": error.reason})

    async def close(self) -> None:
        """Waits until what is being kept is kept."""
        if self._pending:
            await asyncio.wait(set(self._pending.values()))


def _read(found: CacheFound | None, recall: Recall) -> Recall | None:
    """What was found, with where it came from; None where it is nothing, or in nobody's form."""
    recorded = recording.read(found.payload) if found else None
    if not found or not recorded:
        return None
    event = CacheEvent(found.outcome, found.similarity, found.age_s, found.entry_id, found.reason)
    return Recall(event, recall.plan, recall.key, recorded)
