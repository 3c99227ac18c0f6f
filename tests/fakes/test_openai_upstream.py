"""The fake upstream is one that stock openai-python takes for real."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionUserMessageParam

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.fakes.openai_wire import validator

HI: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    fake = OpenAIUpstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(upstream: OpenAIUpstream) -> AsyncIterator[openai.AsyncOpenAI]:
    http = httpx.AsyncClient(trust_env=False)
    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="k", max_retries=0, http_client=http) as made:
        yield made


async def test_chat(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """A whole answer has its choices, logprobs and usage, and the request was recorded."""
    answer = await client.chat.completions.create(model="gpt", messages=HI, n=2, logprobs=True, top_logprobs=1)

    assert [choice.message.content for choice in answer.choices] == ["Hello, world!"] * 2
    assert answer.choices[0].logprobs.content[0].top_logprobs[0].token == "other"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 8)
    validator()("CreateChatCompletionResponse", answer.model_dump(exclude_unset=True))
    assert upstream.asked[0].body["messages"] == HI
    assert upstream.asked[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    "reply",
    [Reply(), Reply(newline="\r\n"), Reply(comments=True), Reply(words=("Hello", ", wörld", "!"), segment_bytes=1)],
    ids=["plain", "crlf", "comments", "bytewise"],
)
async def test_stream(client: openai.AsyncOpenAI, upstream: OpenAIUpstream, reply: Reply) -> None:
    """A stream reads the same however it is framed, and every chunk is of the published schema."""
    upstream.replies["gpt"] = reply
    stream = await client.chat.completions.create(
        model="gpt", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "".join(reply.words)
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == len(reply.words)
    for chunk in chunks:
        validator()("CreateChatCompletionStreamResponse", chunk.model_dump(exclude_unset=True))


async def test_tools(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """Tool calls come whole, and in fragments that the SDK's own accumulator puts together."""
    upstream.replies["gpt"] = Reply(calls=(("c1", "look", ('{"a":', "1}")),), finish="tool_calls")
    whole = await client.chat.completions.create(model="gpt", messages=HI)
    async with client.chat.completions.stream(model="gpt", messages=HI) as stream:
        grown = await stream.get_final_completion()

    for answer in (whole, grown):
        call = answer.choices[0].message.tool_calls[0]
        assert (call.id, call.function.name, call.function.arguments) == ("c1", "look", '{"a":1}')
        assert answer.choices[0].finish_reason == "tool_calls"


async def test_completions_embeddings_models(client: openai.AsyncOpenAI) -> None:
    """The other endpoints answer too; embeddings in the form that the SDK prefers."""
    legacy = await client.completions.create(model="gpt", prompt="hi")
    legacy_stream = [
        chunk.choices[0].text async for chunk in await client.completions.create(model="m", prompt="hi", stream=True)
    ]
    vectors = await client.embeddings.create(model="gpt", input=["a", "abc"], dimensions=2)

    assert legacy.choices[0].text == "".join(legacy_stream) == "Hello, world!"
    assert sorted((one.index, one.embedding) for one in vectors.data) == [(0, [1.0, 0.5]), (1, [3.0, 0.5])]
    assert [model.id async for model in client.models.list()] == ["any"]


async def test_failures(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """Statuses become the SDK's classes with the envelope's message; a cut body is a connection error."""
    upstream.replies["full"] = Reply(status=429, error={"message": "slow down"}, headers={"retry-after": "7"})
    with pytest.raises(openai.RateLimitError, match="slow down") as limited:
        await client.chat.completions.create(model="full", messages=HI)
    upstream.replies["cut"] = Reply(cut_after=2)
    stream = await client.chat.completions.create(model="cut", messages=HI, stream=True)
    chunks = aiter(stream)
    seen = [(await anext(chunks)).choices[0].delta.content for _ in range(2)]
    with pytest.raises(openai.APIConnectionError):
        await anext(chunks)

    assert limited.value.response.headers["retry-after"] == "7"
    assert seen == ["Hello", ","]


async def test_a_client_that_hangs_up_is_noticed(client: openai.AsyncOpenAI, upstream: OpenAIUpstream) -> None:
    """Closing a stream in the middle is told to whoever waits for it."""
    upstream.replies["gpt"] = Reply(stall_after=1)
    stream = await client.chat.completions.create(model="gpt", messages=HI, stream=True)
    asked = await upstream.next()
    await asked.began.wait()

    assert not asked.hung_up.is_set()
    await stream.close()
    await asked.hung_up.wait()
