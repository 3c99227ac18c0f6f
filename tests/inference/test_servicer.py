"""InferenceService over real gRPC, against an upstream on a real socket."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.errors import Code
from millrace.inference.v1 import generation_pb2, model_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from services.inference.routing.fleet import Fleet
from services.inference.servicer import BATCH_COUNT_MAX
from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.inference.suite import Serve, Suite, failure, kinds, only_tasks, spec, tasks_now, text_of

HANG_UP_S = 0.1
DEADLINE_S = 10.0


@pytest.fixture
async def suite(serve: Serve) -> Suite:
    """Inference alone: no cache, no safety."""
    return await serve()


async def test_generate(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A whole answer: choices, usage and a receipt that says who did what and for how much."""
    answer = await suite.generate(sampling=generation_pb2.SamplingParams(n=2))
    receipt = answer.receipt

    assert [(one.index, one.text, one.finish_reason) for one in answer.choices] == [
        (0, "Hello, world!", 1),
        (1, "Hello, world!", 1),
    ]
    assert (answer.usage.prompt_token_count, answer.usage.completion_token_count) == (11, 8)
    assert (receipt.engine, receipt.target, receipt.target_model) == ("openai", "fake:gpt", "gpt-0613")
    assert receipt.cost_micro_usd == 11 * 2 + 8 * 10
    assert receipt.attempts[0].outcome == 1
    assert receipt.duration.ToNanoseconds() >= receipt.ttft.ToNanoseconds() > 0
    assert upstream.asked[0].body["stream"], "only a stream shows in time that an upstream is silent"


async def test_stream(suite: Suite) -> None:
    """Started first, completed last, sequence numbers from 1 without a gap."""
    events = await suite.stream()

    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert kinds(events)[0] == "started"
    assert kinds(events)[-2:] == ["choice_finished", "completed"]
    assert kinds(events).count("completed") == 1
    assert text_of(events) == "Hello, world!"
    assert events[0].started.model == "gpt"
    assert events[-1].completed.usage.prompt_token_count == 11


@pytest.mark.parametrize(
    "reply",
    [
        Reply(cut_after=2),
        Reply(finish=None),
        Reply(done=False),
        Reply(fault_after=2),
        Reply(fault_after=2, fault='{"choices": ['),
    ],
    ids=["cut", "no finish", "no DONE", "error in-band", "malformed"],
)
async def test_a_broken_stream_never_completes(suite: Suite, upstream: OpenAIUpstream, reply: Reply) -> None:
    """What came before may have left; the end is a status, never `completed`."""
    upstream.replies["gpt"] = reply
    events: list[pb.StreamGenerateResponse] = []

    async def read() -> None:
        async for event in suite.start():
            events.append(event)

    error = await failure(read())

    assert error.code is Code.UNAVAILABLE
    assert error.reason.startswith("UPSTREAM_")
    assert "completed" not in kinds(events)


@pytest.mark.parametrize("reply", [Reply(finish=None), Reply(cut_after=1), Reply(done=False)], ids=str)
async def test_a_broken_answer_never_succeeds(suite: Suite, upstream: OpenAIUpstream, reply: Reply) -> None:
    """The same for an answer in one piece."""
    upstream.replies["gpt"] = reply

    assert (await failure(suite.generate())).code is Code.UNAVAILABLE


async def test_fallback(suite: Suite, upstream: OpenAIUpstream) -> None:
    """The next target answers, as an event and in the receipt; the first one's wait is not passed on as a failure."""
    upstream.replies["first"] = Reply(status=503)
    events = await suite.stream("spared")
    attempts = events[-1].completed.receipt.attempts

    assert kinds(events)[:5] == ["started", "attempt", "attempt", "attempt", "delta"]
    told = [event.attempt.attempt for event in events[1:4]]
    assert [(one.target, one.outcome, one.error_reason) for one in told] == [
        ("fake:first", 0, ""), ("fake:first", 2, "UPSTREAM_INTERNAL_SERVER"), ("fake:second", 0, ""),
    ]  # fmt: skip
    assert [(one.number, one.target, one.outcome) for one in attempts] == [(1, "fake:first", 2), (2, "fake:second", 1)]
    assert text_of(events) == "Hello, world!"


