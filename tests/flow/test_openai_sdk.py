"""Stock openai-python against the edge, unchanged but for its base URL."""

from __future__ import annotations

import httpx
import openai
import pytest
import pytest_asyncio

from kit.telemetry import off
from services.edge.config import EdgeSettings, InferenceDialSettings
from services.edge.wiring import wire
from tests.fakes.inference import FakeInference

HI = [{"role": "user", "content": "hi there"}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fake():
    """The scripted inference service."""
    service = FakeInference()
    await service.start()
    yield service
    await service.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(fake):
    """The SDK's client of a real edge; it retries nothing, so that errors show."""
    edge = wire(EdgeSettings(port=0, grace_s=1, inference=InferenceDialSettings(target=fake.target)), off())
    url = f"http://127.0.0.1:{await edge.start()}/v1"
    http = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, http_client=http) as made:
        yield made
    await edge.stop()


@pytest.fixture
def inference(fake):
    """The scripted inference service, as if it were new."""
    fake.reset()
    return fake


async def test_chat(client):
    """A whole answer is read with its usage and finish reason."""
    answer = await client.chat.completions.create(model="echo", messages=HI, seed=1, max_tokens=5, stop=["x"])

    assert answer.choices[0].message.content == "echo: hi there"
    assert (answer.choices[0].finish_reason, answer.usage.total_tokens) == ("stop", 9)


async def test_chat_stream_with_usage(client):
    """A stream adds up, and its last chunk has the usage."""
    stream = await client.chat.completions.create(
        model="echo", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "echo: hi there"
    assert chunks[-1].usage.total_tokens == 9
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"


async def test_the_sdks_own_accumulator(client):
    """The SDK's stream helper, which is strict about chunks, folds a tool call."""
    async with client.chat.completions.stream(model="tools", messages=HI, tools=[TOOL]) as stream:
        answer = await stream.get_final_completion()

    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city":"Bern"}'
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_tools(client, inference):
    """A tool call comes back, and its result can be sent on."""
    answer = await client.chat.completions.create(model="tools", messages=HI, tools=[TOOL], tool_choice="auto")
    call = answer.choices[0].message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees"}
    messages = [*HI, answer.choices[0].message, result]
    again = await client.chat.completions.create(model="echo", messages=messages)

    assert (call.function.name, again.choices[0].message.content) == ("get_weather", "echo: 12 degrees")
    assert inference.specs[-1].conversation.messages[1].tool_calls[0].id == "call_1"


async def test_completions(client):
    """The older endpoint, whole and streamed."""
    answer = await client.completions.create(model="echo", prompt="to be")
    stream = await client.completions.create(model="echo", prompt="to be", stream=True)

    assert answer.choices[0].text == "".join([chunk.choices[0].text async for chunk in stream]) == "echo: to be"


async def test_completions_of_several_prompts(client):
    """Each prompt's choices stand at their index in the stream, which tells the usage of all of them once."""
    stream = await client.completions.create(
        model="echo", prompt=["to be", "or not"], n=2, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = ["".join(c.text for chunk in chunks for c in chunk.choices if c.index == index) for index in range(4)]

    assert texts == ["echo: to be"] * 2 + ["echo: or not"] * 2
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [18]


async def test_a_prompt_that_fails_ends_the_stream(client, inference):
    """What was told before is kept; then the SDK raises the failure of the one prompt."""
    stream = await client.completions.create(model="stall", prompt=["to be", "fail-late"], stream=True)
    first = await anext(stream)
    inference.gate.set()

    assert first.choices[0].index == 0
    with pytest.raises(openai.APIError, match=r"prompt\[1\]"):
        await anext(stream)


async def test_embeddings(client):
    """The SDK asks for base64 and gives numbers."""
    answer = await client.embeddings.create(model="echo", input=["a", "bcd"])

    assert [item.embedding for item in answer.data] == [[1.0, 0.5, -1.0], [3.0, 0.5, -1.0]]


async def test_moderations(client):
    """Categories are attributes by their Python names."""
    answer = await client.moderations.create(input="pure hate")

    assert answer.results[0].flagged
    assert answer.results[0].categories.hate
    assert answer.results[0].categories.self_harm_intent is False


async def test_models(client):
    """The list is iterated and a model with slashes retrieved."""
    names = [model.id async for model in client.models.list()]

    assert (await client.models.retrieve("org/model-with/slashes")).id in names


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("error-INVALID_ARGUMENT", openai.BadRequestError),
        ("blocked", openai.BadRequestError),
        ("error-UNAUTHENTICATED", openai.AuthenticationError),
        ("error-PERMISSION_DENIED", openai.PermissionDeniedError),
        ("error-NOT_FOUND", openai.NotFoundError),
        ("error-ABORTED", openai.ConflictError),
        ("error-RESOURCE_EXHAUSTED", openai.RateLimitError),
        ("error-INTERNAL", openai.InternalServerError),
        ("error-UNAVAILABLE", openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_error_classes(client, model, error, stream):
    """Each failure raises the SDK's own class, with code and request id."""
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model=model, messages=HI, stream=stream)

    assert caught.value.code
    assert caught.value.request_id


async def test_a_broken_stream_raises(client):
    """A stream that breaks raises where the caller reads, after what had come."""
    stream = await client.chat.completions.create(model="break", messages=HI, stream=True)
    got = []
    with pytest.raises(openai.APIError, match="broke off"):
        await _collect(stream, got)

    assert got == ["", "echo:", " hi"]


async def _collect(stream, got):
    async for chunk in stream:
        got.append(chunk.choices[0].delta.content)


async def test_raw_response_headers(client):
    """Provenance and the request id can be read through the SDK."""
    raw = await client.chat.completions.with_raw_response.create(
        model="cached", messages=HI, extra_headers={"X-Request-ID": "mine"}
    )

    assert (raw.headers["x-millrace-cache"], raw.headers["x-request-id"]) == ("exact", "mine")
    assert raw.parse().id == "chatcmpl-mine"


async def test_the_sdk_retries_what_may_be_retried(client, inference):
    """503 is tried again by the SDK; what may be billed already is not, nor 503 once a target had begun."""
    patient = client.with_options(max_retries=1)
    for model in ("error-UNAVAILABLE", "error-INTERNAL", "break"):
        with pytest.raises(openai.InternalServerError):
            await patient.chat.completions.create(model=model, messages=HI)

    assert [spec.model for spec in inference.specs] == ["error-UNAVAILABLE"] * 2 + ["error-INTERNAL", "break"]


async def test_the_sdk_keeps_the_receipt(client):
    """The object beside OpenAI's keys is there on whole answers and on the usage chunk."""
    usage = {"include_usage": True}
    answer = await client.chat.completions.create(model="spared", messages=HI)
    stream = await client.chat.completions.create(model="spared", messages=HI, stream=True, stream_options=usage)
    last = [chunk async for chunk in stream][-1]

    for receipt in (answer.model_extra["millrace"], last.model_extra["millrace"]):
        assert [one["outcome"] for one in receipt["attempts"]] == ["failed", "skipped", "ok"]


async def test_extensions_travel_in_extra_body(client, inference):
    """What OpenAI's schema does not know is sent as extra_body."""
    await client.chat.completions.create(
        model="echo", messages=HI, extra_body={"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1}
    )

    assert inference.specs[-1].sampling.top_k == 5
