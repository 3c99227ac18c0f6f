"""The body of POST /v1/responses, and what it asks for in the words of the chat endpoint.

Every field of OpenAI's schema is here, or in REFUSED with what to do instead; any other name is refused as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from millrace.inference.v1 import generation_pb2 as pb
from services.edge.fault import Fault
from services.edge.openai import chat_request as chat
from services.edge.openai import fields
from services.edge.openai.spec import chat_spec

REFUSED = {
    "context_management": "send what the model is to see.",
    "conversation": "use `previous_response_id`, or send the items.",
    "max_tool_calls": "no tools are run here; calls are handed to you.",
    "moderation": "use the header `x-millrace-safety-profile`.",
    "personality": "say it in `instructions`.",
    "prompt": "send the items themselves.",
    "prompt_cache_options": "use `Cache-Control: no-cache` or `no-store`.",
}


class InputText(Struct, forbid_unknown_fields=True, tag="input_text"):
    """What a user or the application says."""

    text: str


class InputImage(Struct, forbid_unknown_fields=True, tag="input_image"):
    """A picture, by https or data URL."""

    image_url: Annotated[str, Meta(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None


class InputFile(Struct, forbid_unknown_fields=True, tag="input_file"):
    """A document by the upstream's id, or by value as base64 or a data URL."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class OutputText(Struct, tag="output_text"):
    """What the model said before."""

    text: str


class Refusal(Struct, tag="refusal"):
    """Text by which the model declined."""

    refusal: str


Part = InputText | InputImage | InputFile | OutputText | Refusal


class MessageItem(Struct, forbid_unknown_fields=True):
    """A message; of an answer that is sent back, the id and the status are not used."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[Part]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class CallItem(Struct, forbid_unknown_fields=True):
    """A call that the model made; the arguments are JSON text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None


class CallOutputItem(Struct, forbid_unknown_fields=True):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[InputText]
    id: str | None = None
    status: str | None = None


class ReasoningItem(Struct):
    """What the model thought before; engines do not take it back."""

    type: Literal["reasoning"]


class _Kind(Struct):
    type: str = "message"


_ITEMS: dict[str, msgspec.json.Decoder[Any]] = {
    "message": msgspec.json.Decoder(MessageItem),
    "function_call": msgspec.json.Decoder(CallItem),
    "function_call_output": msgspec.json.Decoder(CallOutputItem),
    "reasoning": msgspec.json.Decoder(ReasoningItem),
}
_kind = msgspec.json.Decoder(_Kind)
Item = MessageItem | CallItem | CallOutputItem | ReasoningItem


