"""POST /v1/chat/completions as server-sent events, byte for byte."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.openai_wire import events_of

HEAD = 'data: {"id":"chatcmpl-r1","object":"chat.completion.chunk","created":1700000000,"model":"echo","choices":'
END = '"logprobs":null,"finish_reason":null}]}\n\n'
GOLDEN = (
    f'{HEAD}[{{"index":0,"delta":{{"role":"assistant","content":"","refusal":null}},{END}'
    f'{HEAD}[{{"index":0,"delta":{{"content":"echo:"}},{END}'
    f'{HEAD}[{{"index":0,"delta":{{"content":" \\"é\\""}},{END}'
    f'{HEAD}[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"stop"}}]}}\n\n'
    "data: [DONE]\n\n"
)
GOLDEN_USAGE = (
    HEAD + '[],"usage":{"prompt_tokens":5,"completion_tokens":4,"total_tokens":9,'
    '"prompt_tokens_details":{"cached_tokens":2},"completion_tokens_details":{"reasoning_tokens":0}},'
    '"millrace":{"request_id":"r1","model":"echo","target":"fake-1",'
    '"attempts":[{"target":"fake-1","outcome":"ok","duration_ms":500.0,"ttft_ms":250.0}],'
    '"duration_ms":750.0,"cache":{"outcome":"miss"},"cost_usd":0.001234,"ttft_ms":250.0}}\n\n'
    "data: [DONE]\n\n"
)


async def _stream(edge, model="echo", text="hi there", headers=None, **fields):
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": text}], **fields}
    return await edge.post("/v1/chat/completions", body, headers=headers or {})


async def test_stream_is_golden(edge):
    """A whole stream, byte for byte: role, deltas, finish with an empty delta, [DONE]."""
    answer = await _stream(edge, text='"é"', headers={"x-request-id": "r1"})

    assert answer.text == GOLDEN
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_usage_chunk_is_golden(edge):
    """With include_usage the last chunk has no choices, the figures and the receipt; all others say usage null."""
    answer = await _stream(edge, headers={"x-request-id": "r1"}, stream_options={"include_usage": True})

    assert answer.text.endswith(GOLDEN_USAGE)
    assert [chunk["usage"] for chunk in events_of(answer.text)][:-1] == [None] * (len(events_of(answer.text)) - 1)


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("model", ["echo", "tools", "reasoning", "refusal", "filtered", "cached", "stale"])
async def test_every_event_follows_openai_schema(edge, openai_schema, model, usage):
    """Each chunk of each kind of answer validates, and all share id, created and model."""
    answer = await _stream(edge, model, n=2, logprobs=True, stream_options={"include_usage": usage})
    chunks = events_of(answer.text)

    for chunk in chunks:
        openai_schema("CreateChatCompletionStreamResponse", chunk)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_each_choice_has_one_role_and_one_finish(edge):
    """With several choices each is introduced once and ends once."""
    chunks = [chunk["choices"][0] for chunk in events_of((await _stream(edge, n=3)).text)]

    assert sorted(c["index"] for c in chunks if "role" in c["delta"]) == [0, 1, 2]
    assert sorted(c["index"] for c in chunks if c["finish_reason"]) == [0, 1, 2]


async def test_tool_call_fragments(edge):
    """Id, type and name come once; the arguments add up."""
    chunks = events_of((await _stream(edge, "tools")).text)
    calls = [c["choices"][0]["delta"]["tool_calls"][0] for c in chunks if "tool_calls" in c["choices"][0]["delta"]]

    assert (calls[0]["id"], calls[0]["type"], calls[0]["function"]["name"]) == ("call_1", "function", "get_weather")
    assert all("id" not in call and "type" not in call for call in calls[1:])
    assert "".join(call["function"]["arguments"] for call in calls) == '{"city":"Bern"}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_reasoning_comes_apart(edge):
    """Visible reasoning is a field of its own."""
    deltas = [chunk["choices"][0]["delta"] for chunk in events_of((await _stream(edge, "reasoning")).text)]

    assert [delta["reasoning_content"] for delta in deltas if "reasoning_content" in delta] == ["Let me see."]
    assert "".join(delta.get("content") or "" for delta in deltas) == "42"


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("error-NOT_FOUND", 404, "model_not_found"),
        ("error-RESOURCE_EXHAUSTED", 429, "scripted_resource_exhausted"),
        ("error-UNAVAILABLE", 503, "scripted_unavailable"),
        ("blocked", 400, "content_policy_violation"),
    ],
)
async def test_failure_before_the_first_delta_is_an_http_error(edge, openai_schema, model, status, code):
    """What fails before anything was said has its own status and no event stream."""
    answer = await _stream(edge, model)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    openai_schema("ErrorResponse", answer.json())


@pytest.mark.parametrize(
    ("model", "code"), [("break", "upstream_broke"), ("truncate", "stream_truncated"), ("bug", "unknown")]
)
async def test_failure_in_mid_stream_is_the_last_event(edge, openai_schema, model, code):
    """A stream that breaks ends with one error object and never with [DONE], not even when inference said OK."""
    answer = await _stream(edge, model)
    last = json.loads(answer.text.rstrip("\n").rsplit("\n\n", 1)[-1].removeprefix("data: "))

    assert "[DONE]" not in answer.text
    assert (last["error"]["code"], last.keys(), last["error"].keys()) == (
        code,
        {"error"},
        {"message", "type", "param", "code"},
    )
    openai_schema("ErrorResponse", last)


async def test_first_delta_is_sent_before_the_last_is_known(edge, inference):
    """Deltas leave as they come: the first is read while the model still waits."""
    body = {"model": "gate", "stream": True, "messages": [{"role": "user", "content": "a b"}]}
    async with edge.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(5):
            seen = [line async for line in _until(lines, "echo:")]
        assert not inference.gate.is_set()
        inference.gate.set()
        rest = [line async for line in lines]

    assert seen[-1].startswith("data: ")
    assert "data: [DONE]" in rest


async def test_silence_is_filled_with_comments(serve, inference):
    """While a stream waits, comment lines keep it alive; they are no events."""
    edge = await serve(heartbeat_s=0.05)
    body = {"model": "gate", "stream": True, "messages": [{"role": "user", "content": "a b"}]}
    async with edge.client.stream("POST", "/v1/chat/completions", json=body) as answer, asyncio.timeout(5):
        lines = answer.aiter_lines()
        assert [line async for line in _until(lines, ": ping")][-1] == ": ping"
        inference.gate.set()
        rest = [line async for line in lines]

    assert rest[-2:] == ["data: [DONE]", ""]


async def test_comments_come_before_the_first_token_too(serve, inference):
    """An answer that is long in coming begins with comments, and then comes as it would have."""
    edge = await serve(heartbeat_s=0.05)
    async with _streaming(edge, "late") as answer, asyncio.timeout(5):
        lines = answer.aiter_lines()
        seen = [line async for line in _until(lines, ": ping")]
        assert not inference.gate.is_set()
        inference.gate.set()
        rest = [line.removeprefix("data: ") async for line in lines if line.startswith("data: ")]

    assert (answer.status_code, answer.headers["x-millrace-target"]) == (200, "fake-1")
    assert set(seen) <= {"", ": ping"}
    assert rest.pop() == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"].get("content") for line in rest]
    assert deltas == ["", "echo:", " a", " b", None]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/chat/stream"])
async def test_failure_after_the_first_comment_is_the_last_event(serve, inference, path):
    """The status has left with the comment: what fails then is told in the stream, once, without [DONE]."""
    edge = await serve(heartbeat_s=0.05)
    async with _streaming(edge, "late-error", path) as answer, asyncio.timeout(5):
        lines = answer.aiter_lines()
        assert [line async for line in _until(lines, ": ping")]
        inference.gate.set()
        rest = [line async for line in lines if line and line != ": ping"]

    assert answer.status_code == 200
    assert [json.loads(line.removeprefix("data: "))["error"]["code"] for line in rest if "data" in line] == [
        "upstream_broke"
    ]
    assert len(rest) == (2 if path == "/chat/stream" else 1)


async def test_whole_answer_has_no_comments(serve, inference):
    """JSON that is long in coming is JSON all the same, and an error keeps its status."""
    edge = await serve(heartbeat_s=0.01)
    asked = asyncio.create_task(edge.chat("late"))
    failing = asyncio.create_task(edge.chat("late-error"))
    async with asyncio.timeout(5):
        await inference.began.wait()
        # Ten heartbeats of a stream that waits beside them.
        async with _streaming(edge, "late") as answer:
            beats = 0
            async for line in answer.aiter_lines():
                beats += line == ": ping"
                if beats == 10:
                    break
        inference.gate.set()

    assert (await asked).json()["choices"][0]["message"]["content"] == "echo: hi there"
    assert (await failing).status_code == 503


async def test_stream_headers_tell_what_was_tried(edge):
    """Who answers, and how many tries that took, is known when the first delta is; who was passed over is no try."""
    headers = (await _stream(edge, "spared")).headers

    assert (headers["x-millrace-attempts"], headers["x-millrace-target"]) == ("2", "fake-1")
    assert "x-millrace-cost-usd" not in headers


async def test_stale_answer_is_marked(edge):
    """An answer that stands in for failed targets says so before its first byte, and in the receipt."""
    answer = await _stream(edge, "stale", stream_options={"include_usage": True})

    assert (answer.headers["x-millrace-cache"], answer.headers["x-millrace-attempts"]) == ("stale", "1")
    assert events_of(answer.text)[-1]["millrace"]["cache"] == {"outcome": "stale", "age_s": 2.5, "entry_id": "e1"}


def _streaming(edge, model, path="/v1/chat/completions"):
    inputs = {"/v1/completions": {"prompt": "a b"}, "/chat/stream": {"message": "a b"}}
    body = inputs.get(path, {"messages": [{"role": "user", "content": "a b"}]})
    stream = {} if path == "/chat/stream" else {"stream": True}
    return edge.client.stream("POST", path, json={"model": model, **body, **stream})


async def _until(lines, part):
    async for line in lines:
        yield line
        if part in line:
            return