async def test_the_callers_fallbacks(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Models that the caller names are tried after the first one's targets."""
    upstream.replies["gpt"] = Reply(status=429, headers={"retry-after": "7"})
    answer = await suite.generate(routing=generation_pb2.RoutingPolicy(fallbacks=["any-2"]))

    assert [one.target for one in answer.receipt.attempts] == ["fake:gpt", "fake:*"]
    assert upstream.asked[1].body["model"] == "any-2"


async def test_no_fallback_after_the_first_delta(suite: Suite, upstream: OpenAIUpstream) -> None:
    """A stream that breaks later fails; the second target is not asked."""
    upstream.replies["first"] = Reply(cut_after=1)

    assert (await failure(suite.stream("spared"))).reason == "UPSTREAM_TRUNCATED"
    assert [asked.body["model"] for asked in upstream.asked] == ["first"]


async def test_an_upstreams_refusal_reaches_the_caller(suite: Suite, upstream: OpenAIUpstream) -> None:
    """With its code, its wait and its reason, in google.rpc details."""
    upstream.replies["gpt"] = Reply(status=429, headers={"retry-after": "7"})
    error = await failure(suite.generate())

    assert (error.code, error.reason, error.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT", 7_000)


@pytest.mark.parametrize(
    ("model", "code", "field"),
    [
        ("nobody", Code.NOT_FOUND, None),
        ("vectors", Code.INVALID_ARGUMENT, "spec.model"),
        ("auto", Code.FAILED_PRECONDITION, None),
    ],
)
async def test_models_that_cannot_be_asked(suite: Suite, model: str, code: Code, field: str | None) -> None:
    """Unknown, of the wrong kind, or `auto` where the models file does not describe it."""
    for error in (await failure(suite.generate(model)), await failure(suite.stream(model))):
        assert error.code is code
        assert [one.field for one in error.field_violations] == ([field] if field else [])


async def test_auto_says_why(serve: Serve) -> None:
    """The model that was chosen and the reason are in the answer."""
    suite = await serve("auto: {simple: gpt, complex: spared}")
    simple = await suite.generate("auto", "hello there")
    hard = await suite.stream("auto", "Compare these two designs and explain why one is better")

    assert (simple.model, hard[0].started.model) == ("gpt", "spared")
    assert simple.route_reason.startswith("simple")
    assert hard[0].started.route_reason.startswith("complex")


async def test_request_ids(suite: Suite) -> None:
    """The field's own id is echoed, a sane one from the metadata stands in, and one is made where there is none."""
    asked = pb.GenerateRequest(request_id="mine-1", spec=spec())
    own = (await suite.stub.Generate(asked, timeout=DEADLINE_S)).generation
    given = (
        await suite.stub.Generate(
            pb.GenerateRequest(spec=spec()), metadata=[("x-request-id", "theirs-1")], timeout=DEADLINE_S
        )
    ).generation
    made = await suite.generate()

    assert (own.request_id, own.receipt.request_id) == ("mine-1", "mine-1")
    assert made.request_id
    assert given.request_id
    assert (await failure(suite.stub.Generate(pb.GenerateRequest(request_id="a b", spec=spec())))).code is (
        Code.INVALID_ARGUMENT
    )


@pytest.mark.parametrize("after", [-1, 0, 2], ids=["before headers", "before the first token", "midway"])
async def test_cancelling_a_stream(suite: Suite, upstream: OpenAIUpstream, after: int) -> None:
    """The upstream sees it within 100 ms, the slot is free, and no task is left."""
    await suite.generate()
    before = tasks_now()
    upstream.replies["gpt"] = Reply(stall_after=after)
    call = suite.start()
    asked = await upstream.next(2)
    await asked.began.wait()
    if after > 0:
        while (await call.read()).WhichOneof("event") != "delta":
            pass
    assert suite.inference.pipeline._admission.running_count == 1
    call.cancel()
    async with asyncio.timeout(HANG_UP_S):
        await asked.hung_up.wait()
    await only_tasks(before)

    assert suite.inference.pipeline._admission.running_count == 0


async def test_cancelling_a_whole_answer(suite: Suite, upstream: OpenAIUpstream) -> None:
    """So it is for a unary call."""
    await suite.generate()
    before = tasks_now()
    upstream.replies["gpt"] = Reply(stall_after=0)
    call = suite.stub.Generate(pb.GenerateRequest(spec=spec()), timeout=DEADLINE_S)
    asked = await upstream.next(2)
    await asked.began.wait()
    call.cancel()
    async with asyncio.timeout(HANG_UP_S):
        await asked.hung_up.wait()
    await only_tasks(before)

    assert suite.inference.pipeline._admission.running_count == 0


async def test_the_callers_deadline_reaches_the_upstream(suite: Suite, upstream: OpenAIUpstream) -> None:
    """When the caller's time is over, so is the upstream's work."""
    upstream.replies["gpt"] = Reply(stall_after=1)

    async def read() -> None:
        async for _ in suite.start(timeout=0.2):
            pass

    assert (await failure(read())).code is Code.DEADLINE_EXCEEDED
    async with asyncio.timeout(HANG_UP_S):
        await upstream.asked[0].hung_up.wait()


async def test_a_full_house_refuses_early(serve: Serve, upstream: OpenAIUpstream) -> None:
    """RESOURCE_EXHAUSTED with a wait, and room again when the one before is done."""
    suite = await serve(running_count_max=1)
    upstream.replies["gpt"] = Reply(gate_after=1)
    call = suite.start()
    asked = await upstream.next()
    await asked.began.wait()
    error = await failure(suite.generate("any-1"))
    asked.gate.set()
    events = [event async for event in call]

    assert (error.code, error.reason, error.retry_after_ms) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNNING", 1_000)
    assert kinds(events)[-1] == "completed"
    assert (await suite.generate("any-1")).choices[0].text == "Hello, world!"


async def test_batch(suite: Suite, upstream: OpenAIUpstream) -> None:
    """Each prompt succeeds or fails by itself, with full google.rpc details, in order."""
    upstream.replies["any-down"] = Reply(status=503, headers={"retry-after": "3"})
    asked = pb.BatchGenerateRequest(request_id="b", specs=[spec("gpt"), spec("nobody"), spec("any-down"), spec("gpt")])
    answer = await suite.stub.BatchGenerate(asked, timeout=DEADLINE_S)
    good, lost, down, last = answer.items
    info, retry = details_pb2.ErrorInfo(), details_pb2.RetryInfo()

    assert answer.request_id == "b"
    assert [one.generation.choices[0].text for one in (good, last)] == ["Hello, world!"] * 2
    assert [one.generation.request_id for one in (good, last)] == ["b.0", "b.3"]
    assert (lost.error.code, down.error.code) == (Code.NOT_FOUND, Code.UNAVAILABLE)
    assert lost.error.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("MODEL_NOT_FOUND", "millrace")
    assert any(one.Unpack(retry) for one in down.error.details)
    assert retry.retry_delay.seconds == 3


@pytest.mark.parametrize(
    ("specs", "field"),
    [([], "specs"), ([spec()] * (BATCH_COUNT_MAX + 1), "specs"), ([spec(), spec("")], "specs[1].model")],
    ids=["none", "too many", "a bad one"],
)
async def test_batch_limits(suite: Suite, specs: list[Any], field: str) -> None:
    """A batch that is wrong in itself is refused before anything is generated."""
    error = await failure(suite.stub.BatchGenerate(pb.BatchGenerateRequest(specs=specs), timeout=DEADLINE_S))

    assert [one.field for one in error.field_violations] == [field]


async def test_a_batch_is_bounded_and_cancelled_whole(serve: Serve, upstream: OpenAIUpstream) -> None:
    """No more items run at once than is set, and all of them stop with their caller."""
    suite = await serve(batch_concurrency=2)
    await suite.generate()
    before = tasks_now()
    upstream.replies["gpt"] = Reply(stall_after=0)
    call = suite.stub.BatchGenerate(pb.BatchGenerateRequest(specs=[spec()] * 5), timeout=DEADLINE_S)
    for number in (2, 3):
        await (await upstream.next(number)).began.wait()
    call.cancel()
    async with asyncio.timeout(HANG_UP_S):
        for asked in upstream.asked[1:]:
            await asked.hung_up.wait()
    await only_tasks(before)

    assert len(upstream.asked) == 1 + 2


async def test_embed(suite: Suite) -> None:
    """Vectors in the order of the texts, and the tokens used."""
    asked = pb.EmbedRequest(model="vectors", texts=["a", "abc"], dimension_count=2)
    answer = await suite.stub.Embed(asked, timeout=DEADLINE_S)

    assert [list(one.values) for one in answer.embeddings] == [[1.0, 0.5], [3.0, 0.5]]
    assert (answer.model, answer.usage.prompt_token_count) == ("vectors", 2)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": "vectors"}, "texts"),
        ({"model": "vectors", "texts": [""]}, "texts[0]"),
        ({"model": "vectors", "texts": ["a"], "dimension_count": 0}, "dimension_count"),
        ({"model": "gpt", "texts": ["a"]}, "model"),
    ],
)
async def test_embed_limits(suite: Suite, fields: dict[str, Any], field: str) -> None:
    """Each names its field; a chat model embeds nothing."""
    error = await failure(suite.stub.Embed(pb.EmbedRequest(**fields), timeout=DEADLINE_S))

    assert [one.field for one in error.field_violations] == [field]


