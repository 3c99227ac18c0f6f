"""What prompts need of a target beside plain text."""

from __future__ import annotations

from typing import Any

import pytest

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
)
from services.inference.routing.capabilities import needs
from tests.inference.parts import prompt

PICTURE = Message(Role.USER, (TextPart("what is it?"), ImagePart("https://here/x.png")))


def talk(*messages: Message) -> Prompt:
    return Prompt(messages=messages)


def test_plain_text_needs_nothing() -> None:
    """Neither do parameters that every upstream knows, nor a raw prompt."""
    assert needs(prompt("hi", sampling=Sampling(temperature=0.5, max_tokens=3, n=2, stop=("x",)))) == {}
    assert needs(prompt("hi", output_format=OutputFormat("text"))) == {}
    assert needs(Prompt(raw_prompt="hi")) == {}
    assert needs(talk(Message(Role.SYSTEM, (TextPart("a"), TextPart("b"))), Message(Role.ASSISTANT))) == {}


@pytest.mark.parametrize(
    ("fields", "needed"),
    [
        ({"tools": (Tool("f"),)}, {"tools": "spec.tools"}),
        ({"output_format": OutputFormat("json_object")}, {"json_object": "spec.output_format.json_object"}),
        ({"output_format": OutputFormat("json_schema")}, {"json_schema": "spec.output_format.json_schema"}),
        ({"output_format": OutputFormat("regex")}, {"regex": "spec.output_format.regex"}),
        ({"output_format": OutputFormat("choice")}, {"choice": "spec.output_format.choice"}),
        ({"sampling": Sampling(logprobs=True)}, {"logprobs": "spec.sampling.logprobs"}),
        ({"sampling": Sampling(top_k=0)}, {"top_k": "spec.sampling.top_k"}),
        (
            {"sampling": Sampling(min_p=0.1, repetition_penalty=1.0, min_tokens=1, stop_token_ids=(1,))},
            {name: f"spec.sampling.{name}" for name in ("min_p", "repetition_penalty", "min_tokens", "stop_token_ids")},
        ),
    ],
)
def test_parameters_need_abilities(fields: dict[str, Any], needed: dict[str, str]) -> None:
    """Each under its name in the models file, with the field that asks for it."""
    assert needs(prompt(**fields)) == needed


@pytest.mark.parametrize(
    ("part", "need"),
    [(ImagePart("u"), "vision"), (AudioPart(b"", "wav"), "audio"), (FilePart("f"), "files")],
)
def test_parts_need_abilities(part: Any, need: str) -> None:
    """A part of any message, alone or beside text."""
    assert needs(talk(Message(Role.USER, (part,)))) == {need: "spec.conversation.messages[0].parts[0]"}
    assert needs(talk(Message(Role.SYSTEM), Message(Role.USER, (TextPart("x"), part)))) == {
        need: "spec.conversation.messages[1].parts[1]"
    }


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Message(Role.ASSISTANT, tool_calls=(ToolCall("1", "f", "{}"),)), "tool_calls"),
        (Message(Role.TOOL, (TextPart("42"),), tool_call_id="1"), "role"),
    ],
)
def test_past_tool_calls_need_tools(message: Message, field: str) -> None:
    """A conversation with calls in it is for models that know them, whether tools are offered now or not."""
    assert needs(talk(PICTURE, message)) == {
        "vision": "spec.conversation.messages[0].parts[1]",
        "tools": f"spec.conversation.messages[1].{field}",
    }


def test_the_first_field_is_named() -> None:
    """Where several ask for the same."""
    assert needs(talk(PICTURE, PICTURE)) == {"vision": "spec.conversation.messages[0].parts[1]"}
