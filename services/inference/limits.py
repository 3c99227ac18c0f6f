"""The limits of the contract, checked once at the door: each error names the field and what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from kit.errors import InvalidArgument
from kit.identity import ANONYMOUS, current, sane_request_id
from millrace.inference.v1 import generation_pb2, inference_service_pb2
from services.inference.caching.canonical import COMPARED_CHARS_MAX
from services.inference.translate import seconds

PROMPT_CHARS_MAX = 1_000_000
TEXT_COUNT_MAX = 2_048  # as many as the safety service judges in one call
MEDIA_BYTES_MAX = 10 * 1024 * 1024
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
WORD = "must be 1 to 64 of letters, digits, _ and -"

# Field of SamplingParams: lowest, highest, as the contract states them.
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 2),
    "max_tokens": (1, 10_000_000),
    "min_tokens": (0, 10_000_000),
    "n": (1, 16),
    "top_logprobs": (0, 20),
}
ABOVE_ZERO = frozenset({"top_p", "repetition_penalty"})
AUDIO_FORMATS = frozenset({"wav", "mp3"})
DETAILS = frozenset({"", "low", "high", "auto"})


def check_request_id(request_id: str, from_metadata: str) -> str:
    """The id that a request goes by: its own field, else the metadata's.

    Raises:
        InvalidArgument: The field is set and not fit for a header.
    """
    if not request_id:
        return from_metadata
    _need(sane_request_id(request_id) == request_id, "request_id", "must be 1 to 128 of letters, digits and ._:-")
    return request_id


def check_report(request: inference_service_pb2.ReportFalseHitRequest) -> None:
    """Checks the report of a wrong answer; raises InvalidArgument."""
    _length(request.entry_id, 1, 256, "entry_id")
    _length(request.text, 0, COMPARED_CHARS_MAX, "text")
    _length(request.end_user_id, 0, 256, "end_user_id")


def check_spec(spec: generation_pb2.GenerationSpec, at: str = "spec") -> None:
    """Checks a whole spec; `at` is the path of the field that holds it.

    Raises:
        InvalidArgument: The first limit that is broken.
    """
    _length(spec.model, 1, 256, f"{at}.model")
    _check_input(spec, at)
    _count(spec.tools, 0, 128, f"{at}.tools")
    for index, tool in enumerate(spec.tools):
        _check_tool(tool, f"{at}.tools[{index}]")
    if spec.HasField("tool_choice"):
        _check_tool_choice(spec, at)
    if spec.HasField("sampling"):
        _check_sampling(spec.sampling, f"{at}.sampling")
    if spec.HasField("output_format"):
        _check_format(spec.output_format, f"{at}.output_format")
    if spec.HasField("cache"):
        _check_cache(spec, f"{at}.cache")
    if spec.HasField("routing"):
        _check_routing(spec.routing, f"{at}.routing")
    _known(spec.reasoning_effort, generation_pb2.ReasoningEffort, f"{at}.reasoning_effort")
    _length(spec.safety.profile, 0, 64, f"{at}.safety.profile")
    _length(spec.end_user_id, 0, 256, f"{at}.end_user_id")
    _length(spec.session_id, 0, 128, f"{at}.session_id")
    _length(spec.limit, 0, 64, f"{at}.limit")
    _need(len(spec.metadata) <= 16, f"{at}.metadata", "must have at most 16 entries")
    for key, value in spec.metadata.items():
        _need(
            1 <= len(key) <= 64 and len(value) <= 512,
            f"{at}.metadata",
            "keys have 1 to 64, values up to 512 characters",
        )


def check_texts(texts: Sequence[str], count_max: int, chars_min: int, field: str = "texts") -> None:
    """Checks a list of texts of up to 100,000 characters each."""
    _count(texts, 1, count_max, field)
    for index, text in enumerate(texts):
        _length(text, chars_min, 100_000, f"{field}[{index}]")


def _check_input(spec: generation_pb2.GenerationSpec, at: str) -> None:
    kind = spec.WhichOneof("input")
    if kind == "raw_prompt":
        _length(spec.raw_prompt, 1, PROMPT_CHARS_MAX, f"{at}.raw_prompt")
        return
    _need(kind is not None, f"{at}.input", "set conversation or raw_prompt")
    messages = spec.conversation.messages
    _count(messages, 1, TEXT_COUNT_MAX, f"{at}.conversation.messages")
    chars = sum(
        _check_message(message, f"{at}.conversation.messages[{index}]") for index, message in enumerate(messages)
    )
    text_count = sum(part.HasField("text") for message in messages for part in message.parts)
    _need(
        chars <= PROMPT_CHARS_MAX and text_count <= TEXT_COUNT_MAX,
        f"{at}.conversation.messages",
        f"text must be at most {TEXT_COUNT_MAX:,} parts and {PROMPT_CHARS_MAX:,} characters together",
    )


def _check_message(message: generation_pb2.Message, at: str) -> int:
    """Checks a message and returns the characters of its text."""
    role = message.role
    known = role in _numbers(generation_pb2.Role) and role != generation_pb2.ROLE_UNSPECIFIED
    _need(known, f"{at}.role", "must be system, developer, user, assistant or tool")
    is_assistant = role == generation_pb2.ROLE_ASSISTANT
    _need(is_assistant or not message.tool_calls, f"{at}.tool_calls", "only assistant messages may call tools")
    _need(is_assistant or not message.HasField("refusal"), f"{at}.refusal", "only assistant messages may refuse")
    if role == generation_pb2.ROLE_TOOL:
        _length(message.tool_call_id, 1, 256, f"{at}.tool_call_id")
    may_be_empty = message.tool_calls or message.HasField("refusal")
    _need(bool(message.parts) or bool(may_be_empty), f"{at}.parts", "must not be empty")
    _length(message.name, 0, 64, f"{at}.name")
    return sum(_check_part(part, f"{at}.parts[{index}]") for index, part in enumerate(message.parts))


def _check_part(part: generation_pb2.ContentPart, at: str) -> int:
    kind = part.WhichOneof("part")
    _need(kind is not None, at, "set text, image, audio or file")
    if kind == "text":
        return len(part.text)
    if kind == "image":
        image = part.image
        _need(image.WhichOneof("source") is not None, f"{at}.image.source", "set url or data")
        _need(len(image.data) <= MEDIA_BYTES_MAX, f"{at}.image.data", "must be at most 10 MiB")
        _need(image.detail in DETAILS, f"{at}.image.detail", "must be low, high or auto")
        if image.HasField("url"):
            _need(
                image.url.startswith(("https://", "http://", "data:")),
                f"{at}.image.url",
                "must be an https or data URL",
            )
    elif kind == "audio":
        _need(part.audio.format in AUDIO_FORMATS, f"{at}.audio.format", "must be wav or mp3")
        _need(len(part.audio.data) <= MEDIA_BYTES_MAX, f"{at}.audio.data", "must be at most 10 MiB")
    elif kind == "file":
        _need(part.file.WhichOneof("source") is not None, f"{at}.file.source", "set file_id or data")
        _need(len(part.file.data) <= MEDIA_BYTES_MAX, f"{at}.file.data", "must be at most 10 MiB")
    return 0


def _check_tool(tool: generation_pb2.Tool, at: str) -> None:
    _need(NAME.fullmatch(tool.name) is not None, f"{at}.name", WORD)
    if tool.parameters_json:
        _check_json_object(tool.parameters_json, f"{at}.parameters_json")


def _check_tool_choice(spec: generation_pb2.GenerationSpec, at: str) -> None:
    choice = spec.tool_choice
    _known(choice.mode, generation_pb2.ToolChoiceMode, f"{at}.tool_choice.mode")
    if choice.mode == generation_pb2.TOOL_CHOICE_MODE_NAMED:
        named = any(tool.name == choice.name for tool in spec.tools)
        _need(named, f"{at}.tool_choice.name", "must be the name of one of the tools")
    if choice.mode == generation_pb2.TOOL_CHOICE_MODE_REQUIRED:
        _need(bool(spec.tools), f"{at}.tool_choice", "needs tools")


def _check_sampling(params: generation_pb2.SamplingParams, at: str) -> None:
    for field, (low, high) in RANGES.items():
        if params.HasField(field):
            _range(getattr(params, field), low, high, f"{at}.{field}")
            _need(field not in ABOVE_ZERO or getattr(params, field) > 0, f"{at}.{field}", "must be above 0")
    _count(params.stop, 0, 4, f"{at}.stop")
    for index, stop in enumerate(params.stop):
        _length(stop, 1, 1_000, f"{at}.stop[{index}]")
    _count(params.stop_token_ids, 0, 64, f"{at}.stop_token_ids")
    _need(len(params.logit_bias) <= 1_024, f"{at}.logit_bias", "must have at most 1,024 entries")
    for token_id, bias in params.logit_bias.items():
        _range(bias, -100, 100, f"{at}.logit_bias[{token_id}]")
    _need(params.logprobs or not params.top_logprobs, f"{at}.top_logprobs", "needs logprobs")


def _check_format(output: generation_pb2.OutputFormat, at: str) -> None:
    kind = output.WhichOneof("format")
    if kind == "json_schema":
        schema = output.json_schema
        _need(
            NAME.fullmatch(schema.name) is not None,
            f"{at}.json_schema.name",
            WORD,
        )
        _check_json_object(schema.schema_json, f"{at}.json_schema.schema_json")
    elif kind == "choice":
        _count(output.choice.choices, 1, 256, f"{at}.choice.choices")
    elif kind == "regex":
        _length(output.regex, 1, 10_000, f"{at}.regex")


def _check_cache(spec: generation_pb2.GenerationSpec, at: str) -> None:
    policy = spec.cache
    _known(policy.mode, generation_pb2.CacheMode, f"{at}.mode")
    _known(policy.scope, generation_pb2.CacheScope, f"{at}.scope")
    if policy.HasField("ttl"):
        _range(seconds(policy.ttl), 1, 30 * 86_400, f"{at}.ttl")
    if policy.HasField("age_max"):
        _range(seconds(policy.age_max), 0, 365 * 86_400, f"{at}.age_max")
    if policy.HasField("similarity_threshold"):
        _range(policy.similarity_threshold, 0, 1, f"{at}.similarity_threshold")
    if policy.HasField("error_max"):
        _range(policy.error_max, 0, 1, f"{at}.error_max")
        _need(policy.error_max > 0, f"{at}.error_max", "must be above 0")
    _count(policy.tags, 0, 8, f"{at}.tags")
    for index, tag in enumerate(policy.tags):
        _length(tag, 1, 64, f"{at}.tags[{index}]")
    if policy.scope == generation_pb2.CACHE_SCOPE_USER:
        has_owner = bool(spec.end_user_id) or current().caller.principal != ANONYMOUS
        _need(
            has_owner,
            f"{at}.scope",
            "CACHE_SCOPE_USER needs a key, or end_user_id: an anonymous caller owns no entries",
        )


def _check_routing(routing: generation_pb2.RoutingPolicy, at: str) -> None:
    _count(routing.fallbacks, 0, 8, f"{at}.fallbacks")
    for index, name in enumerate(routing.fallbacks):
        _length(name, 1, 256, f"{at}.fallbacks[{index}]")
    _range(routing.priority, -100, 100, f"{at}.priority")
    if routing.HasField("ttft_max"):
        _range(seconds(routing.ttft_max), 0.001, 86_400, f"{at}.ttft_max")
    if routing.HasField("inter_token_latency_max"):
        _range(seconds(routing.inter_token_latency_max), 0.001, 86_400, f"{at}.inter_token_latency_max")


def _check_json_object(text: str, at: str) -> None:
    try:
        is_object = isinstance(json.loads(text, parse_constant=_no_number), dict)
    except (ValueError, RecursionError):
        is_object = False
    _need(is_object, at, "must be the JSON text of an object")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _known(value: int, enum: Any, field: str) -> None:
    """Refuses a number that a newer contract may know: it would be dropped."""
    if value not in _numbers(enum):
        raise InvalidArgument(field, f"must be one of {', '.join(enum.keys())}")


@cache
def _numbers(enum: Any) -> frozenset[int]:
    return frozenset(enum.values())


def _length(text: str, low: int, high: int, field: str) -> None:
    if not low <= len(text) <= high:
        raise InvalidArgument(field, f"must have {low:,} to {high:,} characters; it has {len(text):,}")


def _count(items: Collection[Any], low: int, high: int, field: str) -> None:
    if not low <= len(items) <= high:
        raise InvalidArgument(field, f"must have {low:,} to {high:,} items; it has {len(items):,}")


def _range(value: float, low: float, high: float, field: str) -> None:
    # NaN is in no range; 15 digits show every whole number as it is.
    if not low <= value <= high:
        raise InvalidArgument(field, f"must be from {low:.15g} to {high:.15g}; it is {value:.15g}")


def _need(condition: bool, field: str, message: str) -> None:
    if not condition:
        raise InvalidArgument(field, message)
