"""What callers are told of their limits: headers on answers, streams and refusals, and when to come back."""

from __future__ import annotations

import openai
import pytest
from google.protobuf.duration_pb2 import Duration

from services.edge.rate_limits import HEADERS, _go_duration

STANDING = {
    "x-ratelimit-limit": "5",
    "x-ratelimit-remaining": "3",
    "x-ratelimit-reset": "25",
    "x-ratelimit-limit-requests": "5",
    "x-ratelimit-remaining-requests": "3",
    "x-ratelimit-reset-requests": "24.5s",
    "x-ratelimit-limit-tokens": "1000",
    "x-ratelimit-remaining-tokens": "900",
    "x-ratelimit-reset-tokens": "1m40.25s",
}
CHAT = {"message": "hi", "model": "limited"}


def told(response):
    """The headers of limits in an answer."""
    return {name: value for name, value in response.headers.items() if name in HEADERS}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat", CHAT),
        ("/chat/stream", CHAT),
        ("/generate", {"prompts": ["hi", "ho"], "model": "limited"}),
        ("/v1/chat/completions", {"model": "limited", "messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/chat/completions", {"model": "limited", "messages": [{"role": "user", "content": "hi"}], "stream": True}),
        ("/v1/embeddings", {"model": "limited", "input": "hi"}),
    ],
)
async def test_answers_say_where_limits_stand(edge, path, body):
    """Every answer has them before its body: of several limits that by the minute with the least left."""
    response = await edge.post(path, body)

    assert response.status_code == 200
    assert told(response) == STANDING


async def test_callers_without_limits_are_told_nothing(edge):
    """Where nothing is limited there is no header."""
    assert told(await edge.post("/chat", {"message": "hi"})) == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_says_when_to_come_back(edge, stream):
    """A used up limit is 429 with OpenAI's code, the limits, and the wait, which SDKs follow by themselves."""
    response = await edge.chat("over", stream=stream)

    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert told(response) == STANDING | {"x-ratelimit-remaining": "0", "x-ratelimit-remaining-requests": "0"}
    assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("13", "12001")
    assert "x-should-retry" not in response.headers


@pytest.mark.parametrize(
    ("model", "code", "wait"),
    [("over-budget", "insufficient_quota", "7200"), ("too-large", "rate_limit_exceeded", None)],
)
async def test_a_retry_that_cannot_help_is_not_asked_for(edge, model, code, wait):
    """A used up budget, and a request larger than its limit, are told apart from a wait of seconds: SDKs give up."""
    response = await edge.chat(model)

    assert (response.status_code, response.json()["error"]["code"]) == (429, code)
    assert (response.headers.get("retry-after"), response.headers["x-should-retry"]) == (wait, "false")


async def test_limited_chat_names_its_limit(edge, inference):
    """/chat/limited asks inference to count against its limit, and counts nothing itself."""
    response = await edge.post("/chat/limited", {"message": "hi"}, headers={"X-Client-Id": "c1"})

    assert (response.status_code, response.json()["response"]) == (200, "echo: hi")
    assert inference.specs[-1].limit == "chat-limited"


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, b"0ms"),
        (0, 350_000_000, b"350ms"),
        (8, 640_000_000, b"8.64s"),
        (60, 0, b"1m0s"),
        (90, 0, b"1m30s"),
        (7200, 0, b"2h0m0s"),
    ],
)
def test_spans_are_written_as_openai_does(seconds, nanos, text):
    """Milliseconds below a second, else hours, minutes and seconds."""
    assert _go_duration(Duration(seconds=seconds, nanos=nanos)) == text


@pytest.mark.parametrize("model", ["over-budget", "too-large"])
async def test_openai_python_raises_and_does_not_knock_in_vain(edge, inference, model):
    """The SDK raises its RateLimitError with our words, and its automatic retries follow `x-should-retry`."""
    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="none", max_retries=5) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])

    assert "a limit is used up" in caught.value.message
    assert len(inference.specs) == 1


async def test_openai_python_waits_as_long_as_it_is_told(edge, inference, monkeypatch):
    """The SDK comes back after `Retry-After`, not after a time of its own."""
    waits = []

    async def note(seconds):
        waits.append(seconds)

    async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="none", max_retries=1) as client:
        monkeypatch.setattr("openai._base_client.anyio.sleep", note)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="over", messages=[{"role": "user", "content": "hi"}])

    assert waits == [12.001]
    assert len(inference.specs) == 2
