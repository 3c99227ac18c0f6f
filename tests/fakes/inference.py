"""A scriptable inference service over real gRPC: the model's name says how it answers.

Any name answers `echo: ` and the prompt. Names with a meaning of their own:

    error-<CODE>        fails at once; NOT_FOUND as MODEL_NOT_FOUND, INVALID_ARGUMENT naming spec.sampling.seed
    blocked             the prompt is refused by safety, categories hate and violence
    break               two deltas, then UNAVAILABLE
    truncate            two deltas, then an OK end without `completed`
    bug                 two deltas, then UNKNOWN
    silent              nothing at all until it is cancelled
    stall               one delta, then nothing until it is cancelled
    gate                one delta, then the rest once `FakeInference.gate` is set
    late, late-error    nothing until `FakeInference.gate` is set, then the answer, or UNAVAILABLE
    limited             any answer of it says where limits stand
    over, over-budget, too-large
                        refused: a limit is used up for some seconds, for the day, or smaller than the request
    spared              one target failed, one was passed over, the third answered
    base                takes raw prompts only, says the catalogue
    tools, reasoning, refusal, logprobs, filtered, flagged, cached, stale

Of several raw prompts in one request, `fail` fails by itself, and so does `fail-late` once the gate is set. The server
is lost with the first calls for `lost`, as often as another is asked. A prompt that begins with `too-long` is longer
than the context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kit.dial import REPLICA_WAITS_S
from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound, ResourceExhausted, error_of
from kit.status import to_status
from millrace.inference.v1 import event_pb2 as ev
from millrace.inference.v1 import generation_pb2, model_pb2, usage_pb2, usage_service_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.inference_service_pb2_grpc import (
    InferenceServiceServicer,
    add_InferenceServiceServicer_to_server,
)
from millrace.inference.v1.usage_service_pb2_grpc import UsageServiceServicer, add_UsageServiceServicer_to_server

CREATED_S = 1_700_000_000
MODELS = ("echo", "org/model-with/slashes", "millrace-embedded", "base")
_REFUSALS = {
    "over": ("RATE_LIMITED", 12_001),
    "over-budget": ("BUDGET_EXCEEDED", 7_200_000),
    "too-large": ("TOKENS_LIMITED", None),
}
CATEGORIES = ("harassment", "hate", "violence", "illicit")
TARGETS = (
    usage_pb2.TargetStats(
        target="fake-0", target_model="m", breaker_state=usage_pb2.BREAKER_STATE_OPEN,
        retry_delay=Duration(seconds=30), call_count=7, failed_call_count=5, retry_count=2, skipped_call_count=9,
    ),
    usage_pb2.TargetStats(
        target="fake-1", target_model="m", breaker_state=usage_pb2.BREAKER_STATE_CLOSED, running_count=3,
        waiting_count=4, call_count=8, hedge_count=1, ttft_average=Duration(nanos=250_000_000),
        ttft_p95=Duration(nanos=500_000_000),
    ),
)  # fmt: skip

Event = ev.Delta | ev.ChoiceFinished | ev.CacheEvent | ev.AttemptEvent | ev.SafetyEvent | ev.Completed


class FakeInference(InferenceServiceServicer, UsageServiceServicer):
    """Answers by script and remembers what it was asked.

    Attributes:
        target: Where it serves.
        specs: Every spec that came, in order.
        metadata: Of the last call.
        timeout_s: Of the last call.
        began: Set when a scripted model begins to wait.
        cancelled: Set when a call is cancelled.
        gate: Lets the model `gate` go on.
        lost_count: Calls with which the server went away.
    """

    def __init__(self) -> None:
        self.target = ""
        self.health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self.reset()

    def reset(self) -> None:
        """Forgets what it was asked."""
        self.specs: list[generation_pb2.GenerationSpec] = []
        self.metadata: dict[str, str | bytes] = {}
        self.timeout_s: float | None = None
        self.lost_count = 0
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.gate = asyncio.Event()

    async def start(self) -> str:
        """Serves on a free port; returns the target."""
        self._server = grpc.aio.server()
        add_InferenceServiceServicer_to_server(self, self._server)
        add_UsageServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        names = ("", "millrace.inference.v1.InferenceService", "dependency/cache", "dependency/safety")
        for name in names:
            await self.set_serving(name, True)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self.target = f"127.0.0.1:{port}"
        return self.target

    async def stop(self) -> None:
        """Stops at once."""
        if self._server is not None:
            await self._server.stop(None)

    async def set_serving(self, name: str, serving: bool) -> None:
        """Sets what health says about a name."""
        states = health_pb2.HealthCheckResponse
        await self.health.set(name, states.SERVING if serving else states.NOT_SERVING)

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        """Answers in one piece."""
        self._note(context)
        try:
            await self._fail_prompt(_prompt(request.spec))
            return pb.GenerateResponse(generation=await self._generation(request.spec, request.request_id))
        except MillraceError as error:
            await _abort(context, error, request)
            raise
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def StreamGenerate(
        self, request: pb.StreamGenerateRequest, context: Any
    ) -> AsyncIterator[pb.StreamGenerateResponse]:
        """Answers as events."""
        self._note(context)
        sequence = 1
        created = Timestamp(seconds=CREATED_S)
        model = request.spec.model
        started = ev.Started(
            request_id=request.request_id, model=model, created_time=created, cache=_cache(model), limits=_limits(model)
        )
        try:
            yield pb.StreamGenerateResponse(sequence=sequence, started=started)
            await self._fail_prompt(_prompt(request.spec))
            async for event in self._script(request.spec, request.request_id):
                sequence += 1
                yield pb.StreamGenerateResponse(sequence=sequence, **{_field(event): event})
        except MillraceError as error:
            await _abort(context, error, request)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise

    async def BatchGenerate(self, request: pb.BatchGenerateRequest, context: Any) -> pb.BatchGenerateResponse:
        """Answers each prompt; a prompt `fail` fails by itself."""
        self._note(context)
        items = []
        for index, spec in enumerate(request.specs):
            try:
                await self._fail_prompt(_prompt(spec))
                items.append(pb.BatchItem(generation=await self._generation(spec, f"{request.request_id}.{index}")))
            except MillraceError as error:
                items.append(pb.BatchItem(error=_item_error(error)))
        return pb.BatchGenerateResponse(request_id=request.request_id, items=items)

    async def Embed(self, request: pb.EmbedRequest, context: Any) -> pb.EmbedResponse:
        """Gives each text the vector (length, 0.5, -1), cut to the wanted length."""
        self._note(context)
        await self._fail_early(request.model, context)
        size = request.dimension_count if request.HasField("dimension_count") else 3
        vectors = [pb.Embedding(values=[len(text), 0.5, -1.0][:size]) for text in request.texts]
        usage = ev.Usage(prompt_token_count=sum(len(text.split()) for text in request.texts))
        receipt = _receipt(request.request_id, request.model, _attempts(request.model))
        return pb.EmbedResponse(
            request_id=request.request_id, model=request.model, embeddings=vectors, usage=usage, receipt=receipt
        )

    async def Moderate(self, request: pb.ModerateRequest, context: Any) -> pb.ModerateResponse:
        """Flags texts with the word `hate`."""
        self._note(context)
        results = []
        for text in request.texts:
            scores = {name: 0.9 if name in text.split() else 0.01 for name in CATEGORIES}
            found = [pb.ModerationCategory(name=n, flagged=s > 0.5, score=s) for n, s in scores.items()]
            results.append(pb.ModerationResult(flagged=any(c.flagged for c in found), categories=found))
        return pb.ModerateResponse(request_id=request.request_id, model="default@1", results=results)

    async def ReportFalseHit(self, request: pb.ReportFalseHitRequest, context: Any) -> pb.ReportFalseHitResponse:
        """Knows one entry, of user `ann`."""
        self._note(context)
        removed = (request.entry_id, request.end_user_id, request.text) == ("e1", "ann", "hi")
        return pb.ReportFalseHitResponse(request_id=request.request_id, removed=removed)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        """Lists MODELS."""
        self._note(context)
        return pb.ListModelsResponse(models=[_model(name) for name in MODELS])

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        """Gets one of MODELS."""
        self._note(context)
        if request.name not in MODELS:
            await context.abort_with_status(to_status(_no_model(request.name)))
        return pb.GetModelResponse(model=_model(request.name))

    async def GetStats(self, request: Any, context: Any) -> usage_service_pb2.GetStatsResponse:
        """Gives fixed figures."""
        totals = usage_pb2.UsageTotals(
            request_count=10,
            failed_request_count=1,
            prompt_token_count=100,
            completion_token_count=50,
            cache_hit_count=3,
            cache_miss_count=6,
            cost_micro_usd=2500,
        )
        latency = usage_pb2.LatencySummary(duration_p50=_seconds(0.25), duration_p95=_seconds(2))
        return usage_service_pb2.GetStatsResponse(
            totals=totals, totals_by_model={"echo": totals}, latency=latency, uptime=_seconds(60), running_count=2,
            targets=TARGETS,
        )  # fmt: skip

    def _note(self, context: Any) -> None:
        self.metadata = dict(context.invocation_metadata())
        self.timeout_s = context.time_remaining()

    async def _fail_early(self, model: str, context: Any) -> None:
        if model.startswith("error-"):
            await context.abort_with_status(to_status(_scripted_error(model)))

    async def _fail_prompt(self, prompt: str) -> None:
        if prompt == "fail-late":
            await self.gate.wait()
        if prompt == "lost" and self.lost_count < len(REPLICA_WAITS_S):
            self.lost_count += 1
            raise error_of(Code.UNAVAILABLE, "SERVER_STOPPING", "The server is stopping.")
        if prompt.startswith("too-long"):
            raise InvalidArgument("spec.input", "longer than the context", reason="CONTEXT_LENGTH_EXCEEDED")
        if prompt in ("fail", "fail-late"):
            raise InvalidArgument("spec.raw_prompt", "told to fail")

    async def _generation(self, spec: generation_pb2.GenerationSpec, request_id: str) -> ev.Generation:
        """Folds a script's events into a complete answer, as inference does."""
        generation = ev.Generation(request_id=request_id, model=spec.model, created_time=Timestamp(seconds=CREATED_S))
        choices: dict[int, ev.Choice] = {}
        async for event in self._script(spec, request_id):
            if isinstance(event, ev.Delta):
                _grow(choices.setdefault(event.choice_index, ev.Choice(index=event.choice_index)), event)
            elif isinstance(event, ev.ChoiceFinished):
                choice = choices.setdefault(event.choice_index, ev.Choice(index=event.choice_index))
                choice.finish_reason = event.finish_reason
            elif isinstance(event, ev.Completed):
                generation.usage.CopyFrom(event.usage)
                generation.receipt.CopyFrom(event.receipt)
        generation.choices.extend(choices[index] for index in sorted(choices))
        return generation

    async def _script(self, spec: generation_pb2.GenerationSpec, request_id: str) -> AsyncIterator[Event]:
        """What the named model does."""
        self.specs.append(spec)
        model = spec.model
        if model.startswith("error-"):
            raise _scripted_error(model)
        if model in _REFUSALS:
            reason, wait_ms = _REFUSALS[model]
            raise ResourceExhausted(reason, "a limit is used up", retry_after_ms=wait_ms)
        if model == "blocked":
            metadata = {"categories": "hate,violence"}
            raise FailedPrecondition("CONTENT_BLOCKED", "The prompt was refused by policy default.", metadata=metadata)
        for attempt in _attempts(model):
            if attempt.outcome != ev.ATTEMPT_OUTCOME_SKIPPED:
                yield ev.AttemptEvent(attempt=ev.Attempt(number=attempt.number, engine="fake", target=attempt.target))
            if attempt.outcome != ev.ATTEMPT_OUTCOME_OK:
                yield ev.AttemptEvent(attempt=attempt)
        if model == "stale":
            yield ev.CacheEvent(outcome=ev.CACHE_OUTCOME_STALE)
        if model == "silent":
            await self._wait_for_cancel()
        if model in ("late", "late-error"):
            self.began.set()
            await self.gate.wait()
        if model == "late-error":
            raise error_of(Code.UNAVAILABLE, "UPSTREAM_BROKE", "The upstream broke off.")
        for index in range(spec.sampling.n or 1):
            async for event in self._choice(spec, index):
                yield event
        if model == "truncate":
            return
        receipt = _receipt(request_id, model, _attempts(model))
        if model == "flagged":
            receipt.safety.add(direction=ev.SAFETY_DIRECTION_OUTPUT, verdict=ev.SAFETY_VERDICT_FLAG)
        usage = ev.Usage(prompt_token_count=5, completion_token_count=4, cached_prompt_token_count=2)
        yield ev.Completed(usage=usage, receipt=receipt)

    async def _choice(self, spec: generation_pb2.GenerationSpec, index: int) -> AsyncIterator[Event]:
        """The deltas of one choice, and its end."""
        model = spec.model
        reason = ev.FINISH_REASON_STOP
        for number, delta in enumerate(_deltas(spec)):
            delta.choice_index = index
            yield delta
            if number == 0 and model == "stall":
                await self._wait_for_cancel()
            if number == 0 and model == "gate":
                self.began.set()
                await self.gate.wait()
            if number == 1 and model == "break":
                raise error_of(Code.UNAVAILABLE, "UPSTREAM_BROKE", "The upstream broke off.")
            if number == 1 and model == "bug":
                raise error_of(Code.UNKNOWN, "UNKNOWN", "Unexpected.")
            if number == 1 and model == "truncate":
                return
        if model == "tools":
            reason = ev.FINISH_REASON_TOOL_CALLS
        if model == "filtered":
            reason = ev.FINISH_REASON_CONTENT_FILTER
        yield ev.ChoiceFinished(choice_index=index, finish_reason=reason)

    async def _wait_for_cancel(self) -> None:
        self.began.set()
        await asyncio.Event().wait()