class FunctionTool(Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: chat.JsonText = msgspec.field(default_factory=lambda: Raw(b"null"))
    strict: bool | None = None


class NamedFunction(Struct, forbid_unknown_fields=True):
    """The one function that must be called."""

    type: Literal["function"]
    name: str


class TextFormat(Struct, forbid_unknown_fields=True, tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, forbid_unknown_fields=True, tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(Struct, forbid_unknown_fields=True, tag="json_schema"):
    """JSON that follows a schema."""

    name: str
    schema: chat.JsonText
    description: str | None = None
    strict: bool | None = None


class TextOptions(Struct, forbid_unknown_fields=True):
    """The form of the answer's text."""

    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None


class Reasoning(Struct, forbid_unknown_fields=True):
    """How long the model thinks; summaries are not made."""

    effort: fields.ReasoningEffort | None = None
    summary: Literal["auto"] | None = None


class StreamOptions(Struct, forbid_unknown_fields=True):
    """What a stream carries besides; nothing is obfuscated."""

    include_obfuscation: bool | None = None


class ResponseRequest(Struct, forbid_unknown_fields=True):
    """Asks for a response; `store` says whether it is kept. What is made in the background always is."""

    model: fields.ModelName
    input: str | Annotated[list[Raw], Meta(min_length=1, max_length=2048)]
    background: bool | None = None
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    instructions: str | None = None
    max_output_tokens: fields.TokenCount | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning: Reasoning | None = None
    safety_identifier: fields.EndUser | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: fields.Temperature | None = None
    text: TextOptions | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    tools: list[FunctionTool] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: fields.TopP | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: fields.EndUser | None = None

    def is_kept(self, unless_said: bool) -> bool:
        """Whether the response outlives its request, as it says or, unless it says, as the setting does."""
        return bool(self.background) or (unless_said if self.store is None else self.store)


def input_items(body: ResponseRequest) -> list[Raw]:
    """The items of the input, as JSON; a text is the user's message."""
    if isinstance(body.input, str):
        return [Raw(msgspec.json.encode(MessageItem("user", body.input)))]
    return body.input


def generation_spec(body: ResponseRequest, items: Sequence[Raw]) -> pb.GenerationSpec:
    """What is asked, as the contract has it.

    Args:
        body: What is asked.
        items: The whole conversation: earlier ones, then those of the body.
    Raises:
        Fault: 400, naming the item that makes no sense, or the input where it cannot be carried.
    """
    try:
        return chat_spec(_chat_request(body, items))
    except Fault as fault:
        raise (fault.renamed("input") if (fault.param or "").startswith("messages[") else fault) from None


def _chat_request(body: ResponseRequest, items: Sequence[Raw]) -> chat.ChatRequest:
    """The same in the words of the chat endpoint."""
    return chat.ChatRequest(
        model=body.model,
        messages=_messages(body.instructions, _read(items)),
        max_completion_tokens=body.max_output_tokens,
        metadata=body.metadata,
        parallel_tool_calls=body.parallel_tool_calls,
        reasoning_effort=body.reasoning.effort if body.reasoning else None,
        response_format=_format(body.text),
        safety_identifier=body.safety_identifier,
        temperature=body.temperature,
        tool_choice=_tool_choice(body.tool_choice),
        tools=[_tool(tool) for tool in body.tools] if body.tools else None,
        logprobs=True if body.top_logprobs or "message.output_text.logprobs" in (body.include or ()) else None,
        top_logprobs=body.top_logprobs,
        top_p=body.top_p,
        user=body.user,
    )


def _read(items: Iterable[Raw]) -> list[Item]:
    read: list[Item] = []
    for index, raw in enumerate(items):
        try:
            kind = _kind.decode(raw).type
            if kind not in _ITEMS:
                raise Fault.invalid(f"Items of type {kind[:64]!r} are not taken.", f"input[{index}].type")
            read.append(_ITEMS[kind].decode(raw))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            what, _, path = str(error).partition(" - at `$")
            raise Fault.invalid(f"{what}.", f"input[{index}]{path.rstrip('`')}") from None
    return read


def _messages(instructions: str | None, items: Iterable[Item]) -> list[chat.Message]:
    """Messages of the items; calls that stand together are one message's."""
    messages: list[chat.Message] = [chat.SystemMessage(instructions)] if instructions else []
    for item in items:
        if isinstance(item, CallItem):
            call = chat.ToolCall(item.call_id, chat.FunctionCall(item.name, item.arguments))
            last = messages[-1] if messages else None
            if isinstance(last, chat.AssistantMessage):
                last.tool_calls = [*(last.tool_calls or ()), call]
            else:
                messages.append(chat.AssistantMessage(tool_calls=[call]))
        elif isinstance(item, CallOutputItem):
            output = item.output if isinstance(item.output, str) else "".join(part.text for part in item.output)
            messages.append(chat.ToolMessage(output, item.call_id))
        elif isinstance(item, MessageItem):
            messages.append(_message(item))
    return messages


def _message(item: MessageItem) -> chat.Message:
    content: Any = item.content
    if not isinstance(content, str):
        content = [_part(part) for part in content] or ""
    if item.role == "user":
        return chat.UserMessage(content)
    if item.role == "assistant":
        return chat.AssistantMessage(content)
    return chat.SystemMessage(content) if item.role == "system" else chat.DeveloperMessage(content)


def _part(part: Part) -> Any:
    if isinstance(part, InputText | OutputText):
        return chat.TextPart(part.text)
    if isinstance(part, InputImage):
        return chat.ImagePart(chat.ImageUrl(part.image_url, part.detail))
    if isinstance(part, InputFile):
        return chat.FilePart(chat.FileSource(part.file_id, part.file_data, part.filename))
    return chat.RefusalPart(part.refusal)


def _tool(tool: FunctionTool) -> chat.Tool:
    return chat.Tool("function", chat.FunctionTool(tool.name, tool.description, tool.parameters, tool.strict))


def _tool_choice(choice: str | NamedFunction | None) -> Any:
    if isinstance(choice, NamedFunction):
        return chat.NamedToolChoice("function", chat.FunctionName(choice.name))
    return choice


def _format(text: TextOptions | None) -> Any:
    form = text.format if text else None
    if isinstance(form, JsonSchemaFormat):
        return chat.JsonSchemaFormat(chat.JsonSchema(form.name, form.description, form.schema, form.strict))
    return chat.JsonObjectFormat() if isinstance(form, JsonObjectFormat) else None
