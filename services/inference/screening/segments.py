"""The texts of a prompt, for safety to judge, and the prompt with other texts in their places.

Everything written that goes to an upstream is here: messages, what stands beside them, tools and their schemas, the
shape of the answer, stop strings, and what upstreams keep of the caller. It decides nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from services.inference.generation import Message, OutputFormat, Prompt, Role, TextPart, Tool
from services.inference.screening.restoring import quoted

Place = tuple[int, int, str]
TEXT = "text"
TOOL_NAMES = frozenset({"tool_name", "call_name"})


class Segment(msgspec.Struct, frozen=True):
    """A piece of a prompt to be judged: who wrote it, the text, and where it stands.

    `field` says what it is of its message or of the prompt; `part_index` counts it among those of its kind, and
    `message_index` is 0 for what belongs to no message.
    """

    role: Role
    text: str
    message_index: int
    part_index: int
    field: str = TEXT

    @property
    def place(self) -> Place:
        """Where its text stands in the prompt."""
        return self.message_index, self.part_index, self.field


def segments_of(prompt: Prompt) -> list[Segment]:
    """Every text of a prompt that is not empty."""
    if prompt.raw_prompt is not None:
        found = [Segment(Role.USER, prompt.raw_prompt, 0, 0)]
    else:
        known = {tool.name for tool in prompt.tools}
        found = [one for index, message in enumerate(prompt.messages) for one in _of_message(message, index, known)]
    return [one for one in [*found, *_beside(prompt)] if one.text]


def _of_message(message: Message, index: int, known: Collection[str]) -> Iterator[Segment]:
    for part_index, part in enumerate(message.parts):
        if isinstance(part, TextPart):
            yield Segment(message.role, part.text, index, part_index)
    for call_index, call in enumerate(message.tool_calls):
        if call.name not in known:
            yield Segment(message.role, call.name, index, call_index, "call_name")
        yield Segment(message.role, call.arguments_json, index, call_index, "arguments")
    yield Segment(message.role, message.name or "", index, 0, "name")
    yield Segment(message.role, message.refusal or "", index, 0, "refusal")


def _beside(prompt: Prompt) -> Iterator[Segment]:
    for index, tool in enumerate(prompt.tools):
        yield Segment(Role.SYSTEM, tool.name, 0, index, "tool_name")
        yield Segment(Role.SYSTEM, tool.description, 0, index, "tool_description")
        yield Segment(Role.SYSTEM, tool.parameters_json, 0, index, "tool_parameters")
    for index, stop in enumerate(prompt.sampling.stop):
        yield Segment(Role.USER, stop, 0, index, "stop")
    if output := prompt.output_format:
        yield Segment(Role.SYSTEM, output.description, 0, 0, "format_description")
        yield Segment(Role.SYSTEM, output.schema_json, 0, 0, "format_schema")
        yield Segment(Role.SYSTEM, output.regex, 0, 0, "format_regex")
        for index, choice in enumerate(output.choices):
            yield Segment(Role.SYSTEM, choice, 0, index, "format_choice")
    yield Segment(Role.USER, prompt.end_user_id or "", 0, 0, "user")
    for index, (key, value) in enumerate(prompt.metadata.items()):
        yield Segment(Role.USER, f"{key}: {value}", 0, index, "metadata")


def with_texts(prompt: Prompt, new: Mapping[Place, str]) -> Prompt:
    """The prompt with new texts in their places. Names and metadata that would change are left out: they are keys."""
    sampling = prompt.sampling
    stop = tuple(new.get((0, index, "stop"), one) for index, one in enumerate(sampling.stop))
    metadata = {
        key: value for index, (key, value) in enumerate(prompt.metadata.items()) if (0, index, "metadata") not in new
    }
    raw = prompt.raw_prompt
    return msgspec.structs.replace(
        prompt,
        raw_prompt=None if raw is None else new.get((0, 0, TEXT), raw),
        messages=tuple(_message(message, index, new) for index, message in enumerate(prompt.messages)),
        tools=tuple(_tool(tool, index, new) for index, tool in enumerate(prompt.tools)),
        sampling=msgspec.structs.replace(sampling, stop=stop),
        output_format=_output_format(prompt.output_format, new) if prompt.output_format else None,
        end_user_id=None if (0, 0, "user") in new else prompt.end_user_id,
        metadata=metadata,
    )


def _message(message: Message, index: int, new: Mapping[Place, str]) -> Message:
    parts = tuple(
        TextPart(new[place]) if (place := (index, part_index, TEXT)) in new else part
        for part_index, part in enumerate(message.parts)
    )
    calls = tuple(
        msgspec.structs.replace(call, arguments_json=quoted(new[place]))
        if (place := (index, call_index, "arguments")) in new
        else call
        for call_index, call in enumerate(message.tool_calls)
    )
    name = None if (index, 0, "name") in new else message.name
    refusal = new.get((index, 0, "refusal"), message.refusal)
    return msgspec.structs.replace(message, parts=parts, tool_calls=calls, name=name, refusal=refusal)


def _tool(tool: Tool, index: int, new: Mapping[Place, str]) -> Tool:
    return msgspec.structs.replace(
        tool,
        description=new.get((0, index, "tool_description"), tool.description),
        parameters_json=new.get((0, index, "tool_parameters"), tool.parameters_json),
    )


def _output_format(output: OutputFormat, new: Mapping[Place, str]) -> OutputFormat:
    return msgspec.structs.replace(
        output,
        description=new.get((0, 0, "format_description"), output.description),
        schema_json=new.get((0, 0, "format_schema"), output.schema_json),
        regex=new.get((0, 0, "format_regex"), output.regex),
        choices=tuple(new.get((0, index, "format_choice"), one) for index, one in enumerate(output.choices)),
    )
