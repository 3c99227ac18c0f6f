"""The pipeline: the path of every generation, whoever asks for it.

    admit -> route -> reserve of the caller's limits -> safety on the prompt || cache lookup
      a kept answer: replay it
      another call makes the same answer: share it, and take over where that call fails
      neither: attempts => safety on the answer -> settle, keep; where every target has failed, a spare answer of the
      cache if the route allows it

It tells the story and decides nothing that a noun beside it could decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from kit.errors import Code, MillraceError, NotFound
from kit.spans import step
from services.inference.access.permission import check_named, check_route
from services.inference.accounting.settlement import Settlement
from services.inference.admission import Admission
from services.inference.attempts.attempts import Attempts
from services.inference.caching.answer_cache import AnswerCache, Recall
from services.inference.caching.cache_plan import ONLY_IF_CACHED
from services.inference.caching.flight import Flight
from services.inference.caching.recording import Ending, Heading, KeptEvent, Recorded
from services.inference.caching.refreshing import Refreshing
from services.inference.caching.resuming import Seen
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
from services.inference.generation import ChoiceFinished, Delta, EngineCompleted
from services.inference.request import Request
from services.inference.routing.router import Route, Router
from services.inference.screening.release import Screen, ScreenedBatch
from services.inference.screening.safety_port import OFF, InputScreen, SafetyPort, screen_prompt

FAILED = (AttemptOutcome.FAILED, AttemptOutcome.SKIPPED)
Batches = AsyncGenerator[Sequence[Event], None]


class _Call(msgspec.Struct):
    """One call, as far as it has come. `seen` is what its caller saw of an answer that another call left half-done."""

    request: Request
    route: Route
    receipt: Receipt
    profile: str
    recall: Recall
    screened: InputScreen
    seen: Seen | None = None


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
        refreshing: Refreshing | None = None,
    ) -> None:
        self._admission, self._router, self._cache = admission, router, cache
        self._safety, self._attempts, self._settlement = safety, attempts, settlement
        self._refreshing = refreshing or Refreshing()

    async def run(self, request: Request, receipt: Receipt | None = None) -> Batches:
        """Streams everything that happens, in batches of what was ready together; `Completed` is last.

        Args:
            request: What is asked.
            receipt: Filled in as the request goes, for a caller who wants to know what was done even where it fails.
        Raises:
            MillraceError: The request was refused or could not be answered.
        """
        receipt = receipt or Receipt(request.request_id, request.model)
        with self._admission.admit(), self._router.hold():
            check_named(request)
            with step("route"):
                route = self._router.choose(request)
            check_route(request, route)
            receipt.model, receipt.route_reason, receipt.created_time = route.model_name, route.reason, time.time()
            with self._settlement.settle(request, receipt) as settled:
                with step("admit"):
                    request = await self._admission.quotas.admit(request, route, receipt)
                async with aclosing(self._answer(request, route, receipt)) as batches:
                    async for batch in batches:
                        if batch and isinstance(batch[-1], Completed):
                            await settled()
                        yield batch

    async def _answer(self, request: Request, route: Route, receipt: Receipt) -> Batches:
        call = await self._prepare(request, route, receipt)
        try:
            receipt.cache = call.recall.event
            if request.cache.mode == ONLY_IF_CACHED and not call.recall.recorded:
                raise NotFound("NOT_CACHED", "no kept answer fits the request, which asks for nothing else")
            receipt.safety += [call.screened.event] if call.screened.event else []
            yield [_started(receipt)]
            if receipt.safety:
                yield list(receipt.safety)
            restore = call.screened.way_back.restorer() if call.screened.way_back else _as_it_is
            transcript = self._settlement.transcribe(receipt, call.screened.prompt)
            async with aclosing(self._tell(call)) as batches:
                async for batch in batches:
                    if transcript:
                        transcript.take(batch)
                    yield restore(batch)
        finally:
            self._cache.give_back(call.recall)

    async def _prepare(self, request: Request, route: Route, receipt: Receipt) -> _Call:
        """Judges the prompt and looks it up, in parallel; a blocked prompt gets no answer, not even a cached one."""
        profile = route.rules.safety.chosen(request.safety_profile)
        if profile == OFF:
            recall = await self._cache.recall(request, route)
            return _Call(request, route, receipt, profile, recall, InputScreen(request.prompt))
        lookup = asyncio.create_task(self._cache.recall(request, route))
        try:
            screened = await screen_prompt(self._safety, request.prompt, profile, route.rules.safety)
            recall = await lookup
        except BaseException:
            self._cache.drop(lookup)
            raise
        if recall.recorded and not _is_current(recall.recorded, screened):
            recall.recorded = None
            recall.event = CacheEvent(CacheOutcome.MISS, reason="the safety policy has changed since")
        return _Call(request, route, receipt, profile, recall, screened)

    async def _tell(self, call: _Call) -> Batches:
        """Tells the answer that is kept, or that another call makes; where there is none, or it fails, makes one."""
        if call.recall.recorded:
            self._refresh(call)
            async for batch in self._replay(call, call.recall.recorded):
                yield batch
            return
        if call.recall.following:
            async with aclosing(self._share(call)) as batches:
                async for batch in batches:
                    yield batch
            if call.recall.following:
                return
        try:
            async with aclosing(self._make(call)) as batches:
                async for batch in batches:
                    yield batch
        except MillraceError as error:
            spare = await self._spare(call, error)
            if spare is None:
                raise
            yield [call.receipt.cache or spare.event]
            assert spare.recorded
            async for batch in self._replay(call, spare.recorded):
                yield batch

    async def _replay(self, call: _Call, recorded: Recorded) -> Batches:
        """The kept answer as a stream, marked as cached and free of charge."""
        interval_s = call.route.rules.cache.replay_interval_s if call.request.prompt.streamed else 0.0
        *pieces, last = recorded.batches if interval_s else [recorded.events]
        for piece in pieces:
            yield [self._note_kept(event, call.receipt) for event in piece]
            await asyncio.sleep(interval_s)
        yield [self._note_kept(event, call.receipt) for event in (*last, recorded.ending)]

    async def _share(self, call: _Call) -> Batches:
        """The answer that another call makes; where nothing came of it, it is this call's to make."""
        following = call.recall.following
        assert following
        async with aclosing(following.batches(call.screened.policy_version)) as batches:
            async for batch in batches:
                yield [self._note_kept(event, call.receipt) for event in batch]
        if not self._cache.take_over(call.recall):
            return
        call.seen = following.seen
        call.receipt.cache = call.recall.event
        left_s = following.left_to_first_token_s
        call.request = msgspec.structs.replace(call.request, ttft_max_s=left_s or call.request.ttft_max_s)
        yield [call.recall.event]

    async def _make(self, call: _Call) -> Batches:
        """A new answer, which is kept if it may be."""
        request = msgspec.structs.replace(call.request, prompt=call.screened.prompt)
        tools = [tool.name for tool in request.prompt.tools]
        screen = Screen(self._safety, call.profile, call.route.rules.safety, request.prompt.sampling.n, tools)
        flight = None if _is_unscreened(call.screened) else self._depart(call)
        try:
            async with aclosing(self._generate(request, call.route, call.receipt, screen)) as batches:
                async for batch in batches:
                    events = [self._note(event, call.receipt, flight) for event in batch]
                    if flight:
                        flight.take(events)
                    yield call.seen.take(events) if call.seen else events
            if flight:
                policy_version = call.screened.policy_version or screen.policy_version
                self._cache.keep(call.recall, flight, call.receipt, policy_version)
        finally:
            if flight:
                flight.close()

    def _depart(self, call: _Call) -> Flight | None:
        was_redacted = call.screened.prompt is not call.request.prompt
        return self._cache.depart(
            call.recall,
            call.screened.policy_version,
            call.route.rules.deadlines.total_s,
            may_serve_similar=not was_redacted,  # what the policy took out of the prompt is not kept either
        )

    def _generate(
        self, request: Request, route: Route, receipt: Receipt, screen: Screen
    ) -> AsyncGenerator[ScreenedBatch, None]:
        batches = self._attempts.run(request, route, receipt)
        if screen.profile == OFF:
            return batches
        return screen.streamed(batches) if request.prompt.streamed else screen.whole(batches)

    async def _spare(self, call: _Call, error: MillraceError) -> Recall | None:
        """A kept answer in place of none: where the route allows it, every target failed and nothing has left."""
        passes = error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED)
        attempts = call.receipt.attempts
        targets_failed = attempts and all(one.outcome in FAILED for one in attempts)
        if not (passes and targets_failed) or call.receipt.ttft_s is not None:
            return None
        spare = await self._cache.spare(call.recall)
        if spare is None or spare.recorded is None or not _is_current(spare.recorded, call.screened):
            return None
        call.receipt.cache = spare.event
        return spare

    def _refresh(self, call: _Call) -> None:
        """Has the answer made anew behind the caller's back, where the cache says that it is time."""
        lease_id = call.recall.lease_id
        if lease_id and self._refreshing.start(call.request, lease_id, self.run):
            call.recall.lease_id = ""

    def _note(self, event: Event | EngineCompleted, receipt: Receipt, flight: Flight | None) -> Event:
        """Writes an event into the receipt; the engine's end becomes the pipeline's."""
        if isinstance(event, Delta):
            if receipt.ttft_s is None:
                receipt.ttft_s = receipt.age_s()
            if event.completion_token_count is not None:
                receipt.produced[event.choice_index] = event.completion_token_count
            return event
        if flight:
            flight.check(event)
        if isinstance(event, SafetyEvent):
            receipt.safety.append(event)
        elif isinstance(event, ChoiceFinished):
            receipt.finish_reason = receipt.finish_reason or event.finish_reason
        elif isinstance(event, EngineCompleted):
            receipt.usage = event.usage
            self._settlement.complete(receipt)
            return Completed(event.usage, receipt)
        return event

    def _note_kept(self, event: KeptEvent, receipt: Receipt) -> Event:
        """Writes an event of a kept answer into the receipt; it was paid for by the one who made it."""
        if isinstance(event, Ending):
            receipt.engine, receipt.target, receipt.target_model = "cache", event.target, event.target_model
            receipt.system_fingerprint, receipt.usage = event.system_fingerprint, event.usage
            receipt.cost_micro_usd = 0
            self._settlement.complete(receipt)
            return Completed(event.usage, receipt)
        if isinstance(event, SafetyEvent):
            receipt.safety.append(event)
        elif receipt.ttft_s is None:
            receipt.ttft_s = receipt.age_s()
        if isinstance(event, ChoiceFinished):
            receipt.finish_reason = receipt.finish_reason or event.finish_reason
        assert not isinstance(event, Heading)
        return event


def _as_it_is(events: Sequence[Event]) -> Sequence[Event]:
    """Restores nothing: the prompt went upstream as it was asked, or redacted for good."""
    return events


def _started(receipt: Receipt) -> Started:
    return Started(
        receipt.request_id, receipt.model, receipt.route_reason, receipt.created_time, receipt.cache, receipt.limits
    )


def _is_current(recorded: Recorded, screened: InputScreen) -> bool:
    """Whether a kept answer was judged by the policy that judges now."""
    return recorded.ending.policy_version == screened.policy_version


def _is_unscreened(screened: InputScreen) -> bool:
    return screened.event is not None and screened.event.unscreened
