"""The pipeline: the path of every generation, whoever asks for it.

    admit -> route -> safety on the prompt || cache lookup -> replay, or attempts => safety on the answer -> settle,
    keep; where every target has failed, an expired answer if the route allows it

It tells the story and decides nothing that a noun beside it could decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from kit.errors import Code, MillraceError
from services.inference.admission import Admission
from services.inference.attempts import Attempts
from services.inference.caching import AnswerCache, Recall
from services.inference.events import (
    AttemptOutcome,
    CacheEvent,
    CacheOutcome,
    Completed,
    Event,
    Receipt,
    SafetyEvent,
    Started,
)
from services.inference.generation import Delta, EngineCompleted
from services.inference.recording import Recorder
from services.inference.release import Screen, ScreenedBatch
from services.inference.request import Request
from services.inference.routing import Route, Router
from services.inference.screening import OFF, InputScreen, SafetyPort, screen_prompt
from services.inference.settlement import Settlement

FAILED = (AttemptOutcome.FAILED, AttemptOutcome.SKIPPED)


class Pipeline:
    """Answers requests, one `run` each."""

    def __init__(
        self,
        admission: Admission,
        router: Router,
        cache: AnswerCache,
        safety: SafetyPort,
        attempts: Attempts,
        settlement: Settlement,
    ) -> None:
        self._admission, self._router, self._cache = admission, router, cache
        self._safety, self._attempts, self._settlement = safety, attempts, settlement

    async def run(self, request: Request, receipt: Receipt | None = None) -> AsyncGenerator[Sequence[Event], None]:
        """Streams everything that happens, in batches of what was ready together; `Completed` is last.

        Args:
            request: What is asked.
            receipt: Filled in as the request goes, for a caller who wants to know what was done even where it fails.
        Raises:
            MillraceError: The request was refused or could not be answered.
        """
        receipt = receipt or Receipt(request.request_id, request.model)
        with self._admission.admit(), self._router.hold():
            route = self._router.choose(request)
            receipt.model, receipt.route_reason, receipt.created_time = route.model_name, route.reason, time.time()
            with self._settlement.settle(receipt):
                async with aclosing(self._answer(request, route, receipt)) as batches:
                    async for batch in batches:
                        yield batch

    async def _answer(self, request: Request, route: Route, receipt: Receipt) -> AsyncGenerator[Sequence[Event], None]:
        profile = route.rules.safety.chosen(request.safety_profile)
        recall, screened = await self._prepare(request, route, profile)
        receipt.cache = recall.event
        receipt.safety += [screened.event] if screened.event else []
        yield [Started(receipt.request_id, receipt.model, receipt.route_reason, receipt.created_time, recall.event)]
        if receipt.safety:
            yield list(receipt.safety)
        restore = screened.way_back.restorer() if screened.way_back else _as_it_is
        if recall.recorded:
            yield restore(self._replay(recall, receipt))
            return
        asked, request = request, msgspec.structs.replace(request, prompt=screened.prompt)
        screen = Screen(self._safety, profile, route.rules.safety, request.prompt.sampling.n)
        recorder = Recorder() if recall.plan.writes else None
        try:
            async with aclosing(self._generate(request, route, receipt, screen)) as batches:
                async for batch in batches:
                    yield restore([self._note(event, receipt, recorder) for event in batch])
        except MillraceError as error:
            stale = await self._degraded(asked, route, recall, screened, receipt, error)
            if stale is None:
                raise
            receipt.cache = stale.event
            yield restore([stale.event, *self._replay(stale, receipt)])
            return
        if recorder:
            policy_version = screened.policy_version or screen.policy_version
            self._cache.keep(request, recall, recorder, receipt, policy_version)

    async def _prepare(self, request: Request, route: Route, profile: str) -> tuple[Recall, InputScreen]:
        """Judges the prompt and looks it up, in parallel; a blocked prompt gets no answer, not even a cached one."""
        if profile == OFF:
            return await self._cache.recall(request, route), InputScreen(request.prompt)
        lookup = asyncio.create_task(self._cache.recall(request, route))
        try:
            screened = await screen_prompt(self._safety, request.prompt, profile, route.rules.safety)
            recall = await lookup
        finally:
            lookup.cancel()
        if recall.recorded and not _is_current(recall, screened):
            recall.recorded = None
            recall.event = CacheEvent(CacheOutcome.MISS, reason="the safety policy has changed since")
        return recall, screened

    async def _degraded(
        self,
        request: Request,
        route: Route,
        recall: Recall,
        screened: InputScreen,
        receipt: Receipt,
        error: MillraceError,
    ) -> Recall | None:
        """An expired answer in place of none: where the route allows it, every target failed and nothing has left."""
        passes = error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)
        targets_failed = receipt.attempts and all(one.outcome in FAILED for one in receipt.attempts)
        if not (route.rules.degrade.stale and passes and targets_failed) or receipt.ttft_s is not None:
            return None
        stale = await self._cache.stale(request, recall)
        return stale if stale and _is_current(stale, screened) else None

    def _replay(self, recall: Recall, receipt: Receipt) -> list[Event]:
        """The kept answer as a stream, marked as cached and free of charge."""
        recorded = recall.recorded
        assert recorded
        receipt.engine, receipt.target, receipt.target_model = "cache", recorded.target, recorded.target_model
        receipt.system_fingerprint, receipt.usage = recorded.system_fingerprint, recorded.usage
        receipt.cost_micro_usd = 0
        receipt.safety += recorded.safety
        receipt.ttft_s = time.time() - receipt.created_time
        self._settlement.complete(receipt)
        return [*recorded.safety, *recorded.deltas, *recorded.finished, Completed(recorded.usage, receipt)]

    def _generate(
        self, request: Request, route: Route, receipt: Receipt, screen: Screen
    ) -> AsyncGenerator[ScreenedBatch, None]:
        batches = self._attempts.run(request, route, receipt)
        if screen.profile == OFF:
            return batches
        return screen.streamed(batches) if request.prompt.streamed else screen.whole(batches)

    def _note(self, event: Event | EngineCompleted, receipt: Receipt, recorder: Recorder | None) -> Event:
        """Writes an event into the receipt and the record; the engine's end becomes the pipeline's."""
        if recorder:
            recorder.take(event)
        if isinstance(event, Delta):
            if receipt.ttft_s is None:
                receipt.ttft_s = time.time() - receipt.created_time
        elif isinstance(event, SafetyEvent):
            receipt.safety.append(event)
        elif isinstance(event, EngineCompleted):
            receipt.usage = event.usage
            self._settlement.complete(receipt)
            return Completed(event.usage, receipt)
        return event


def _as_it_is(events: Sequence[Event]) -> Sequence[Event]:
    """Restores nothing: the prompt went upstream as it was asked, or redacted for good."""
    return events


def _is_current(recall: Recall, screened: InputScreen) -> bool:
    """Whether a kept answer was judged by the policy that judges now."""
    return recall.recorded is not None and recall.recorded.policy_version == screened.policy_version