async def test_count_tokens_of_an_upstream(suite: Suite) -> None:
    """An upstream has no way to say."""
    error = await failure(suite.stub.CountTokens(pb.CountTokensRequest(spec=spec()), timeout=DEADLINE_S))

    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "COUNT_TOKENS_UNSUPPORTED")


async def test_models(suite: Suite) -> None:
    """The list has what can be named as it stands; a name behind a pattern can be got."""
    listed = (await suite.stub.ListModels(pb.ListModelsRequest(), timeout=DEADLINE_S)).models
    got = (await suite.stub.GetModel(pb.GetModelRequest(name="any-7"), timeout=DEADLINE_S)).model

    assert [one.name for one in listed] == ["gpt", "spared", "vectors"]
    assert listed[1].targets == ["fake:first", "fake:second"]
    assert listed[0].capabilities == [model_pb2.MODEL_CAPABILITY_CHAT, model_pb2.MODEL_CAPABILITY_COMPLETION]
    assert listed[2].capabilities == [model_pb2.MODEL_CAPABILITY_EMBEDDING]
    assert (got.name, got.owner, got.state) == ("any-7", "fake", model_pb2.MODEL_STATE_READY)
    assert not got.HasField("loaded_share")


async def test_a_model_that_is_loading_says_how_far_it_is(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fleet knows of its weights is told, nothing read included."""
    monkeypatch.setattr(Fleet, "loaded_share_of", lambda *_: 0.0)

    got = (await suite.stub.GetModel(pb.GetModelRequest(name="gpt"), timeout=DEADLINE_S)).model

    assert got.HasField("loaded_share")
    assert got.loaded_share == 0.0


@pytest.mark.parametrize(("name", "code"), [("", Code.INVALID_ARGUMENT), ("nobody", Code.NOT_FOUND)])
async def test_models_that_are_not_there(suite: Suite, name: str, code: Code) -> None:
    """No name, or one that nothing answers to."""
    assert (await failure(suite.stub.GetModel(pb.GetModelRequest(name=name), timeout=DEADLINE_S))).code is code


async def test_moderation_without_safety(suite: Suite) -> None:
    """Without a safety service there is nobody to judge."""
    error = await failure(suite.stub.Moderate(pb.ModerateRequest(texts=["a"]), timeout=DEADLINE_S))

    assert (error.code, error.reason) == (Code.UNIMPLEMENTED, "SAFETY_NOT_CONFIGURED")


async def test_a_bug_tells_nothing(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error is INTERNAL without detail and counts as failed; in a batch it is its item's alone."""

    def bug(*_: object) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(suite.inference.pipeline._attempts, "_use_engine", bug)
    error = await failure(suite.generate())
    batch = await suite.stub.BatchGenerate(pb.BatchGenerateRequest(specs=[spec()]), timeout=DEADLINE_S)

    assert (error.code, batch.items[0].error.code) == (Code.INTERNAL, Code.INTERNAL)
    assert "secret" not in error.message + batch.items[0].error.message
    assert suite.inference.pipeline._settlement.totals.failed_request_count == 2


async def test_health_names(suite: Suite) -> None:
    """Every model that can answer is a name in the health service."""
    stub = health_pb2_grpc.HealthStub(suite.channel)
    for name in ("", "model/gpt", "model/vectors", "millrace.inference.v1.InferenceService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.Check(health_pb2.HealthCheckRequest(service="model/other"))
