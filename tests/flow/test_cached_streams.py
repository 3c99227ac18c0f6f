"""A stream from the cache is the stream that was kept: byte for byte, by OpenAI's schemas, and for its SDK."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.fakes.openai_upstream import OpenAIUpstream, Reply
from tests.fakes.openai_wire import validator
from tests.flow.conftest import Suite

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = 20.0
WORDS = ("Hel", "lo", ", wörld", " \U0001f30d", "!")
WEATHER = ("call_1", "weather", ('{"city": ', '"Oslo', '"}'))
CLOCK = ("call_2", "clock", ("{}",))
REPLIES = {
    "fake-words": Reply(words=WORDS),
    "fake-thought": Reply(words=WORDS, reasoning=("Let me", " see.")),
    "fake-refusal": Reply(words=(), refusal=("I can", "not.")),
    "fake-tools": Reply(calls=(WEATHER, CLOCK), finish="tool_calls"),
    "fake-length": Reply(words=WORDS, finish="length"),
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "clock")
]
USAGE = {"stream_options": {"include_usage": True}}
CHAT = [
    pytest.param("fake-words", {}, id="words"),
    pytest.param("fake-words", USAGE, id="usage"),
    pytest.param("fake-words", {"n": 2, **USAGE}, id="two choices"),
    pytest.param("fake-words", {"logprobs": True, "top_logprobs": 1}, id="logprobs"),
    pytest.param("fake-thought", USAGE, id="reasoning"),
    pytest.param("fake-refusal", {}, id="refusal"),
    pytest.param("fake-tools", {"tools": TOOLS, **USAGE}, id="tools"),
    pytest.param("fake-length", {"max_tokens": 5}, id="length"),
]
COMPLETIONS = [
    pytest.param("fake-words", {}, id="words"),
    pytest.param("fake-words", USAGE, id="usage"),
    pytest.param("fake-words", {"n": 2}, id="two choices"),
]
USED_NOTHING = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
# What names the request, and the receipt that Millrace adds: all else is the answer's own.
OWN = re.compile(rb'"id":"[^"]+"|"created":\d+|"millrace":\{.*\}(?=\}\n)')


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[OpenAIUpstream]:
    """An upstream of many shapes."""
    fake = OpenAIUpstream()
    fake.replies.update(REPLIES)
    await fake.start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def http(suite: Suite, upstream: OpenAIUpstream) -> AsyncIterator[httpx.AsyncClient]:
    """A plain client of the edge; the upstream has been asked nothing yet."""
    upstream.asked.clear()
    async with httpx.AsyncClient(base_url=f"{suite.url}/v1", timeout=DEADLINE_S) as made:
        yield made


async def twice(http: httpx.AsyncClient, path: str, body: dict[str, Any]) -> tuple[bytes, bytes]:
    """The bytes of a stream when it is made, and of the next one, which comes from the cache."""
    fresh, cached = [await http.post(path, json=body | {"stream": True}) for _ in range(2)]
    assert (fresh.status_code, cached.status_code) == (200, 200), fresh.text + cached.text
    assert [one.headers["x-millrace-cache"] for one in (fresh, cached)] == ["miss", "exact"]
    return fresh.content, cached.content


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of each event; the last one is [DONE]."""
    *events, done, rest = stream.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.mark.parametrize(("model", "fields"), CHAT)
async def test_chat(http: httpx.AsyncClient, upstream: OpenAIUpstream, model: str, fields: dict[str, Any]) -> None:
    """The same chunks at the same boundaries, under an id and a time of their own; the upstream was asked once."""
    body = {"model": model, "messages": [{"role": "user", "content": f"chat {fields}"}], **fields}
    fresh, cached = await twice(http, "/chat/completions", body)

    assert OWN.sub(b"", cached) == OWN.sub(b"", fresh)
    for chunk in chunks_of(cached):
        validator()("CreateChatCompletionStreamResponse", chunk)
    assert len({chunk["id"] for chunk in (*chunks_of(fresh), *chunks_of(cached))}) == 2
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("model", "fields"), COMPLETIONS)
async def test_completions(
    http: httpx.AsyncClient, upstream: OpenAIUpstream, model: str, fields: dict[str, Any]
) -> None:
    """Raw completions likewise."""
    fresh, cached = await twice(http, "/completions", {"model": model, "prompt": f"raw {fields}", **fields})

    assert OWN.sub(b"", cached) == OWN.sub(b"", fresh)
    for chunk in chunks_of(cached):
        validator()("CreateCompletionResponse", _whole(chunk))
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("model", "fields"), CHAT[:-1])  # the SDK refuses to fold what was cut off
async def test_openai_python(
    suite: Suite, http: httpx.AsyncClient, upstream: OpenAIUpstream, model: str, fields: dict[str, Any]
) -> None:
    """The SDK, which is strict about chunks, folds both streams into the same completion."""
    messages: Any = [{"role": "user", "content": f"sdk {fields}"}]
    answers: list[Any] = []
    async with openai.AsyncOpenAI(base_url=f"{suite.url}/v1", api_key="any", max_retries=0) as client:
        for _ in range(2):
            async with client.chat.completions.stream(model=model, messages=messages, **fields) as stream:
                answers.append((await stream.get_final_completion()).model_dump(exclude={"id", "created"}))

    assert answers[0] == answers[1]
    assert len(upstream.asked) == 1


def _whole(chunk: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's schema of a chunk is that of a whole answer, whose finish_reason and usage are never null."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in chunk["choices"]]
    return {**chunk, "choices": choices, "usage": chunk.get("usage") or USED_NOTHING}
