"""A conversation as chat templates want it, tools and their calls included. It knows no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from services.inference.generation import Message, Prompt, Role, Tool


def offered(prompt: Prompt) -> tuple[Tool, ...]:
    """The tools that the model may call: all, the one that is named, or none."""
    choice = prompt.tool_choice
    if choice is None or choice.mode in ("auto", "required"):
        return prompt.tools
    return tuple(tool for tool in prompt.tools if tool.name == choice.name)


def tools(prompt: Prompt) -> list[dict[str, Any]]:
    """The tools that the model is told of."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": json.loads(tool.parameters_json or '{"type": "object", "properties": {}}'),
            },
        }
        for tool in offered(prompt)
    ]


def turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages; one of a tool has the name of what was called, which some templates show."""
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    return [_turn(message, names) for message in messages]


def _turn(message: Message, names: dict[str, str]) -> dict[str, Any]:
    """A message; templates know `system`, not OpenAI's newer word `developer`."""
    role = Role.SYSTEM if message.role is Role.DEVELOPER else message.role
    turn: dict[str, Any] = {"role": role.value, "content": message.text or message.refusal or ""}
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": _arguments(call.arguments_json)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        turn |= {"tool_call_id": message.tool_call_id, "name": names.get(message.tool_call_id, "")}
    return turn


def _arguments(text: str) -> Any:
    """Arguments as templates print them: an object, or the text where a model has written something else."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text
