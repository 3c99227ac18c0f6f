"""POST /v1/chat/completions without streaming."""

from __future__ import annotations

import json

import pytest

from millrace.inference.v1 import generation_pb2 as pb
from services.edge.openai.chat_request import HARMLESS, REFUSED, ChatRequest
from tests.fakes.openai_wire import fields_of


async def test_answer_follows_openai_schema(edge, openai_schema):
    """A plain answer validates, names its model and carries the request's id."""
    answer = await edge.chat(text="hi there", seed=7)
    body = answer.json()

    openai_schema("CreateChatCompletionResponse", body)
    assert body["choices"][0]["message"]["content"] == "echo: hi there"
    assert body["id"] == f"chatcmpl-{answer.headers['x-request-id']}"
    assert body["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@pytest.mark.parametrize("model", ["tools", "reasoning", "refusal", "filtered", "cached"])
async def test_every_kind_of_answer_follows_the_schema(edge, openai_schema, model):
    """Tool calls, reasoning, refusals and cut answers validate too."""
    answer = await edge.chat(model)

    assert answer.status_code == 200
    openai_schema("CreateChatCompletionResponse", answer.json())


async def test_tool_calls_have_null_content(edge):
    """Where only a call stands, content is null, and the arguments are whole JSON text."""
    message = (await edge.chat("tools")).json()["choices"][0]["message"]

    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "get_weather", "arguments": '{"city":"Bern"}'}


async def test_several_choices_and_logprobs(edge, openai_schema):
    """`n` choices come by index, each with its log probabilities."""
    body = (await edge.chat(n=2, logprobs=True, top_logprobs=1)).json()

    openai_schema("CreateChatCompletionResponse", body)
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    assert body["choices"][1]["logprobs"]["content"][0]["bytes"] == list(b"echo:")


async def test_provenance_is_in_the_headers(edge):
    """Headers say who answered, after how many tries, how the cache took part, how fast and for how much."""
    headers = (await edge.chat("spared")).headers
    cached = (await edge.chat("cached")).headers

    assert {name: value for name, value in headers.items() if name.startswith("x-millrace-")} == {
        "x-millrace-model": "spared",
        "x-millrace-target": "fake-1",
        "x-millrace-attempts": "2",
        "x-millrace-cache": "miss",
        "x-millrace-cost-usd": "0.001234",
        "x-millrace-ttft-ms": "250.000",
        "x-millrace-prompt-tokens": "5",
        "x-millrace-completion-tokens": "4",
    }
    assert (cached["x-millrace-cache"], cached["x-millrace-attempts"]) == ("exact", "0")


async def test_receipt_is_beside_openais_keys(edge, openai_schema):
    """One object has the whole story: every target, why it was left, how long it took."""
    body = (await edge.chat("spared")).json()

    openai_schema("CreateChatCompletionResponse", body)
    assert body["millrace"] == {
        "request_id": body["id"].removeprefix("chatcmpl-"),
        "model": "spared",
        "target": "fake-1",
        "attempts": [
            {"target": "fake-0", "outcome": "failed", "duration_ms": 125.0, "error": "upstream_down"},
            {"target": "fake-2", "outcome": "skipped", "duration_ms": 0.0, "error": "breaker_open"},
            {"target": "fake-1", "outcome": "ok", "duration_ms": 500.0, "ttft_ms": 250.0, "hedged": True},
        ],
        "duration_ms": 750.0,
        "cache": {"outcome": "miss"},
        "cost_usd": 0.001234,
        "ttft_ms": 250.0,
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_errors_say_who_was_tried(edge, stream):
    """An error has the tries of the call that failed; a retry that costs nothing is not warned of."""
    answer = await edge.chat("error-UNAVAILABLE", stream=stream)

    assert answer.status_code == 503
    assert (answer.headers["x-millrace-attempts"], answer.headers["x-millrace-target"]) == ("1", "fake-1")
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1500")
    assert "x-should-retry" not in answer.headers


@pytest.mark.parametrize(("model", "status"), [("break", 503), ("bug", 500)])
async def test_answer_that_broke_is_not_retried_by_sdks(edge, model, status):
    """A target had begun and may send its bill: the header tells SDKs, once, not to ask again by themselves."""
    answer = await edge.chat(model)

    assert answer.status_code == status
    assert answer.headers.get_list("x-should-retry") == ["false"]


async def test_every_field_reaches_the_contract(edge, inference):
    """Sampling, tools, format, effort, labels and the end user arrive in the spec as they were given."""
    await edge.chat(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        presence_penalty=0.25,
        frequency_penalty=-0.25,
        repetition_penalty=1.5,
        seed=-3,
        max_completion_tokens=9,
        stop=["a", "b"],
        n=2,
        logit_bias={"50256": -100},
        logprobs=True,
        top_logprobs=2,
        tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}],
        tool_choice={"type": "function", "function": {"name": "f"}},
        parallel_tool_calls=False,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {"a": [1]}, "strict": True}},
        reasoning_effort="low",
        metadata={"team": "x"},
        user="u1",
    )
    spec = inference.specs[-1]
    sampling = spec.sampling

    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == (0.5, 0.9, 5, 0.1)
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.repetition_penalty) == (0.25, -0.25, 1.5)
    assert (sampling.seed, sampling.max_tokens, list(sampling.stop), sampling.n) == (-3, 9, ["a", "b"], 2)
    assert (dict(sampling.logit_bias), sampling.logprobs, sampling.top_logprobs) == ({50256: -100.0}, True, 2)
    assert (spec.tools[0].name, spec.tools[0].strict) == ("f", True)
    assert json.loads(spec.tools[0].parameters_json) == {"type": "object"}
    assert (spec.tool_choice.mode, spec.tool_choice.name) == (pb.TOOL_CHOICE_MODE_NAMED, "f")
    assert spec.HasField("parallel_tool_calls")
    assert not spec.parallel_tool_calls
    assert json.loads(spec.output_format.json_schema.schema_json) == {"a": [1]}
    assert spec.reasoning_effort == pb.REASONING_EFFORT_LOW
    assert (dict(spec.metadata), spec.end_user_id) == ({"team": "x"}, "u1")