def _cache(model: str) -> ev.CacheEvent:
    outcomes = {"cached": ev.CACHE_OUTCOME_EXACT, "stale": ev.CACHE_OUTCOME_STALE}
    if model not in outcomes:
        return ev.CacheEvent(outcome=ev.CACHE_OUTCOME_MISS)
    return ev.CacheEvent(outcome=outcomes[model], age=_seconds(2.5), entry_id="e1")


def _attempts(model: str) -> list[ev.Attempt]:
    """Who is asked for an answer of the named model, and what becomes of it."""
    if model == "cached":
        return []
    down = ev.Attempt(
        number=1, engine="fake", target="fake-0", outcome=ev.ATTEMPT_OUTCOME_FAILED, error_reason="UPSTREAM_DOWN",
        duration=_seconds(0.125),
    )  # fmt: skip
    if model == "stale":
        return [down]
    good = ev.Attempt(
        number=1, engine="fake", target="fake-1", outcome=ev.ATTEMPT_OUTCOME_OK, duration=_seconds(0.5),
        ttft=_seconds(0.25),
    )  # fmt: skip
    if model != "spared":
        return [good]
    good.number, good.hedged = 3, True
    skipped = ev.Attempt(
        number=2, engine="fake", target="fake-2", outcome=ev.ATTEMPT_OUTCOME_SKIPPED, error_reason="BREAKER_OPEN"
    )
    return [down, skipped, good]


