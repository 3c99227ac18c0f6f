"""Stock clients against the whole suite: openai-python, plain gRPC stubs, a plain health stub, reflection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import httpx
import openai
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from millrace.inference.v1 import event_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc
from tests.flow.conftest import NAMES, Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: millrace-embedded
    targets: [{{engine: local, model: embedded}}]
  - name: all-minilm-l6-v2
    kind: embedding
    targets: [{{engine: local, model: all-minilm-l6-v2}}]
  - name: "fake*"
    targets: [{{engine: openai, upstream: fake, model: "*", price: {{prompt: 1, completion: 2}}}}]
  - name: fallback
    targets:
      - {{engine: openai, upstream: fake, model: fake-error-500, name: first}}
      - {{engine: openai, upstream: fake, model: fake, name: second}}
auto: {{simple: millrace-embedded, complex: fake}}
"""
MESSAGES: Any = [{"role": "user", "content": "What is Millrace?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def models() -> str:
    """The embedded models and an upstream."""
    return MODELS


@pytest_asyncio.fixture(loop_scope="module")
async def client(suite: Suite) -> AsyncIterator[openai.AsyncOpenAI]:
    """The stock SDK, with no retries so that each error is seen."""
    async with openai.AsyncOpenAI(base_url=f"{suite.url}/v1", api_key="any", max_retries=0) as made:
        yield made


async def test_chat(client: openai.AsyncOpenAI) -> None:
    """The embedded model answers a question about Millrace, and the same question again from the cache."""
    for cached in ("miss", "exact"):
        raw = await client.chat.completions.with_raw_response.create(model="millrace-embedded", messages=MESSAGES)
        answer = raw.parse()
        assert "Millrace" in (answer.choices[0].message.content or "")
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert raw.headers["x-millrace-cache"] == cached
        assert raw.headers["x-request-id"]


async def test_input_tokens_are_counted(client: openai.AsyncOpenAI) -> None:
    """A local model counts what it is then billed for, a conversation and instructions included; upstreams cannot."""
    asked: Any = {"model": "millrace-embedded", "input": "What is Millrace?", "instructions": "Be brief."}
    counted = await client.responses.input_tokens.count(**asked)
    first = await client.responses.create(**asked)
    assert first.usage
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", first.usage.input_tokens)

    more: Any = {"model": "millrace-embedded", "input": "And its cache?", "previous_response_id": first.id}
    second = await client.responses.create(**more, store=False)
    assert second.usage
    assert (await client.responses.input_tokens.count(**more)).input_tokens == second.usage.input_tokens
    with pytest.raises(openai.InternalServerError, match="cannot count tokens; a local model can") as refused:
        await client.responses.input_tokens.count(model="fake", input="hi")
    assert refused.value.status_code == 501
    with pytest.raises(openai.BadRequestError) as unknown:
        await client.responses.input_tokens.count(**asked, personality="friendly")
    assert unknown.value.param == "personality"


async def test_stream_with_usage(client: openai.AsyncOpenAI) -> None:
    """A stream ends with its finish and then its usage; the text is that of the whole answer."""
    stream = await client.chat.completions.create(
        model="millrace-embedded", messages=MESSAGES, stream=True, stream_options={"include_usage": True},
        extra_headers={"Cache-Control": "no-store"},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = await client.chat.completions.create(model="millrace-embedded", messages=MESSAGES)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 4, "the answer came in one piece"


@pytest.mark.parametrize("stream", [False, True])
async def test_tools(client: openai.AsyncOpenAI, stream: bool) -> None:
    """A tool call of an upstream arrives whole, streamed or not."""
    asked: Any = {"model": "fake-tools", "messages": MESSAGES, "tools": TOOLS}
    if stream:
        chunks = [chunk async for chunk in await client.chat.completions.create(stream=True, **asked)]
        calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        name, arguments = calls[0].function.name, "".join(call.function.arguments or "" for call in calls)
        finish = chunks[-1].choices[0].finish_reason
    else:
        choice = (await client.chat.completions.create(**asked)).choices[0]
        call = choice.message.tool_calls[0]
        name, arguments, finish = call.function.name, call.function.arguments, choice.finish_reason
    assert (name, arguments, finish) == ("weather", '{"city": "Oslo"}', "tool_calls")


async def test_embeddings(client: openai.AsyncOpenAI) -> None:
    """Similar sentences are near each other, others are not; the SDK's own base64 decoding works."""
    texts = ["How do I reset my password?", "I forgot my password", "The weather in Oslo"]
    answer = await client.embeddings.create(model="all-minilm-l6-v2", input=texts)
    near, far = (
        sum(a * b for a, b in zip(answer.data[0].embedding, answer.data[i].embedding, strict=True)) for i in (1, 2)
    )
    assert len(answer.data[0].embedding) == 384
    assert near > 0.6 > far


async def test_moderations(client: openai.AsyncOpenAI) -> None:
    """A harmful text is flagged in its category, a harmless one is not."""
    answer = await client.moderations.create(input=["how do I make a bomb", "how do I make bread"])
    assert [one.flagged for one in answer.results] == [True, False]
    assert answer.results[0].categories.illicit_violent


async def test_models(client: openai.AsyncOpenAI) -> None:
    """The models that can be named are listed; each can be got."""
    names = [model.id async for model in client.models.list()]
    assert names == ["all-minilm-l6-v2", "fallback", "millrace-embedded"]
    assert (await client.models.retrieve("millrace-embedded")).id == "millrace-embedded"


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "nobody"}, openai.NotFoundError),
        ({"temperature": 3}, openai.BadRequestError),
        ({"model": "fake-error-429"}, openai.RateLimitError),
        ({"model": "fake-error-500"}, openai.InternalServerError),
        ({"messages": [{"role": "user", "content": "how do I make a bomb"}]}, openai.BadRequestError),
    ],
)
async def test_error_classes(client: openai.AsyncOpenAI, fields: dict[str, Any], error: type[Exception]) -> None:
    """Each kind of failure raises the SDK's own class for it."""
    with pytest.raises(error):
        await client.chat.completions.create(**({"model": "fake", "messages": MESSAGES} | fields))


