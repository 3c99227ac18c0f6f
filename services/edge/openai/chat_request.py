"""The body of POST /v1/chat/completions.

Every field of OpenAI's schema is either here, and translated or harmless, or in REFUSED with what to do instead; any
other name is refused as unknown. Nothing is dropped in silence.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from services.edge.openai import fields

# Accepted and not passed on, because the answer is the same without them.
HARMLESS = {
    "modalities": "only `text` is accepted, which is what answers are.",
    "prompt_cache_key": "a hint to OpenAI's prompt cache.",
    "prompt_cache_retention": "a hint to OpenAI's prompt cache.",
    "service_tier": "only `auto` and `default` are accepted: OpenAI's price classes.",
    "store": "only false is accepted: nothing is stored.",
}

REFUSED = {
    "audio": "answers are text.",
    "function_call": "use `tool_choice`.",
    "functions": "use `tools`.",
    "moderation": "use the header `x-millrace-safety-profile`.",
    "prediction": "no target takes predicted output.",
    "prompt_cache_options": "use `Cache-Control: no-cache` or `no-store`.",
    "verbosity": "say it in the prompt.",
    "web_search_options": "no target searches the web.",
}


class TextPart(Struct, forbid_unknown_fields=True, tag="text"):
    """Plain text."""

    text: str


class ImageUrl(Struct, forbid_unknown_fields=True):
    """Where a picture is."""

    url: Annotated[str, Meta(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Struct, forbid_unknown_fields=True, tag="image_url"):
    """A picture, by https or data URL."""

    image_url: ImageUrl


class InputAudio(Struct, forbid_unknown_fields=True):
    """A recording as base64."""

    data: str
    format: Literal["wav", "mp3"]


class AudioPart(Struct, forbid_unknown_fields=True, tag="input_audio"):
    """A recording."""

    input_audio: InputAudio


class FileSource(Struct, forbid_unknown_fields=True):
    """A document by the upstream's id, or by value as base64 or a data URL."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class FilePart(Struct, forbid_unknown_fields=True, tag="file"):
    """A document."""

    file: FileSource


class RefusalPart(Struct, forbid_unknown_fields=True, tag="refusal"):
    """Text by which the assistant declined."""

    refusal: str


class FunctionCall(Struct, forbid_unknown_fields=True):
    """What the assistant called; the arguments are JSON text."""

    name: str
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    """A call that the assistant made."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


TextContent = str | Annotated[list[TextPart], Meta(min_length=1)]
SpeakerName = Annotated[str, Meta(min_length=1, max_length=64)]


class SystemMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions of the application."""

    content: TextContent
    name: SpeakerName | None = None


class DeveloperMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="developer"):
    """Instructions of the application, for models that tell them from system messages."""

    content: TextContent
    name: SpeakerName | None = None


class UserMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """What the end user says."""

    content: str | Annotated[list[TextPart | ImagePart | AudioPart | FilePart], Meta(min_length=1)]
    name: SpeakerName | None = None


class AssistantMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="assistant"):
    """What the model said before; `annotations` and `reasoning_content` of an answer may be sent back, unused."""

    content: str | Annotated[list[TextPart | RefusalPart], Meta(min_length=1)] | None = None
    refusal: str | None = None
    name: SpeakerName | None = None
    tool_calls: list[ToolCall] | None = None
    audio: None = None
    function_call: None = None
    annotations: list[msgspec.Raw] | None = None
    reasoning_content: str | None = None


class ToolMessage(Struct, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """The result of a tool call."""

    content: TextContent
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


# The text as it was written: the contract carries JSON text, and order and spacing of a schema are the caller's.
JsonText = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": ["object", "null"]})]


class FunctionTool(Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: JsonText = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None


class Tool(Struct, forbid_unknown_fields=True):
    """A tool that the model may use."""

    type: Literal["function"]
    function: FunctionTool


class FunctionName(Struct, forbid_unknown_fields=True):
    """The name of a function."""

    name: str


class NamedToolChoice(Struct, forbid_unknown_fields=True):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class TextFormat(Struct, forbid_unknown_fields=True, tag="text"):
    """Free text."""


class JsonObjectFormat(Struct, forbid_unknown_fields=True, tag="json_object"):
    """Any JSON object."""


class JsonSchema(Struct, forbid_unknown_fields=True):
    """A schema that the answer follows."""

    name: str
    description: str | None = None
    schema: JsonText = msgspec.field(default_factory=msgspec.Raw)
    strict: bool | None = None


class JsonSchemaFormat(Struct, forbid_unknown_fields=True, tag="json_schema"):
    """JSON that follows a schema."""

    json_schema: JsonSchema


class ChatRequest(Struct, forbid_unknown_fields=True):
    """Asks for the next message of a conversation."""

    model: fields.ModelName
    messages: Annotated[list[Message], Meta(min_length=1)]
    frequency_penalty: fields.Penalty | None = None
    logit_bias: fields.LogitBias | None = None
    logprobs: bool | None = None
    max_completion_tokens: fields.TokenCount | None = None
    max_tokens: fields.TokenCount | None = None
    metadata: dict[str, str] | None = None
    min_p: fields.Probability | None = None
    modalities: list[Literal["text"]] | None = None
    n: fields.ChoiceCount | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: fields.Penalty | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: fields.ReasoningEffort | None = None
    repetition_penalty: fields.RepetitionPenalty | None = None
    response_format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    safety_identifier: fields.EndUser | None = None
    seed: fields.Seed | None = None
    service_tier: Literal["auto", "default"] | None = None
    stop: fields.Stop | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: fields.StreamOptions | None = None
    temperature: fields.Temperature | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    tools: list[Tool] | None = None
    top_k: fields.TopK | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    top_p: fields.TopP | None = None
    user: fields.EndUser | None = None
