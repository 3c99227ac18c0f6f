"""An attempt: one try at one target, from its place in the target's queue to its last token.

It is an async generator: its first item is the beginning of the answer, closing it ends the work at the target. A
stream that ends without its terminal event, or is silent for too long, is a failure, never an answer. What became of
it is written into the receipt, the breaker and the figures of the target, exactly once, however it ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from typing import Protocol

import msgspec

from kit.errors import DeadlineExceeded, MillraceError, ResourceExhausted, Unavailable
from services.inference.accounting import metering
from services.inference.accounting.metering import Meter
from services.inference.accounting.spending import COUNTED, ESTIMATED, NOTHING, REPORTED, spent
from services.inference.attempts import failure
from services.inference.attempts.tries import RETRY_AFTER_MS, Tries, Turn
from services.inference.engine import Source
from services.inference.events import Attempt, AttemptOutcome
from services.inference.generation import Delta, EngineCompleted, EngineEvent, Usage
from services.inference.request import Request
from services.inference.routing.catalog import Target
from services.inference.routing.router import RouteTarget

log = logging.getLogger(__name__)

WHOLE_SIZE_MAX = 12 * 1024 * 1024  # a whole answer is one message, of 16 MiB at most

UseEngine = Callable[[Target], AbstractContextManager[Source]]
Answer = AsyncGenerator[Sequence[EngineEvent], None]


class Observation(Protocol):
    """Who watches one attempt, for traces."""

    def current(self) -> AbstractContextManager[object]:
        """Makes the attempt the parent of what is called within the block."""
        ...

    def see(self, event: EngineEvent) -> None:
        """Sees one event."""
        ...


Observe = Callable[[Request, RouteTarget, Attempt], AbstractContextManager[Observation]]


class Asking:
    """Asks one target for an answer to one request."""

    def __init__(
        self,
        request: Request,
        turn: Turn,
        tries: Tries,
        use_engine: UseEngine,
        observe: Observe,
    ) -> None:
        self._request, self._turn, self._tries, self._deadlines = request, turn, tries, tries.deadlines
        self._use_engine, self._observe = use_engine, observe
        self._meter = Meter()
        self._heard_at = 0.0  # when the target last said something
        self._whole_size = 0

    async def run(self) -> Answer:
        """Streams the answer.

        Raises:
            MillraceError: The target failed, or there was no room at it in time.
        """
        turn, attempt = self._turn, self._turn.attempt
        self._fill()
        began_at = time.monotonic()
        try:
            await self._enter(began_at)
            began_at = self._heard_at = time.monotonic()
            try:
                async with aclosing(self._ask()) as batches:
                    async for batch in batches:
                        if attempt.ttft_s is None:
                            self._begun(time.monotonic() - began_at)
                        if isinstance(batch[-1], EngineCompleted):
                            self._completed(batch[-1], time.monotonic() - began_at)
                        yield batch
            finally:
                turn.state.left()
                self._turn.state.queue.leave(time.monotonic() - began_at)
        except MillraceError as error:
            self._failed(error)
            raise
        finally:
            turn.permit.forgotten()  # unless it has succeeded or failed
            if attempt.outcome is AttemptOutcome.RUNNING:  # nobody waits for its end
                attempt.outcome = AttemptOutcome.CANCELLED
            if attempt.usage == NOTHING:
                self._used(self._meter.usage, COUNTED)
            attempt.duration_s = attempt.duration_s or time.monotonic() - began_at

    async def _enter(self, came_at: float) -> None:
        attempt = self._turn.attempt
        try:
            await self._turn.state.queue.enter(self._request.priority, self._turn.until)
        except MillraceError:
            attempt.outcome = AttemptOutcome.SKIPPED
            raise
        finally:
            attempt.queue_s = time.monotonic() - came_at
        self._turn.state.entered()

    def _begun(self, ttft_s: float) -> None:
        self._turn.attempt.ttft_s = ttft_s
        if self._turn.permit.is_probe:
            log.info("target answers again", extra=self._who())
        self._turn.permit.began()
        self._turn.state.first_tokens.record(ttft_s)
        self._fill()  # another may have been asked meanwhile

    def _completed(self, completed: EngineCompleted, duration_s: float) -> None:
        self._turn.attempt.outcome, self._turn.attempt.duration_s = AttemptOutcome.OK, duration_s
        self._turn.permit.succeeded()
        surely = COUNTED if self._turn.attempt.engine == "local" else REPORTED
        self._used(completed.usage, ESTIMATED if completed.usage.estimated else surely)
        self._fill(completed)

    def _used(self, usage: Usage, source: str) -> None:
        """Writes into the attempt what it has used; a price that is not known is none, never zero."""
        attempt = self._turn.attempt
        if usage == NOTHING:
            attempt.cost_micro_usd = 0
            return
        attempt.usage, attempt.usage_source = usage, source
        attempt.cost_micro_usd = self._turn.candidate.target.cost_micro_usd(usage)

    async def _ask(self) -> Answer:
        candidate = self._turn.candidate
        request = self._request
        prompt = msgspec.structs.replace(
            request.prompt, model=candidate.target_model, tenant=request.tenant, priority=request.priority
        )
        with (
            self._observe(self._request, candidate, self._turn.attempt) as observation,
            self._use_engine(candidate.target) as engine,
        ):
            stream = engine.generate(prompt, self._deadlines.total_at)
            async with aclosing(self._watched(stream, engine.streams, self._within(observation))) as batches:
                async for batch in batches:
                    for event in batch:
                        observation.see(event)
                    if not self._request.prompt.streamed:
                        self._bound(batch)
                    yield batch

    @contextmanager
    def _within(self, observation: Observation) -> Iterator[None]:
        """Where an engine's first step is done: it finds its trace context and its meter there."""
        with observation.current(), metering.lend(self._meter):
            yield

    def _bound(self, batch: Sequence[EngineEvent]) -> None:
        """Ends a whole answer that no message could hold, before memory does."""
        self._whole_size += sum(map(_size, batch))
        if self._whole_size > WHOLE_SIZE_MAX:
            raise ResourceExhausted(
                "ANSWER_TOO_LARGE", "the answer is larger than one message; stream it, or ask for less"
            )

    async def _watched(self, stream: Answer, is_streamed: bool, within: AbstractContextManager[object]) -> Answer:
        """Passes an engine's batches on and raises when one takes too long or the last one is missing.

        The first batch is awaited `within` the attempt's own context: that is when an upstream is called.
        """
        until, total_at = self._turn.until if is_streamed else self._deadlines.total_at, self._deadlines.total_at
        waiting_for = "TTFT"
        batch: Sequence[EngineEvent] = ()
        try:
            while True:
                try:
                    with within:
                        async with asyncio.timeout(until - time.monotonic()):
                            batch = await anext(stream)
                except StopAsyncIteration:
                    break
                except TimeoutError as error:
                    raise _timed_out(waiting_for, until >= total_at, self._meter.is_queued) from error
                self._heard_at = time.monotonic()
                yield batch
                within = nullcontext()
                until, waiting_for = self._deadlines.next_token_until(), "INTER_TOKEN"
        finally:
            await stream.aclose()
        if not batch or not isinstance(batch[-1], EngineCompleted):
            raise Unavailable("UPSTREAM_TRUNCATED", "the target ended its answer too early; retry")

    def _failed(self, error: MillraceError) -> None:
        attempt, state = self._turn.attempt, self._turn.state
        attempt.error_reason = error.reason
        if attempt.outcome is AttemptOutcome.SKIPPED:
            state.skipped_count += 1
        else:
            attempt.outcome = AttemptOutcome.FAILED
            state.failure_count += 1
        if failure.is_targets_fault(error) and not (isinstance(error, DeadlineExceeded) and self._was_hurried()):
            opened_count = state.breaker.opened_count
            self._turn.permit.failed()
            if state.breaker.opened_count > opened_count:
                log.warning("target is left alone", extra={**self._who(), "reason": error.reason})
        self._tries.failed(self._turn, error)

    def _fill(self, completed: EngineCompleted | None = None) -> None:
        """Writes into the receipt who answers, and at the end what was used."""
        candidate, receipt = self._turn.candidate, self._tries.receipt
        target = candidate.target
        receipt.engine, receipt.target, receipt.target_model = target.engine, target.label, candidate.target_model
        if completed:
            receipt.target_model = completed.target_model or candidate.target_model
            receipt.system_fingerprint, receipt.usage = completed.system_fingerprint, completed.usage
            receipt.cost_micro_usd = spent(receipt).cost_micro_usd

    def _who(self) -> dict[str, str]:
        return {"target": self._turn.state.label, "model": self._turn.state.target_model}

    def _was_hurried(self) -> bool:
        """Whether a deadline passed although the target had not been silent for long."""
        began = self._turn.attempt.ttft_s is not None
        silent_s = time.monotonic() - self._heard_at
        if not began:  # while a call waits for a place, nothing is asked of the target
            silent_s = 0.0 if self._meter.is_queued else silent_s - self._meter.queue_s
        return not self._deadlines.is_silence_long(silent_s, self._turn.state.first_tokens.p95_s(), began)


def _size(event: EngineEvent) -> int:
    """About how many bytes an event takes in a message."""
    if not isinstance(event, Delta):
        return 0
    arguments = sum(len(call.arguments_json) for call in event.tool_calls)
    return len(event.text) + len(event.reasoning) + arguments + 64 * len(event.logprobs)


def _timed_out(waiting_for: str, is_total: bool, is_queued: bool) -> MillraceError:
    """What a wait that was too long is; one for a place is no failure of who has none to give."""
    if is_total:
        return DeadlineExceeded("DEADLINE_EXCEEDED", "the answer was not complete by the deadline; allow more time")
    if is_queued:
        problem = "no place at the model became free in time; retry later"
        return ResourceExhausted("QUEUE_TIMEOUT", problem, retry_after_ms=RETRY_AFTER_MS)
    waits = {"TTFT": "begin its answer", "INTER_TOKEN": "go on with its answer"}
    return DeadlineExceeded(f"{waiting_for}_TIMEOUT", f"the target did not {waits[waiting_for]} in time; retry")