def _receipt(request_id: str, model: str, attempts: list[ev.Attempt]) -> ev.Receipt:
    return ev.Receipt(
        request_id=request_id, model=model, target="fake-1", attempts=attempts, cache=_cache(model),
        cost_micro_usd=1234, duration=_seconds(0.75), ttft=_seconds(0.25),
        usage=ev.Usage(estimated=model == "uncounted"), limits=_limits(model),
    )  # fmt: skip


async def _abort(context: Any, error: MillraceError, request: pb.GenerateRequest | pb.StreamGenerateRequest) -> None:
    """Fails a call as inference does: the receipt beside the details, with the try that failed."""
    model = request.spec.model
    attempt = ev.Attempt(number=1, engine="fake", target="fake-1", outcome=ev.ATTEMPT_OUTCOME_FAILED)
    if model in ("break", "bug"):
        attempt.ttft.CopyFrom(_seconds(0.25))
    receipt = ev.Receipt(
        request_id=request.request_id, model=model, attempts=[attempt], cache=_cache(model), limits=_limits(model)
    )
    status, trailer = to_status(error), ("x-millrace-receipt-bin", receipt.SerializeToString())
    await context.abort(status.code, status.details, (*status.trailing_metadata, trailer))


def _limits(model: str) -> list[ev.LimitState]:
    """Where the limits of the caller of some models stand: requests by the minute twice, and tokens."""
    if model != "limited" and model not in _REFUSALS:
        return []
    left = 0 if model == "over" else 3
    minute, tokens = ev.LIMIT_WINDOW_MINUTE, ev.LIMIT_UNIT_TOKENS
    return [
        ev.LimitState(name="user", unit=1, window=minute, limit=5, remaining=left, reset=_seconds(24.5)),
        ev.LimitState(name="tenant", unit=1, window=minute, limit=90, remaining=80, reset=_seconds(7)),
        ev.LimitState(name="user", unit=tokens, window=ev.LIMIT_WINDOW_DAY, limit=9, remaining=1, reset=_seconds(7)),
        ev.LimitState(name="user", unit=tokens, window=minute, limit=1000, remaining=900, reset=_seconds(100.25)),
    ]


def _deltas(spec: generation_pb2.GenerationSpec) -> list[ev.Delta]:
    """What the named model says."""
    if spec.model == "tools":
        first = ev.ToolCallDelta(index=0, id="call_1", name="get_weather")
        rest = [ev.ToolCallDelta(index=0, arguments_json=text) for text in ('{"city":', '"Bern"}')]
        return [ev.Delta(tool_calls=[call]) for call in (first, *rest)]
    if spec.model == "reasoning":
        return [ev.Delta(reasoning="Let me see."), ev.Delta(text="42")]
    if spec.model == "refusal":
        return [ev.Delta(refusal="I will not.")]
    words = f"echo: {_prompt(spec)}".split(" ")
    pieces = [word if i == 0 else f" {word}" for i, word in enumerate(words)]
    if spec.sampling.logprobs:
        return [ev.Delta(text=piece, logprobs=[_logprob(piece)]) for piece in pieces]
    return [ev.Delta(text=piece) for piece in pieces]


def _logprob(token: str) -> ev.TokenLogprob:
    top = ev.TopLogprob(token=token, logprob=-0.5, token_bytes=token.encode())
    return ev.TokenLogprob(token=token, logprob=-0.5, token_bytes=token.encode(), top=[top])


def _prompt(spec: generation_pb2.GenerationSpec) -> str:
    if spec.WhichOneof("input") == "raw_prompt":
        return spec.raw_prompt
    return "".join(part.text for part in spec.conversation.messages[-1].parts)