async def test_absent_fields_stay_absent(edge, inference):
    """What a caller does not say is unset in the contract, so that zero is never mistaken for it."""
    await edge.chat()
    sampling = inference.specs[-1].sampling

    assert sampling.ListFields() == []


async def test_every_kind_of_message_is_translated(edge, inference):
    """Roles, parts, tool calls, results and refusals keep their places."""
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "developer", "content": [{"type": "text", "text": "be brief"}]},
        {
            "role": "user",
            "name": "ann",
            "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AAEC", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:text/plain;base64,aGk=", "filename": "a.txt"}},
                {"type": "file", "file": {"file_id": "file-1"}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": [_call("c1", "f", "{}")]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": [{"type": "text", "text": "no "}, {"type": "refusal", "refusal": "sorry"}]},
        {"role": "user", "content": "go on"},
    ]
    answer = await edge.post("/v1/chat/completions", {"model": "echo", "messages": messages})
    got = inference.specs[-1].conversation.messages

    assert answer.status_code == 200
    assert [message.role for message in got] == [1, 2, 3, 4, 5, 4, 3]
    user = got[2]
    assert (user.name, user.parts[1].image.url, user.parts[1].image.detail) == ("ann", "https://x.test/a.png", "low")
    assert (user.parts[2].audio.data, user.parts[3].file.data, user.parts[4].file.file_id) == (
        b"\x00\x01\x02",
        b"hi",
        "file-1",
    )
    assert (got[3].tool_calls[0].id, len(got[3].parts), got[4].tool_call_id) == ("c1", 0, "c1")
    assert (got[5].refusal, [part.text for part in got[5].parts]) == ("sorry", ["no "])


def _call(call_id: str, name: str, arguments: str) -> dict[str, object]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"store": True}, "store"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"nonsense": 1}, "nonsense"),
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stop": [""]}, "stop[0]"),
        ({"n": 0}, "n"),
        ({"seed": 2**70}, "seed"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
        ({"max_completion_tokens": 10_000_001}, "max_completion_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]}, "tools[0].function.parameters"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "function", "content": "x", "name": "f"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "zz": 1}]}, "messages[0].zz"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "!", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0].input_audio.data",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].file"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(edge, openai_schema, fields, param):
    """Nothing is dropped: each field that is wrong, unknown or not supported is a 400 that names it."""
    answer = (
        await edge.chat(**fields)
        if "messages" not in fields
        else await edge.post("/v1/chat/completions", {"model": "echo", **fields})
    )
    error = answer.json()["error"]

    assert (answer.status_code, error["param"]) == (400, param)
    assert error["message"].startswith(f"{param}: ")
    openai_schema("ErrorResponse", answer.json())


def test_no_field_of_openai_is_forgotten():
    """Each field of OpenAI's schema is read, or refused with a reason; what is ignored says why."""
    known = fields_of("CreateChatCompletionRequest")
    read = set(ChatRequest.__struct_fields__)

    assert known <= read | REFUSED.keys()
    assert not read & REFUSED.keys()
    assert HARMLESS.keys() <= read


async def test_null_means_not_given(edge):
    """Clients that send every field, most of them null, are served."""
    nulls = dict.fromkeys(("functions", "audio", "temperature", "tools", "stop", "response_format", "store", "user"))

    assert (await edge.chat(**nulls)).status_code == 200


async def test_harmless_fields_are_accepted(edge):
    """What SDKs send for OpenAI's own billing and storage does not stand in the way."""
    answer = await edge.chat(
        store=False, service_tier="auto", modalities=["text"], prompt_cache_key="k", safety_identifier="abc"
    )

    assert answer.status_code == 200


async def test_a_cached_answer_tells_its_age(edge):
    """Whole and streamed; an answer that was made has none."""
    for stream in (False, True):
        body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
        cached = await edge.post("/v1/chat/completions", {"model": "cached", **body})
        made = await edge.post("/v1/chat/completions", {"model": "echo", **body})

        assert (cached.headers["x-millrace-cache"], cached.headers["age"]) == ("exact", "2")
        assert "age" not in made.headers
