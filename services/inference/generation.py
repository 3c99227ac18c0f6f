"""The nouns of a generation: what is asked, what is produced, what it used.

Plain data that every engine, the pipeline and the servicer share. It never imports grpc, a generated stub or an
engine, so that an engine can be read, tested and replaced without the wire. Absent (None) always means "the target's
default".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum

import msgspec


class Role(StrEnum):
    """Who speaks in a message; the values are OpenAI's words."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class FinishReason(IntEnum):
    """Why a choice ended; the numbers are the contract's."""

    STOP = 1
    LENGTH = 2
    TOOL_CALLS = 3
    CONTENT_FILTER = 4
    DEADLINE = 5


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """Plain text."""

    text: str


class ImagePart(msgspec.Struct, frozen=True, tag="image"):
    """A picture by https or data URL."""

    url: str
    detail: str | None = None


class AudioPart(msgspec.Struct, frozen=True, tag="audio"):
    """A recording; `data` is the encoded sound."""

    data: bytes
    format: str


class FilePart(msgspec.Struct, frozen=True, tag="file"):
    """A document, by the upstream's id or by value."""

    filename: str
    file_id: str | None = None
    data: bytes | None = None


ContentPart = TextPart | ImagePart | AudioPart | FilePart


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model asked for; the arguments stay JSON text."""

    id: str
    name: str
    arguments_json: str


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Role
    parts: tuple[ContentPart, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    refusal: str | None = None

    @property
    def text(self) -> str:
        """All text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class Tool(msgspec.Struct, frozen=True):
    """A function that the model may call."""

    name: str
    description: str = ""
    parameters_json: str = ""
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """`mode` is auto, none, required or named; `name` stands for named only."""

    mode: str
    name: str | None = None


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are drawn and where generation stops; ranges were checked at the door."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    n: int = 1
    logit_bias: Mapping[int, float] = {}
    logprobs: bool = False
    top_logprobs: int = 0


class OutputFormat(msgspec.Struct, frozen=True):
    """`kind` is text, json_object, json_schema, regex or choice; the other fields belong to one kind each."""

    kind: str
    name: str = ""
    description: str = ""
    schema_json: str = ""
    strict: bool | None = None
    regex: str = ""
    choices: tuple[str, ...] = ()


class Prompt(msgspec.Struct, frozen=True):
    """What an engine is asked to continue: a conversation or raw text, with all that shapes the answer.

    `model` is the name at the target (a directory, a hub name, an upstream's model), not the public one. `streamed`
    tells whether the caller reads the answer as it grows; where not, an engine may fetch it whole. `tenant` and
    `priority` (higher first) are for engines with a queue of their own; they are given with the attempt, not before.
    """

    model: str = ""
    streamed: bool = True
    messages: tuple[Message, ...] = ()
    raw_prompt: str | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    sampling: Sampling = Sampling()
    output_format: OutputFormat | None = None
    reasoning_effort: str | None = None
    end_user_id: str | None = None
    metadata: Mapping[str, str] = {}
    tenant: str = ""
    priority: int = 0


class TopLogprob(msgspec.Struct, frozen=True):
    """An alternative token."""

    token: str
    logprob: float
    token_bytes: bytes


class TokenLogprob(msgspec.Struct, frozen=True):
    """A generated token with its natural log probability."""

    token: str
    logprob: float
    token_bytes: bytes
    top: tuple[TopLogprob, ...] = ()


class ToolCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fragment of a tool call; id and name come with its first fragment."""

    index: int
    id: str = ""
    name: str = ""
    arguments_json: str = ""


class Delta(msgspec.Struct, tag_field="is", tag="delta", omit_defaults=True):
    """A piece of one choice; several tokens may share one."""

    choice_index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    completion_token_count: int | None = None


class ChoiceFinished(msgspec.Struct, tag_field="is", tag="finished", omit_defaults=True):
    """A choice has ended; no delta of it follows."""

    choice_index: int
    finish_reason: FinishReason
    stop_sequence: str = ""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of a request; `estimated` where they were counted here and not by the engine."""

    prompt_token_count: int = 0
    completion_token_count: int = 0
    cached_prompt_token_count: int = 0
    reasoning_token_count: int = 0
    estimated: bool = False


class EngineCompleted(msgspec.Struct):
    """An engine's last event: every choice has finished. A stream without it is a failed one."""

    usage: Usage
    target_model: str = ""
    system_fingerprint: str = ""


EngineEvent = Delta | ChoiceFinished | EngineCompleted
