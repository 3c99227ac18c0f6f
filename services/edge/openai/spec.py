"""Turns OpenAI bodies into the contract's GenerationSpec.

Only translation: limits of the contract are checked where it is served. What this refuses is what the contract cannot
carry at all, for instance bytes that are not base64.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from millrace.inference.v1 import generation_pb2 as pb
from services.edge.fault import Fault
from services.edge.openai import chat_request as chat
from services.edge.openai.completion_request import CompletionRequest

_ROLES: dict[type, pb.Role] = {
    chat.SystemMessage: pb.ROLE_SYSTEM,
    chat.DeveloperMessage: pb.ROLE_DEVELOPER,
    chat.UserMessage: pb.ROLE_USER,
    chat.AssistantMessage: pb.ROLE_ASSISTANT,
    chat.ToolMessage: pb.ROLE_TOOL,
}
_CHOICE_MODES = {
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}
_EFFORTS = {
    "none": pb.REASONING_EFFORT_NONE,
    "minimal": pb.REASONING_EFFORT_MINIMAL,
    "low": pb.REASONING_EFFORT_LOW,
    "medium": pb.REASONING_EFFORT_MEDIUM,
    "high": pb.REASONING_EFFORT_HIGH,
}
# Fields of the body that are fields of SamplingParams by the same name.
_CHAT_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "n",
    "logprobs",
    "top_logprobs",
)
_COMPLETION_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
    "n",
    "max_tokens",
)


def chat_spec(body: chat.ChatRequest) -> pb.GenerationSpec:
    """Translates a chat request.

    Raises:
        Fault: 400, naming the field, for what the contract cannot carry.
    """
    _check_chat(body)
    spec = pb.GenerationSpec(
        model=body.model,
        conversation=pb.Conversation(messages=[_message(m, i) for i, m in enumerate(body.messages)]),
        sampling=_chat_sampling(body),
    )
    if body.tools:
        spec.tools.extend([_tool(tool, index) for index, tool in enumerate(body.tools)])
    if body.tool_choice is not None:
        spec.tool_choice.CopyFrom(_tool_choice(body.tool_choice))
    if body.parallel_tool_calls is not None:
        spec.parallel_tool_calls = body.parallel_tool_calls
    if body.response_format is not None:
        spec.output_format.CopyFrom(_output_format(body.response_format))
    if body.reasoning_effort is not None:
        spec.reasoning_effort = _EFFORTS[body.reasoning_effort]
    if body.metadata:
        spec.metadata.update(body.metadata)
    if end_user := body.safety_identifier or body.user:
        spec.end_user_id = end_user
    return spec


def completion_specs(body: CompletionRequest) -> list[pb.GenerationSpec]:
    """Translates a completion request: one spec per prompt."""
    _check_completion(body)
    sampling = _sampling(body, _COMPLETION_SAMPLING)
    if body.logprobs is not None:
        sampling.logprobs = True
        sampling.top_logprobs = body.logprobs
    prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
    return [
        pb.GenerationSpec(model=body.model, raw_prompt=prompt, sampling=sampling, end_user_id=body.user or "")
        for prompt in prompts
    ]


def raw_prompt_spec(model: str, prompt: str) -> pb.GenerationSpec:
    """A raw prompt, for a model that knows no conversations."""
    return pb.GenerationSpec(model=model, raw_prompt=prompt)


def one_message_spec(model: str, text: str, system: str | None = None) -> pb.GenerationSpec:
    """A conversation of one user message, with instructions where given."""
    messages = [] if system is None else [pb.Message(role=pb.ROLE_SYSTEM, parts=[pb.ContentPart(text=system)])]
    messages.append(pb.Message(role=pb.ROLE_USER, parts=[pb.ContentPart(text=text)]))
    return pb.GenerationSpec(model=model, conversation=pb.Conversation(messages=messages))


def _check_chat(body: chat.ChatRequest) -> None:
    """Refuses what the schema allows and the suite does not do."""
    if body.store:
        raise Fault.invalid("Answers are not stored here; leave it out.", "store", "unsupported_parameter")
    if body.stream_options is not None and not body.stream:
        raise Fault.invalid("Only allowed with `stream: true`.", "stream_options")


def _check_completion(body: CompletionRequest) -> None:
    if body.echo:
        raise Fault.invalid("Put the prompt before the answer yourself.", "echo", "unsupported_parameter")
    if body.best_of not in (None, 1):
        raise Fault.invalid("Use `n`.", "best_of", "unsupported_parameter")
    if body.stream_options is not None and not body.stream:
        raise Fault.invalid("Only allowed with `stream: true`.", "stream_options")


def _chat_sampling(body: chat.ChatRequest) -> pb.SamplingParams:
    sampling = _sampling(body, _CHAT_SAMPLING)
    if body.max_completion_tokens is not None:
        if body.max_tokens is not None:
            raise Fault.invalid("Not together with `max_completion_tokens`.", "max_tokens")
        sampling.max_tokens = body.max_completion_tokens
    elif body.max_tokens is not None:
        sampling.max_tokens = body.max_tokens
    return sampling


def _sampling(body: chat.ChatRequest | CompletionRequest, names: Sequence[str]) -> pb.SamplingParams:
    given: dict[str, Any] = {name: value for name in names if (value := getattr(body, name)) is not None}
    sampling = pb.SamplingParams(**given)
    if body.stop is not None:
        sampling.stop.extend([body.stop] if isinstance(body.stop, str) else body.stop)
    if body.logit_bias:
        for token_id, bias in body.logit_bias.items():
            sampling.logit_bias[int(token_id)] = bias
    return sampling


def _message(message: chat.Message, index: int) -> pb.Message:
    """Translates one message; `index` names it in a fault."""
    content = message.content
    if isinstance(content, str):
        parts = [pb.ContentPart(text=content)]
    elif content is None:
        parts = []
    else:
        where = f"messages[{index}].content"
        parts = [_part(p, f"{where}[{i}]") for i, p in enumerate(content) if not isinstance(p, chat.RefusalPart)]
    translated = pb.Message(role=_ROLES[type(message)], parts=parts)
    if isinstance(message, chat.ToolMessage):
        translated.tool_call_id = message.tool_call_id
    elif message.name is not None:
        translated.name = message.name
    if isinstance(message, chat.AssistantMessage):
        _add_assistant(translated, message)
    return translated


def _add_assistant(translated: pb.Message, message: chat.AssistantMessage) -> None:
    """Adds what only the assistant's messages have."""
    for call in message.tool_calls or ():
        translated.tool_calls.add(id=call.id, name=call.function.name, arguments_json=call.function.arguments)
    refusals = [message.refusal] if message.refusal is not None else []
    if isinstance(message.content, list):
        refusals += [part.refusal for part in message.content if isinstance(part, chat.RefusalPart)]
    if refusals:
        translated.refusal = "".join(refusals)


