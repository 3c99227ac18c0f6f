"""Attempts: one target after another until one answers, under the deadlines of the route.

Retrying is free until the first delta has left; after it the target never changes. A stream that ends without its
terminal event, or falls silent for too long, is a failure, never an answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Protocol

import msgspec

from kit.errors import Code, DeadlineExceeded, MillraceError, Unavailable
from services.inference.catalog import DeadlineRule, Target
from services.inference.engine import Engine
from services.inference.events import Attempt, AttemptEvent, AttemptOutcome, Receipt
from services.inference.generation import Delta, EngineCompleted, EngineEvent
from services.inference.request import Request
from services.inference.routing import Route, RouteTarget

Batch = Sequence[EngineEvent | AttemptEvent]
EngineFor = Callable[[Target], Engine]


class Observation(Protocol):
    """Who watches one attempt, for traces."""

    def current(self) -> AbstractContextManager[object]:
        """Makes the attempt the parent of what is called within the block."""
        ...

    def see(self, event: EngineEvent) -> None:
        """Sees one event."""
        ...


Observe = Callable[[Request, RouteTarget, Attempt], AbstractContextManager[Observation]]

# What another target may well answer. The rest is about the request itself, and would fail anywhere.
RETRYABLE = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN})
# Callers' mistakes at one target may be none at the next: it knows the model, or takes a longer context.
RETRYABLE_REASONS = frozenset({"MODEL_NOT_FOUND", "CONTEXT_LENGTH_EXCEEDED"})


class Attempts:
    """Runs a request on the targets of its route."""

    def __init__(self, engine_for: EngineFor, observe: Observe) -> None:
        self._engine_for = engine_for
        self._observe = observe

    async def run(self, request: Request, route: Route, receipt: Receipt) -> AsyncGenerator[Batch, None]:
        """Streams the answer of the first target that gives one.

        Every try is written into `receipt.attempts`; one that failed before anything of it left is told as an event.

        Raises:
            MillraceError: The last target's failure, or one after the first delta.
        """
        rule, last = route.rules.deadlines, len(route.targets)
        deadline = min(time.monotonic() + rule.total_s, request.deadline or float("inf"))  # one for all attempts
        for number, candidate in enumerate(route.targets, 1):
            attempt = Attempt(number, candidate.target.engine, candidate.target.label)
            receipt.attempts.append(attempt)
            has_left = False
            whole: list[EngineEvent] = []  # of a caller who does not read along: nothing has left until all is there
            try:
                stream = self._run_one(request, rule, deadline, candidate, attempt, receipt, number < last)
                async with aclosing(stream) as batches:
                    async for batch in batches:
                        if request.prompt.streamed:
                            has_left = True
                            yield batch
                        else:
                            whole += batch
                if whole:
                    yield whole
                return
            except MillraceError as error:
                is_over = time.monotonic() >= deadline
                if number == last or has_left or is_over or not is_retryable(error):
                    raise
            yield (AttemptEvent(attempt),)

    async def _run_one(
        self,
        request: Request,
        rule: DeadlineRule,
        deadline: float,
        candidate: RouteTarget,
        attempt: Attempt,
        receipt: Receipt,
        has_next: bool,
    ) -> AsyncGenerator[Sequence[EngineEvent], None]:
        start = time.monotonic()
        # Only a stream shows that a target is silent in time for the next one to answer.
        streamed = request.prompt.streamed or has_next
        prompt = msgspec.structs.replace(request.prompt, model=candidate.target_model, streamed=streamed)
        attempt.outcome = AttemptOutcome.CANCELLED  # what it is when nobody waits for its end
        receipt.engine, receipt.target = candidate.target.engine, candidate.target.label
        receipt.target_model = candidate.target_model
        try:
            with self._observe(request, candidate, attempt) as observation:
                stream = self._engine_for(candidate.target).generate(prompt, deadline)
                watched = _watched(stream, request, streamed, rule, start, deadline, observation.current())
                async with aclosing(watched) as batches:
                    async for batch in batches:
                        for event in batch:
                            observation.see(event)
                            if attempt.ttft_s is None and isinstance(event, Delta):
                                attempt.ttft_s = time.monotonic() - start
                        if isinstance(batch[-1], EngineCompleted):
                            attempt.outcome = AttemptOutcome.OK
                            _fill(receipt, candidate, batch[-1])
                        yield batch
        except MillraceError as error:
            attempt.outcome, attempt.error_reason = AttemptOutcome.FAILED, error.reason
            raise
        finally:
            attempt.duration_s = time.monotonic() - start


def is_retryable(error: MillraceError) -> bool:
    """Whether another target may well answer."""
    return error.code in RETRYABLE or error.reason in RETRYABLE_REASONS


async def _watched(
    stream: AsyncGenerator[Sequence[EngineEvent], None],
    request: Request,
    streamed: bool,
    rule: DeadlineRule,
    start: float,
    deadline: float,
    within: AbstractContextManager[object],
) -> AsyncGenerator[Sequence[EngineEvent], None]:
    """Passes an engine's batches on and raises when one takes too long or the last one is missing.

    The first batch is awaited `within` the attempt's trace context: that is when an upstream is called.
    """
    ttft_s = min(rule.ttft_s, request.ttft_max_s or rule.ttft_s)
    inter_token_s = min(rule.inter_token_s, request.inter_token_max_s or rule.inter_token_s)
    until = min(deadline, start + ttft_s) if streamed else deadline
    waiting_for = "TTFT" if streamed else "ANSWER"
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
                raise _timed_out(waiting_for, time.monotonic() >= deadline) from error
            yield batch
            within = nullcontext()
            until, waiting_for = min(deadline, time.monotonic() + inter_token_s), "INTER_TOKEN"
    finally:
        await stream.aclose()
    if not batch or not isinstance(batch[-1], EngineCompleted):
        raise Unavailable("UPSTREAM_TRUNCATED", "the target ended its answer too early; retry")


def _timed_out(waiting_for: str, is_total: bool) -> MillraceError:
    if is_total:
        return DeadlineExceeded("DEADLINE_EXCEEDED", "the answer was not complete by the deadline; allow more time")
    waits = {"TTFT": "begin its answer", "INTER_TOKEN": "go on with its answer", "ANSWER": "answer"}
    return DeadlineExceeded(f"{waiting_for}_TIMEOUT", f"the target did not {waits[waiting_for]} in time; retry")


def _fill(receipt: Receipt, candidate: RouteTarget, completed: EngineCompleted) -> None:
    receipt.target_model = completed.target_model or candidate.target_model
    receipt.system_fingerprint = completed.system_fingerprint
    receipt.usage = completed.usage
    receipt.cost_micro_usd = candidate.target.cost_micro_usd(completed.usage)