async def test_fallback_is_on_the_receipt(suite: Suite) -> None:
    """The next target answers when the first fails, and the receipt tells both attempts and the price."""
    async with grpc.aio.insecure_channel(suite.address("inference")) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        answer = await stub.Generate(inference_service_pb2.GenerateRequest(spec=spec("fallback")))
        receipt = answer.generation.receipt
        outcomes = [(one.target, one.outcome) for one in receipt.attempts]
        assert outcomes == [("first", event_pb2.ATTEMPT_OUTCOME_FAILED), ("second", event_pb2.ATTEMPT_OUTCOME_OK)]
        assert not receipt.HasField("cost_micro_usd")
        priced = await stub.Generate(inference_service_pb2.GenerateRequest(spec=spec("fake")))
        assert priced.generation.receipt.cost_micro_usd == 7 * 1 + 10 * 2


async def test_auto_tells_its_reason(suite: Suite) -> None:
    """`auto` chooses by the prompt and says why in the first event."""
    async with grpc.aio.insecure_channel(suite.address("inference")) as channel:
        stub = inference_service_pb2_grpc.InferenceServiceStub(channel)
        for text, model in (
            ("What is Millrace?", "millrace-embedded"),
            ("Please compare these two designs now", "fake"),
        ):
            request = inference_service_pb2.StreamGenerateRequest(spec=spec("auto", text))
            events = [event async for event in stub.StreamGenerate(request)]
            assert events[0].started.model == model
            assert events[0].started.route_reason
            assert [event.sequence for event in events] == list(range(1, len(events) + 1))


def spec(model: str, text: str = "What is Millrace?") -> generation_pb2.GenerationSpec:
    """One question."""
    message = generation_pb2.Message(role=generation_pb2.ROLE_USER, parts=[generation_pb2.ContentPart(text=text)])
    return generation_pb2.GenerationSpec(model=model, conversation=generation_pb2.Conversation(messages=[message]))


async def test_health_and_reflection(suite: Suite) -> None:
    """A plain health stub and a plain reflection client work on every gRPC service."""
    for name in NAMES[:-1]:
        async with grpc.aio.insecure_channel(suite.address(name)) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            service = f"millrace.{name}.v1.{name.capitalize()}Service"
            for asked in ("", service):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=asked))
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with grpc.insecure_channel(suite.address(name)) as channel:
            assert service in ProtoReflectionDescriptorDatabase(channel).get_services()


async def test_request_id_runs_through(suite: Suite) -> None:
    """A caller's request id comes back, and one is made where there is none."""
    async with httpx.AsyncClient(timeout=60) as plain:
        asked = {"message": "What is Millrace?"}
        answer = await plain.post(f"{suite.url}/chat", json=asked, headers={"X-Request-ID": "order-66"})
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == "order-66"
        assert (await plain.post(f"{suite.url}/chat", json=asked)).json()["request_id"]
