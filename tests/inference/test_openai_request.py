"""Bodies for upstreams: everything is sent or refused by name."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kit.errors import InvalidArgument
from services.inference.engines.openai_request import chat_body, completion_body
from services.inference.generation import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)
from services.inference.routing.catalog import Upstream

PLAIN = Upstream.model_validate({"base_url": "http://u/v1"})
RICH = Upstream.model_validate(
    {
        "base_url": "http://u/v1",
        "max_tokens_field": "max_completion_tokens",
        "extensions": ["top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids", "regex", "choice"],
        "stream_usage": False,
    }
)
WHOLE = PLAIN.model_copy(update={"streams": False})
HI = (Message(Role.USER, (TextPart("hi"),)),)
EXTENSIONS = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "min_tokens": 2, "stop_token_ids": (7,)}


def chat(upstream: Upstream = PLAIN, **fields: Any) -> dict[str, Any]:
    fields.setdefault("messages", HI)
    body: dict[str, Any] = json.loads(chat_body(Prompt("gpt", **fields), upstream))
    return body


def test_a_bare_prompt_sends_nothing_else() -> None:
    """What the caller left out is left to the upstream."""
    assert chat(WHOLE) == {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize("streamed", [True, False])
def test_a_stream_is_asked_for_whoever_reads(streamed: bool) -> None:
    """Silence shows early only in a stream; an upstream that cannot stream is never asked for one."""
    assert chat(streamed=streamed)["stream"] is True
    assert "stream" not in chat(WHOLE, streamed=streamed)


def test_streams_ask_for_usage_where_the_upstream_tells_it() -> None:
    """Usage in the stream is asked for unless the models file says that the upstream refuses that."""
    assert chat()["stream_options"] == {"include_usage": True}
    assert "stream_options" not in chat(RICH)


def test_every_sampling_parameter_is_sent() -> None:
    """Each under OpenAI's name, zero values too."""
    sampling = Sampling(
        temperature=0.0, top_p=0.5, presence_penalty=-1.0, frequency_penalty=1.0, seed=0, max_tokens=9,
        stop=("a", "b"), n=2, logit_bias={7: -100.0}, logprobs=True, top_logprobs=0,
    )  # fmt: skip
    body = chat(WHOLE, sampling=sampling)

    assert {name: body[name] for name in body if name not in ("model", "messages")} == {
        "temperature": 0.0, "top_p": 0.5, "presence_penalty": -1.0, "frequency_penalty": 1.0, "seed": 0,
        "max_tokens": 9, "stop": ["a", "b"], "n": 2, "logit_bias": {"7": -100.0}, "logprobs": True, "top_logprobs": 0,
    }  # fmt: skip


def test_extensions_are_sent_to_upstreams_that_take_them() -> None:
    """vLLM's parameters go under vLLM's names; the bound on tokens under the upstream's."""
    body = chat(RICH, sampling=Sampling(max_tokens=3, **EXTENSIONS))  # type: ignore[arg-type]

    assert {name: body[name] for name in EXTENSIONS} == {**EXTENSIONS, "stop_token_ids": [7]}
    assert body["max_completion_tokens"] == 3
    assert "max_tokens" not in body
    assert chat(RICH, output_format=OutputFormat("regex", regex="a+"))["structured_outputs"] == {"regex": "a+"}
    assert chat(RICH, output_format=OutputFormat("choice", choices=("y", "n")))["structured_outputs"] == {
        "choice": ["y", "n"]
    }


@pytest.mark.parametrize("name", sorted(EXTENSIONS))
def test_extensions_are_refused_by_name_elsewhere(name: str) -> None:
    """An upstream that would ignore a parameter is not asked."""
    with pytest.raises(InvalidArgument) as caught:
        chat(sampling=Sampling(**{name: EXTENSIONS[name]}))

    assert caught.value.field_violations[0].field == f"spec.sampling.{name}"


