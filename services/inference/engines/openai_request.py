"""From a prompt to the JSON body of an OpenAI-compatible upstream.

Every field is either sent or refused by name; none is dropped. Fields beyond OpenAI's own are sent only to upstreams
whose entry in the models file lists them under `extensions`. It never touches a connection.
"""

from __future__ import annotations

import base64
import mimetypes
from typing import Any

import msgspec

from kit.errors import InvalidArgument
from services.inference.generation import (
    AudioPart,
    ContentPart,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
)
from services.inference.routing.catalog import Upstream

Body = dict[str, Any]
_encode = msgspec.json.Encoder().encode


def chat_body(prompt: Prompt, upstream: Upstream) -> bytes:
    """The body of POST /chat/completions.

    Raises:
        InvalidArgument: A field that the upstream does not take is set.
    """
    body: Body = {"model": prompt.model, "messages": [_message(message) for message in prompt.messages]}
    _add_common(body, prompt, upstream, upstream.max_tokens_field)
    if prompt.sampling.logprobs:
        body["logprobs"] = True
        body["top_logprobs"] = prompt.sampling.top_logprobs
    if prompt.tools:
        body["tools"] = [_tool(tool) for tool in prompt.tools]
    if prompt.tool_choice:
        body["tool_choice"] = _tool_choice(prompt.tool_choice)
    if prompt.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = prompt.parallel_tool_calls
    if prompt.output_format:
        _add_format(body, prompt.output_format, upstream)
    if prompt.reasoning_effort:
        body["reasoning_effort"] = prompt.reasoning_effort
    return _encode(body)


def completion_body(prompt: Prompt, upstream: Upstream) -> bytes:
    """The body of POST /completions, for raw prompts; raises as `chat_body` does."""
    chat_only = {
        "tools": prompt.tools,
        "tool_choice": prompt.tool_choice,
        "parallel_tool_calls": prompt.parallel_tool_calls is not None,
        "output_format": prompt.output_format and prompt.output_format.kind != "text",
        "reasoning_effort": prompt.reasoning_effort,
    }
    for field, value in chat_only.items():
        if value:
            raise InvalidArgument(f"spec.{field}", f"{field} needs a conversation; a raw prompt cannot have it")
    body: Body = {"model": prompt.model, "prompt": prompt.raw_prompt}
    _add_common(body, prompt, upstream, "max_tokens")
    if prompt.sampling.logprobs:
        body["logprobs"] = prompt.sampling.top_logprobs
    return _encode(body)


def _add_common(body: Body, prompt: Prompt, upstream: Upstream, max_tokens_field: str) -> None:
    if upstream.streams:
        body["stream"] = True
        if upstream.stream_usage:
            body["stream_options"] = {"include_usage": True}
    if prompt.end_user_id:
        body["user"] = prompt.end_user_id
    if prompt.metadata:
        body["metadata"] = dict(prompt.metadata)
    if prompt.sampling != Sampling():
        _add_sampling(body, prompt.sampling, upstream, max_tokens_field)


def _add_sampling(body: Body, sampling: Sampling, upstream: Upstream, max_tokens_field: str) -> None:
    for name in ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed"):
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    for name in ("top_k", "min_p", "repetition_penalty", "min_tokens", "stop_token_ids"):
        value = getattr(sampling, name)
        if value is not None and value != ():
            _need(upstream, name, f"spec.sampling.{name}")
            body[name] = value
    if sampling.max_tokens is not None:
        body[max_tokens_field] = sampling.max_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.n != 1:
        body["n"] = sampling.n
    if sampling.logit_bias:
        body["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias.items()}


def _need(upstream: Upstream, extension: str, field: str) -> None:
    if extension not in upstream.extensions:
        raise InvalidArgument(field, f"this model's upstream does not take {extension}; leave it out")


def _add_format(body: Body, output: OutputFormat, upstream: Upstream) -> None:
    if output.kind == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif output.kind == "json_schema":
        schema: Body = {"name": output.name, "schema": msgspec.Raw(output.schema_json.encode())}
        if output.description:
            schema["description"] = output.description
        if output.strict is not None:
            schema["strict"] = output.strict
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    elif output.kind in ("regex", "choice"):
        _need(upstream, output.kind, f"spec.output_format.{output.kind}")
        value = output.regex if output.kind == "regex" else list(output.choices)
        body["structured_outputs"] = {output.kind: value}  # vLLM's name for it


def _message(message: Message) -> Body:
    body: Body = {"role": message.role.value, "content": _content(message)}
    if message.name:
        body["name"] = message.name
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    if message.refusal is not None:
        body["refusal"] = message.refusal
    if message.tool_calls:
        body["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_json}}
            for call in message.tool_calls
        ]
    return body


def _content(message: Message) -> str | list[Body] | None:
    parts = message.parts
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return parts[0].text
    if not parts:  # where calls or a refusal stand instead of words
        return None if message.tool_calls or message.refusal is not None else ""
    return [_part(part) for part in parts]


def _part(part: ContentPart) -> Body:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            detail = {"detail": part.detail} if part.detail else {}
            return {"type": "image_url", "image_url": {"url": part.url, **detail}}
        case AudioPart():
            data = base64.b64encode(part.data).decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": part.format}}
        case FilePart():
            return {"type": "file", "file": _file(part)}


def _file(part: FilePart) -> Body:
    if part.file_id:
        return {"file_id": part.file_id}
    media_type = mimetypes.guess_type(part.filename)[0] or "application/octet-stream"
    data = base64.b64encode(part.data or b"").decode()
    return {"filename": part.filename, "file_data": f"data:{media_type};base64,{data}"}  # bare base64 is refused


def _tool(tool: Tool) -> Body:
    function: Body = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters_json:
        function["parameters"] = msgspec.Raw(tool.parameters_json.encode())
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | Body:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode
