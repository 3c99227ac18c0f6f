"""Between the wire and the nouns: requests in, events out. It checks nothing: `limits` does, before."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from kit.identity import CallContext
from millrace.inference.v1 import event_pb2, generation_pb2
from millrace.inference.v1.inference_service_pb2 import StreamGenerateResponse
from services.inference import events as nouns
from services.inference.answer import put_together
from services.inference.generation import (
    AudioPart,
    ChoiceFinished,
    ContentPart,
    Delta,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    Usage,
)
from services.inference.quota.limit import LimitState
from services.inference.request import CacheWish, Request

Spec = generation_pb2.GenerationSpec

ROLES = {
    generation_pb2.ROLE_SYSTEM: Role.SYSTEM,
    generation_pb2.ROLE_DEVELOPER: Role.DEVELOPER,
    generation_pb2.ROLE_USER: Role.USER,
    generation_pb2.ROLE_ASSISTANT: Role.ASSISTANT,
    generation_pb2.ROLE_TOOL: Role.TOOL,
}
TOOL_CHOICES = {
    generation_pb2.TOOL_CHOICE_MODE_AUTO: "auto",
    generation_pb2.TOOL_CHOICE_MODE_NONE: "none",
    generation_pb2.TOOL_CHOICE_MODE_REQUIRED: "required",
    generation_pb2.TOOL_CHOICE_MODE_NAMED: "named",
}
EFFORTS = {
    generation_pb2.REASONING_EFFORT_NONE: "none",
    generation_pb2.REASONING_EFFORT_MINIMAL: "minimal",
    generation_pb2.REASONING_EFFORT_LOW: "low",
    generation_pb2.REASONING_EFFORT_MEDIUM: "medium",
    generation_pb2.REASONING_EFFORT_HIGH: "high",
}
CACHE_MODES = {
    generation_pb2.CACHE_MODE_OFF: "off",
    generation_pb2.CACHE_MODE_READ_WRITE: "read_write",
    generation_pb2.CACHE_MODE_READ_ONLY: "read_only",
    generation_pb2.CACHE_MODE_REFRESH: "refresh",
    generation_pb2.CACHE_MODE_ONLY_IF_CACHED: "only_if_cached",
}
CACHE_SCOPES = {generation_pb2.CACHE_SCOPE_TENANT: "tenant", generation_pb2.CACHE_SCOPE_USER: "user"}
USAGE_SOURCES: dict[str, Any] = {"": 0, "reported": 1, "counted": 2, "estimated": 3}  # numbers of the contract
SCALARS = (
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed",
    "max_tokens", "min_tokens",
)  # fmt: skip


def request(spec: Spec, context: CallContext, request_id: str, streamed: bool) -> Request:
    """The request of a call."""
    routing = spec.routing
    return Request(
        request_id=request_id,
        tenant=context.tenant,
        model=spec.model,
        prompt=prompt(spec, streamed),
        deadline=context.deadline,
        cache=_cache_wish(spec.cache) if spec.HasField("cache") else CacheWish(),
        safety_profile=spec.safety.profile,
        fallbacks=tuple(routing.fallbacks),
        priority=routing.priority,
        ttft_max_s=_seconds(routing, "ttft_max"),
        inter_token_max_s=_seconds(routing, "inter_token_latency_max"),
        session_id=spec.session_id,
        limit=spec.limit,
        caller=context.caller,
    )


def prompt(spec: Spec, streamed: bool = False) -> Prompt:
    """What a spec asks an engine to continue."""
    return Prompt(
        streamed=streamed,
        messages=tuple(_message(message) for message in spec.conversation.messages),
        raw_prompt=spec.raw_prompt if spec.HasField("raw_prompt") else None,
        tools=tuple(_tool(tool) for tool in spec.tools),
        tool_choice=_tool_choice(spec.tool_choice) if spec.HasField("tool_choice") else None,
        parallel_tool_calls=_optional(spec, "parallel_tool_calls"),
        sampling=_sampling(spec.sampling) if spec.HasField("sampling") else Sampling(),
        output_format=_output_format(spec.output_format) if spec.HasField("output_format") else None,
        reasoning_effort=EFFORTS.get(spec.reasoning_effort),
        end_user_id=spec.end_user_id or None,
        metadata=dict(spec.metadata),
    )


def _optional(message: Any, field: str) -> Any:
    return getattr(message, field) if message.HasField(field) else None


def _seconds(message: Any, field: str) -> float | None:
    return seconds(getattr(message, field)) if message.HasField(field) else None


def _message(message: generation_pb2.Message) -> Message:
    return Message(
        ROLES[message.role],
        tuple(_part(part) for part in message.parts),
        message.name or None,
        tuple(ToolCall(call.id, call.name, call.arguments_json) for call in message.tool_calls),
        message.tool_call_id or None,
        _optional(message, "refusal"),
    )


def _part(part: generation_pb2.ContentPart) -> ContentPart:
    if part.HasField("text"):
        return TextPart(part.text)
    if part.HasField("image"):
        image = part.image
        data = base64.b64encode(image.data).decode()
        url = image.url if image.HasField("url") else f"data:{image.media_type};base64,{data}"
        return ImagePart(url, _optional(image, "detail"))
    if part.HasField("audio"):
        return AudioPart(part.audio.data, part.audio.format)
    return FilePart(part.file.filename, _optional(part.file, "file_id"), _optional(part.file, "data"))


def _tool(tool: generation_pb2.Tool) -> Tool:
    return Tool(tool.name, tool.description, tool.parameters_json, _optional(tool, "strict"))


def _tool_choice(choice: generation_pb2.ToolChoice) -> ToolChoice | None:
    mode = TOOL_CHOICES.get(choice.mode)
    return ToolChoice(mode, choice.name or None) if mode else None


def _sampling(params: generation_pb2.SamplingParams) -> Sampling:
    return Sampling(
        **{name: _optional(params, name) for name in SCALARS},
        stop=tuple(params.stop),
        stop_token_ids=tuple(params.stop_token_ids),
        n=params.n if params.HasField("n") else 1,
        logit_bias=dict(params.logit_bias),
        logprobs=params.logprobs,
        top_logprobs=params.top_logprobs,
    )


def _output_format(output: generation_pb2.OutputFormat) -> OutputFormat | None:
    kind = output.WhichOneof("format")
    if kind is None:
        return None
    schema = output.json_schema
    return OutputFormat(
        kind, schema.name, schema.description, schema.schema_json, _optional(schema, "strict"), output.regex,
        tuple(output.choice.choices),
    )  # fmt: skip


def _cache_wish(policy: generation_pb2.CachePolicy) -> CacheWish:
    return CacheWish(
        CACHE_MODES.get(policy.mode),
        CACHE_SCOPES.get(policy.scope),
        _seconds(policy, "ttl"),
        _optional(policy, "semantic"),
        _optional(policy, "similarity_threshold"),
        _optional(policy, "error_max"),
        _seconds(policy, "age_max"),
        tuple(policy.tags),
    )


# Out: one function per event.


def response(event: nouns.Event, sequence: int) -> StreamGenerateResponse:
    """The message for an event."""
    field, translate = _EVENTS[type(event)]
    return StreamGenerateResponse(sequence=sequence, **{field: translate(event)})


def started(event: nouns.Started) -> event_pb2.Started:
    """Started."""
    return event_pb2.Started(
        request_id=event.request_id,
        model=event.model,
        route_reason=event.route_reason,
        created_time=timestamp(event.created_time),
        cache=cache(event.cache) if event.cache else None,
        limits=[limit(one) for one in event.limits],
    )


def limit(state: LimitState) -> event_pb2.LimitState:
    """LimitState."""
    return event_pb2.LimitState(
        name=state.name,
        unit=int(state.unit),  # type: ignore[arg-type]
        window=int(state.window),  # type: ignore[arg-type]
        limit=state.limit,
        remaining=state.remaining,
        reset=duration(state.reset_s),
    )


def delta(event: Delta) -> event_pb2.Delta:
    """Delta; the plain text delta is most of all traffic, so nothing else is touched for it."""
    message = event_pb2.Delta(
        choice_index=event.choice_index, text=event.text, completion_token_count=event.completion_token_count
    )
    if event.reasoning:
        message.reasoning = event.reasoning
    if event.refusal:
        message.refusal = event.refusal
    for call in event.tool_calls:
        message.tool_calls.add(index=call.index, id=call.id, name=call.name, arguments_json=call.arguments_json)
    if event.logprobs:
        message.logprobs.extend(_logprob(one) for one in event.logprobs)
    return message


def _logprob(one: TokenLogprob) -> event_pb2.TokenLogprob:
    top = [event_pb2.TopLogprob(token=x.token, logprob=x.logprob, token_bytes=x.token_bytes) for x in one.top]
    return event_pb2.TokenLogprob(token=one.token, logprob=one.logprob, token_bytes=one.token_bytes, top=top)


def choice_finished(event: ChoiceFinished) -> event_pb2.ChoiceFinished:
    """ChoiceFinished."""
    return event_pb2.ChoiceFinished(
        choice_index=event.choice_index,
        finish_reason=int(event.finish_reason),  # type: ignore[arg-type]
        stop_sequence=event.stop_sequence,
    )


def safety(event: nouns.SafetyEvent) -> event_pb2.SafetyEvent:
    """SafetyEvent."""
    return event_pb2.SafetyEvent(
        direction=int(event.direction),  # type: ignore[arg-type]
        verdict=int(event.verdict),  # type: ignore[arg-type]
        findings=[
            event_pb2.SafetyFinding(
                category=one.category,
                score=one.score,
                detector=one.detector,
                start=one.start,
                end=one.end,
                message_index=one.message_index,
                action=int(one.action),  # type: ignore[arg-type]
            )
            for one in event.findings
        ],
        profile=event.profile,
        policy_version=event.policy_version,
        choice_index=event.choice_index,
        unscreened=event.unscreened,
    )


def cache(event: nouns.CacheEvent) -> event_pb2.CacheEvent:
    """CacheEvent."""
    return event_pb2.CacheEvent(
        outcome=int(event.outcome),  # type: ignore[arg-type]
        similarity=event.similarity,
        age=None if event.age_s is None else duration(event.age_s),
        entry_id=event.entry_id,
        reason=event.reason,
    )


def attempt(event: nouns.Attempt) -> event_pb2.Attempt:
    """Attempt."""
    return event_pb2.Attempt(
        number=event.number,
        engine=event.engine,
        target=event.target,
        outcome=int(event.outcome),  # type: ignore[arg-type]
        error_reason=event.error_reason,
        duration=duration(event.duration_s),
        ttft=None if event.ttft_s is None else duration(event.ttft_s),
        hedged=event.hedged,
        queue_time=duration(event.queue_s) if event.queue_s else None,
        usage=usage(event.usage) if event.usage_source else None,
        usage_source=USAGE_SOURCES[event.usage_source],
        cost_micro_usd=event.cost_micro_usd if event.usage_source else None,
    )


def usage(used: Usage) -> event_pb2.Usage:
    """Usage."""
    return event_pb2.Usage(
        prompt_token_count=used.prompt_token_count,
        completion_token_count=used.completion_token_count,
        cached_prompt_token_count=used.cached_prompt_token_count,
        reasoning_token_count=used.reasoning_token_count,
        estimated=used.estimated,
    )


def receipt(done: nouns.Receipt) -> event_pb2.Receipt:
    """Receipt."""
    return event_pb2.Receipt(
        request_id=done.request_id,
        model=done.model,
        engine=done.engine,
        target=done.target,
        target_model=done.target_model,
        attempts=[attempt(one) for one in done.attempts],
        cache=cache(done.cache) if done.cache else None,
        safety=[safety(one) for one in done.safety],
        cost_micro_usd=done.cost_micro_usd,
        duration=duration(done.duration_s),
        ttft=None if done.ttft_s is None else duration(done.ttft_s),
        system_fingerprint=done.system_fingerprint,
        usage=usage(done.usage),
        limits=[limit(one) for one in done.limits],
    )


def completed(event: nouns.Completed) -> event_pb2.Completed:
    """Completed."""
    return event_pb2.Completed(usage=usage(event.usage), receipt=receipt(event.receipt))


def generation(happened: list[nouns.Event]) -> event_pb2.Generation:
    """A complete answer, from everything that happened."""
    done = happened[-1]
    assert isinstance(done, nouns.Completed)
    return event_pb2.Generation(
        request_id=done.receipt.request_id,
        model=done.receipt.model,
        route_reason=done.receipt.route_reason,
        created_time=timestamp(done.receipt.created_time),
        choices=[
            event_pb2.Choice(
                index=choice.index,
                text=choice.text,
                reasoning=choice.reasoning,
                refusal=choice.refusal,
                tool_calls=[
                    generation_pb2.ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)
                    for _, call in sorted(choice.tool_calls.items())
                ],
                finish_reason=int(choice.finish_reason or 0),  # type: ignore[arg-type]
                stop_sequence=choice.stop_sequence,
                logprobs=[_logprob(one) for one in choice.logprobs],
            )
            for choice in put_together(happened)
        ],
        usage=usage(done.usage),
        receipt=receipt(done.receipt),
    )


def seconds(span: Duration) -> float:
    """A Duration in seconds, whatever a caller put into it."""
    return span.seconds + span.nanos / 1e9


def duration(span_s: float) -> Duration:
    """Seconds as a Duration."""
    whole = int(span_s)
    return Duration(seconds=whole, nanos=int((span_s - whole) * 1e9))


def timestamp(time_s: float) -> Timestamp:
    """Seconds since the epoch as a Timestamp."""
    whole = int(time_s)
    return Timestamp(seconds=whole, nanos=int((time_s - whole) * 1e9))


_EVENTS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    nouns.Started: ("started", started),
    Delta: ("delta", delta),
    ChoiceFinished: ("choice_finished", choice_finished),
    nouns.SafetyEvent: ("safety", safety),
    nouns.CacheEvent: ("cache", cache),
    nouns.AttemptEvent: ("attempt", lambda event: event_pb2.AttemptEvent(attempt=attempt(event.attempt))),
    nouns.Completed: ("completed", completed),
}