def _part(part: Any, where: str) -> pb.ContentPart:
    return _PARTS[type(part)](part, where)


def _text(part: chat.TextPart, where: str) -> pb.ContentPart:
    return pb.ContentPart(text=part.text)


def _image(part: chat.ImagePart, where: str) -> pb.ContentPart:
    return pb.ContentPart(image=pb.Image(url=part.image_url.url, detail=part.image_url.detail))


def _audio(part: chat.AudioPart, where: str) -> pb.ContentPart:
    data = _bytes(part.input_audio.data, f"{where}.input_audio.data")
    return pb.ContentPart(audio=pb.Audio(data=data, format=part.input_audio.format))


def _file(part: chat.FilePart, where: str) -> pb.ContentPart:
    source = part.file
    if (source.file_id is None) == (source.file_data is None):
        raise Fault.invalid("Give either `file_id` or `file_data`.", f"{where}.file")
    if source.file_id is not None:
        return pb.ContentPart(file=pb.File(file_id=source.file_id, filename=source.filename or ""))
    data = _bytes(source.file_data or "", f"{where}.file.file_data")
    return pb.ContentPart(file=pb.File(data=data, filename=source.filename or ""))


_PARTS: dict[type, Callable[[Any, str], pb.ContentPart]] = {
    chat.TextPart: _text,
    chat.ImagePart: _image,
    chat.AudioPart: _audio,
    chat.FilePart: _file,
}


def _bytes(text: str, where: str) -> bytes:
    """Decodes base64, bare or in a data URL."""
    if text.startswith("data:"):
        text = text.partition(";base64,")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Fault.invalid("Not base64.", where) from None


def _tool(tool: chat.Tool, index: int) -> pb.Tool:
    function = tool.function
    return pb.Tool(
        name=function.name,
        description=function.description or "",
        parameters_json=_json_text(function.parameters, f"tools[{index}].function.parameters"),
        strict=function.strict,
    )


def _tool_choice(choice: str | chat.NamedToolChoice) -> pb.ToolChoice:
    if isinstance(choice, str):
        return pb.ToolChoice(mode=_CHOICE_MODES[choice])
    return pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NAMED, name=choice.function.name)


def _output_format(form: chat.TextFormat | chat.JsonObjectFormat | chat.JsonSchemaFormat) -> pb.OutputFormat:
    if isinstance(form, chat.TextFormat):
        return pb.OutputFormat(text=pb.TextFormat())
    if isinstance(form, chat.JsonObjectFormat):
        return pb.OutputFormat(json_object=pb.JsonObjectFormat())
    schema = form.json_schema
    return pb.OutputFormat(
        json_schema=pb.JsonSchemaFormat(
            name=schema.name,
            description=schema.description or "",
            schema_json=_json_text(schema.schema, "response_format.json_schema.schema"),
            strict=schema.strict,
        )
    )


def _json_text(raw: msgspec.Raw, where: str) -> str:
    """The text of a JSON object as the caller wrote it; null counts as absent."""
    try:
        text = bytes(raw).decode()
    except UnicodeDecodeError:
        raise Fault.invalid("Not UTF-8.", where) from None
    if text and text != "null" and not text.startswith("{"):
        raise Fault.invalid("Expected a JSON Schema, which is an object.", where)
    return "" if text == "null" else text
