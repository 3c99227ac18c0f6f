"""Tools of the local engine: a model that knows no language calls them right where it is held to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kit.errors import InvalidArgument
from services.inference.answer import WholeChoice, put_together
from services.inference.engines.local.conversation import turns
from services.inference.engines.local.engine import LocalEngine
from services.inference.generation import (
    FinishReason,
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
from tests.fakes.tiny_gpt2 import write_tiny
from tests.inference.local_answers import collect

TEMPLATE = (
    "{%% for tool in tools or [] %%}{{ tool | tojson }}{%% endfor %%}"
    "{%% for m in messages %%}{{ m.role }}: {{ m.content }}{{ m.tool_calls | default([]) | tojson }}{%% endfor %%}%s"
)
FAMILIES = {  # how each writes calls, and which of that are tokens of their own
    "hermes": ("<tool_call></tool_call>", ""),
    "qwen": ("<tool_call></tool_call>", "<tool_call> </tool_call>"),
    "mistral": ("[TOOL_CALLS]", "[TOOL_CALLS]"),
    "llama": ("<|python_tag|>", "<|python_tag|>"),
}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Köln", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
WEATHER = Tool("weather", "Tells the weather.", json.dumps(PARAMETERS))
CLOCK = Tool("clock", parameters_json='{"properties": {"utc": {"type": "boolean"}}, "additionalProperties": false}')


@pytest.fixture(params=FAMILIES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalEngine]:
    """The engine on a tiny Llama that writes calls as a family does."""
    marks, markers = FAMILIES[request.param]
    engine = LocalEngine(str(write_tiny(tmp_path, "llama", 2048, TEMPLATE % marks, markers)))
    await engine.warm()
    yield engine
    await engine.close()


def asked(*messages: Message, tools: Sequence[Tool] = (WEATHER, CLOCK), **said: Any) -> Prompt:
    """A question with tools."""
    sampling = Sampling(temperature=1.0, seed=4, max_tokens=300, n=said.pop("n", 1), stop=said.pop("stop", ()))
    said.setdefault("sampling", sampling)
    return Prompt(messages=messages or (Message(Role.USER, (TextPart("weather?"),)),), tools=tuple(tools), **said)


async def choices(engine: LocalEngine, prompt: Prompt) -> list[WholeChoice]:
    """The choices of an answer."""
    return put_together(await collect(engine, prompt))


async def test_a_named_tool_is_called_once(engine: LocalEngine) -> None:
    """Each choice is one call of the tool that is named, its arguments fit, and nothing of the markers is text."""
    prompt = asked(tool_choice=ToolChoice("named", "weather"), n=4)

    found = await choices(engine, prompt)

    assert len(found) == 4
    for choice in found:
        assert (choice.text, choice.finish_reason) == ("", FinishReason.TOOL_CALLS)
        (call,) = choice.tool_calls.values()
        assert (call.name, bool(call.id)) == ("weather", True)
        arguments = json.loads(call.arguments_json)
        assert set(arguments) == {"city", "days"}
        assert 1 <= arguments["days"] <= 9
    assert len({call.arguments_json for choice in found for call in choice.tool_calls.values()}) > 1


async def test_a_required_call_is_one_of_the_tools(engine: LocalEngine) -> None:
    """Where some tool must be called, and only one, each choice calls one of them."""
    prompt = asked(tool_choice=ToolChoice("required"), parallel_tool_calls=False, n=8)

    found = await choices(engine, prompt)

    names = [call.name for choice in found for call in choice.tool_calls.values()]
    assert len(names) == 8
    assert set(names) == {"weather", "clock"}


async def test_the_model_is_told_of_its_tools(engine: LocalEngine) -> None:
    """Tools and calls of earlier turns are in the prompt; where none may be called, the tools are not."""
    plain, told = asked(tools=()), asked()
    called = asked(
        Message(Role.USER, (TextPart("weather?"),)),
        Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", "weather", '{"city": "Rome"}'),)),
        Message(Role.TOOL, (TextPart("sunny"),), tool_call_id="c1"),
    )

    assert await engine.count_tokens(told) > await engine.count_tokens(plain) + 100
    assert await engine.count_tokens(called) > await engine.count_tokens(told)
    assert await engine.count_tokens(asked(tool_choice=ToolChoice("none"))) == await engine.count_tokens(plain)
    assert turns(called.messages)[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Rome"}}
    assert (turns(called.messages)[2]["name"], turns(called.messages)[2]["tool_call_id"]) == ("weather", "c1")


async def test_a_free_model_may_say_what_it_likes(engine: LocalEngine) -> None:
    """Without a choice an answer that calls nothing is text, bounded as asked."""
    (choice,) = await choices(engine, asked(sampling=Sampling(temperature=1.0, seed=1, max_tokens=20)))

    assert choice.finish_reason in (FinishReason.LENGTH, FinishReason.STOP)
    assert choice.text
    assert not choice.tool_calls


async def test_tools_and_a_format_do_not_go_together(engine: LocalEngine) -> None:
    """An answer cannot be held to both: the format is refused by name."""
    with pytest.raises(InvalidArgument) as refused:
        await collect(engine, asked(output_format=OutputFormat("json_object")))

    assert refused.value.field_violations[0].field == "spec.output_format"


async def test_parameters_that_cannot_be_enforced_are_refused(engine: LocalEngine) -> None:
    """A tool whose parameters no grammar knows is refused where it would have to be enforced."""
    tool = Tool("odd", parameters_json='{"type": "nope"}')

    with pytest.raises(InvalidArgument) as refused:
        await collect(engine, asked(tools=[tool], tool_choice=ToolChoice("required")))

    assert refused.value.field_violations[0].field == "spec.tools"


@pytest.mark.parametrize("family", ["qwen", "mistral"])
async def test_a_strict_call_fits_though_none_is_required(tmp_path: Path, family: str) -> None:
    """A model that is free to call, and begins to, can only call a strict tool as its parameters say."""
    marks, markers = FAMILIES[family]
    engine = LocalEngine(str(write_tiny(tmp_path, "llama", 2048, TEMPLATE % marks, markers)))
    await engine.warm()
    strict = Tool("weather", parameters_json=json.dumps(PARAMETERS), strict=True)
    # A nudge towards the marker, and away from it once it is there.
    sampling = Sampling(temperature=1.0, seed=4, max_tokens=300, logit_bias={260: 50.0}, frequency_penalty=2.0, n=3)
    found = await choices(engine, asked(tools=[strict], parallel_tool_calls=False, sampling=sampling))
    await engine.close()

    calls = [call for choice in found for call in choice.tool_calls.values()]
    assert len(calls) == 3
    assert all(set(json.loads(call.arguments_json)) == {"city", "days"} for call in calls)