def _field(event: Event) -> str:
    """Name of the event's field in StreamGenerateResponse."""
    names: dict[type, str] = {
        ev.Delta: "delta",
        ev.ChoiceFinished: "choice_finished",
        ev.CacheEvent: "cache",
        ev.AttemptEvent: "attempt",
        ev.SafetyEvent: "safety",
        ev.Completed: "completed",
    }
    return names[type(event)]


def _grow(choice: ev.Choice, delta: ev.Delta) -> None:
    choice.text += delta.text
    choice.reasoning += delta.reasoning
    choice.refusal += delta.refusal
    choice.logprobs.extend(delta.logprobs)
    for fragment in delta.tool_calls:
        if fragment.id:
            choice.tool_calls.add(id=fragment.id, name=fragment.name)
        choice.tool_calls[fragment.index].arguments_json += fragment.arguments_json


def _scripted_error(model: str) -> MillraceError:
    code = Code[model.removeprefix("error-")]
    if code is Code.NOT_FOUND:
        return _no_model(model)
    if code is Code.INVALID_ARGUMENT:
        return InvalidArgument("spec.sampling.seed", "not supported by this model", reason="UNSUPPORTED_PARAMETER")
    retry_after_ms = 1500 if code in (Code.RESOURCE_EXHAUSTED, Code.UNAVAILABLE) else None
    return error_of(code, f"SCRIPTED_{code.name}", f"scripted {code.name}", retry_after_ms=retry_after_ms)


def _no_model(name: str) -> NotFound:
    return NotFound("MODEL_NOT_FOUND", f"There is no model {name!r}.")


def _item_error(error: MillraceError) -> pb.ItemError:
    """The error as the status of a whole call would carry it."""
    from google.rpc import status_pb2

    status = to_status(error)
    packed = status_pb2.Status()
    packed.ParseFromString(dict(status.trailing_metadata)["grpc-status-details-bin"])
    details = [AnyMessage(type_url=detail.type_url, value=detail.value) for detail in packed.details]
    return pb.ItemError(code=packed.code, message=packed.message, details=details)


def _model(name: str) -> model_pb2.Model:
    kinds = [model_pb2.MODEL_CAPABILITY_COMPLETION] + ([] if name == "base" else [model_pb2.MODEL_CAPABILITY_CHAT])
    return model_pb2.Model(
        name=name,
        owner="millrace",
        created_time=Timestamp(seconds=CREATED_S),
        capabilities=kinds,
        state=model_pb2.MODEL_STATE_READY,
    )


def _seconds(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