@pytest.mark.parametrize("kind", ["regex", "choice"])
def test_grammars_are_refused_by_name_elsewhere(kind: str) -> None:
    """A form that the upstream cannot hold to is refused."""
    with pytest.raises(InvalidArgument) as caught:
        chat(output_format=OutputFormat(kind, regex="a", choices=("a",)))

    assert caught.value.field_violations[0].field == f"spec.output_format.{kind}"


def test_json_formats() -> None:
    """A schema travels as it was written, not decoded and encoded again."""
    schema = '{"type":"object","properties":{"b":{},"a":{}}}'
    body = chat_body(
        Prompt("gpt", messages=HI, output_format=OutputFormat("json_schema", "thing", "what", schema, True)), PLAIN
    )

    assert schema.encode() in body
    assert json.loads(body)["response_format"]["json_schema"] | {"schema": None} == {
        "name": "thing", "description": "what", "strict": True, "schema": None,
    }  # fmt: skip
    assert chat(output_format=OutputFormat("json_object"))["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat(output_format=OutputFormat("text"))


def test_every_kind_of_part() -> None:
    """Text, pictures, sound and documents, by value and by reference."""
    parts = (
        TextPart("look"),
        ImagePart("https://x/y.png", "low"),
        AudioPart(b"snd", "wav"),
        FilePart("a.pdf", data=b"%PDF"),
        FilePart("", file_id="file-1"),
    )
    content = chat(messages=(Message(Role.USER, parts, name="Ann"),))["messages"][0]

    assert content["name"] == "Ann"
    assert content["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(b"snd").decode(), "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]


def test_tools_and_their_history() -> None:
    """Tools, the choice of one, calls that were made and what came of them."""
    call = ToolCall("c1", "look", '{"a": 1}')
    messages = (
        Message(Role.ASSISTANT, tool_calls=(call,)),
        Message(Role.TOOL, (TextPart("seen"),), tool_call_id="c1"),
        Message(Role.ASSISTANT, refusal="no"),
    )
    tools = (Tool("look", "looks", '{"type":"object"}', True), Tool("stop"))
    body = chat(messages=messages, tools=tools, tool_choice=ToolChoice("named", "look"), parallel_tool_calls=False)

    assert body["messages"] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}],
        },
        {"role": "tool", "content": "seen", "tool_call_id": "c1"},
        {"role": "assistant", "content": None, "refusal": "no"},
    ]
    assert [tool["function"] for tool in body["tools"]] == [
        {"name": "look", "description": "looks", "parameters": {"type": "object"}, "strict": True},
        {"name": "stop"},
    ]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert body["parallel_tool_calls"] is False
    assert chat(tools=tools, tool_choice=ToolChoice("required"))["tool_choice"] == "required"


def test_end_user_labels_and_effort() -> None:
    """Who asks, the caller's labels and the reasoning effort are passed on."""
    body = chat(end_user_id="u1", metadata={"k": "v"}, reasoning_effort="low")

    assert (body["user"], body["metadata"], body["reasoning_effort"]) == ("u1", {"k": "v"}, "low")


def test_raw_prompts() -> None:
    """Completions have their own form of logprobs, and always OpenAI's first name for the bound."""
    prompt = Prompt("gpt", raw_prompt="Once", sampling=Sampling(max_tokens=3, logprobs=True, top_logprobs=2))

    assert json.loads(completion_body(prompt, RICH)) == {
        "model": "gpt", "stream": True, "prompt": "Once", "max_tokens": 3, "logprobs": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", (Tool("look"),)),
        ("tool_choice", ToolChoice("auto")),
        ("parallel_tool_calls", False),
        ("output_format", OutputFormat("json_object")),
        ("reasoning_effort", "low"),
    ],
)
def test_raw_prompts_refuse_what_needs_a_conversation(field: str, value: object) -> None:
    """Nothing that completions do not know is dropped."""
    with pytest.raises(InvalidArgument) as caught:
        completion_body(Prompt("gpt", raw_prompt="Once", **{field: value}), RICH)  # type: ignore[arg-type]

    assert caught.value.field_violations[0].field == f"spec.{field}"
