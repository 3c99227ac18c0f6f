"""Spans of attempts, with the GenAI semantic conventions. Never content: names, counts and outcomes only."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext

from opentelemetry.trace import SpanKind, StatusCode, Tracer

from kit import names
from kit.errors import MillraceError
from kit.spans import Span, SpanTracer, use
from services.inference.attempts.attempt import Observation
from services.inference.events import Attempt
from services.inference.generation import ChoiceFinished, EngineCompleted, EngineEvent
from services.inference.request import Request
from services.inference.routing.router import RouteTarget

QUEUE_S_MIN = 0.001  # a shorter wait is none, and a span of its own would say nothing


class _Unobserved:
    """What watches an attempt when nobody records."""

    __slots__ = ()

    def __enter__(self) -> _Unobserved:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def see(self, event: EngineEvent) -> None:
        pass


class _Observed:
    """Writes one attempt into its span, which ends with it and says truthfully how."""

    __slots__ = ("_attempt", "_finish_reasons", "_span")

    def __init__(self, span: Span, attempt: Attempt) -> None:
        self._span, self._attempt = span, attempt
        self._finish_reasons: list[str] = []

    def __enter__(self) -> _Observed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, MillraceError):
            self._span.set_attribute(names.ERROR_TYPE, error.reason)
            self._span.set_status(StatusCode.ERROR, error.reason)
        elif isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._span.set_attribute(names.ERROR_TYPE, "cancelled")
        self._span.end()
        _phases(self._span, self._attempt)

    def current(self) -> AbstractContextManager[object]:
        return use(self._span)

    def see(self, event: EngineEvent) -> None:
        if isinstance(event, ChoiceFinished):
            self._finish_reasons.append(event.finish_reason.name.lower())
        elif isinstance(event, EngineCompleted):
            self._span.set_attribute(names.GEN_AI_USAGE_INPUT_TOKENS, event.usage.prompt_token_count)
            if self._finish_reasons:  # vectors have none
                self._span.set_attribute(names.GEN_AI_USAGE_OUTPUT_TOKENS, event.usage.completion_token_count)
                self._span.set_attribute(names.GEN_AI_RESPONSE_FINISH_REASONS, self._finish_reasons)
            if event.target_model:
                self._span.set_attribute(names.GEN_AI_RESPONSE_MODEL, event.target_model)


class AttemptObserver:
    """Opens a span for each attempt."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def observe(
        self, request: Request, candidate: RouteTarget, attempt: Attempt
    ) -> AbstractContextManager[Observation]:
        """Watches one attempt."""
        operation = "chat" if request.prompt.raw_prompt is None else "text_completion"
        return self._observe(operation, request, candidate, attempt)

    def observe_embedding(
        self, request: Request, candidate: RouteTarget, attempt: Attempt
    ) -> AbstractContextManager[Observation]:
        """Watches one attempt to embed, as `observe` does."""
        return self._observe("embeddings", request, candidate, attempt)

    def _observe(
        self, operation: str, request: Request, candidate: RouteTarget, attempt: Attempt
    ) -> AbstractContextManager[Observation]:
        if not isinstance(self._tracer, SpanTracer):
            return _Unobserved()
        kind = SpanKind.CLIENT if candidate.target.engine == "openai" else SpanKind.INTERNAL
        span = self._tracer.start_span(f"{operation} {candidate.target_model}", kind=kind)
        span.set_attributes(_attributes(operation, request, candidate, attempt))
        return _Observed(span, attempt)


def _phases(span: Span, attempt: Attempt) -> None:
    """The parts of an attempt: its wait for a place, its prefill up to the first token, and its decode."""
    began_ns = span.start_time
    if attempt.queue_s > QUEUE_S_MIN:
        span.sibling("queue", began_ns - round(attempt.queue_s * 1e9)).end(began_ns)
    if attempt.ttft_s is not None:
        first_ns = min(began_ns + round(attempt.ttft_s * 1e9), span.end_time)
        span.child("prefill", began_ns).end(first_ns)
        span.child("decode", first_ns).end(span.end_time)


def _attributes(
    operation: str, request: Request, candidate: RouteTarget, attempt: Attempt
) -> dict[str, str | int | float]:
    sampling = request.prompt.sampling
    wanted: dict[str, str | int | float | None] = {
        names.GEN_AI_OPERATION_NAME: operation,
        names.GEN_AI_PROVIDER_NAME: candidate.target.upstream or "millrace",
        names.GEN_AI_REQUEST_MODEL: candidate.target_model,
        names.GEN_AI_REQUEST_MAX_TOKENS: sampling.max_tokens,
        names.GEN_AI_REQUEST_TEMPERATURE: sampling.temperature,
        names.GEN_AI_REQUEST_TOP_P: sampling.top_p,
        names.GEN_AI_REQUEST_SEED: sampling.seed,
        names.GEN_AI_REQUEST_CHOICE_COUNT: sampling.n if sampling.n != 1 else None,
        names.GEN_AI_CONVERSATION_ID: request.session_id or None,
        names.REQUEST_ID: request.request_id,
        names.ROUTE: candidate.target.label,
        names.ATTEMPT: attempt.number,
    }
    return {name: value for name, value in wanted.items() if value is not None}
