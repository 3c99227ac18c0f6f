"""The answers of POST /v1/chat/completions, as OpenAI's schema has them, and beside it `millrace`: the receipt."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from services.edge.openai.moderated import ChatModeration
from services.edge.openai.receipt import Receipt

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptTokensDetails(Struct):
    """Of the prompt's tokens, those that the engine did not compute again."""

    cached_tokens: int


class CompletionTokensDetails(Struct):
    """Of the completion's tokens, those that were reasoning."""

    reasoning_tokens: int


class Usage(Struct):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class TopLogprob(Struct):
    """An alternative token; `bytes` are its UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(Struct):
    """A token with its natural log probability."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[TopLogprob]


class Logprobs(Struct):
    """Log probabilities of a choice's tokens."""

    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class AnsweredFunction(Struct):
    """What the model calls; the arguments are JSON text as the model wrote them."""

    name: str
    arguments: str


class AnsweredToolCall(Struct):
    """A call that the model asks for."""

    id: str
    function: AnsweredFunction
    type: Literal["function"] = "function"


class AnswerMessage(Struct):
    """The model's message."""

    content: str | None
    refusal: str | None
    role: Literal["assistant"] = "assistant"
    tool_calls: list[AnsweredToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class ChatChoice(Struct):
    """One answer."""

    index: int
    message: AnswerMessage
    logprobs: Logprobs | None
    finish_reason: FinishReason


class ChatCompletion(Struct):
    """A complete chat answer."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | UnsetType = UNSET
    moderation: ChatModeration | UnsetType = UNSET
    millrace: Receipt | UnsetType = UNSET


class FunctionFragment(Struct):
    """A fragment of a called function."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallFragment(Struct):
    """A fragment of a tool call."""

    index: int
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET
    function: FunctionFragment | UnsetType = UNSET


class ChatDelta(Struct):
    """What grew."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    refusal: str | UnsetType | None = UNSET
    tool_calls: list[ToolCallFragment] | UnsetType = UNSET


class ChunkChoice(Struct):
    """A step of one answer."""

    index: int
    delta: ChatDelta
    logprobs: Logprobs | None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Struct):
    """One event of a streamed chat answer."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    usage: Usage | UnsetType | None = UNSET
    millrace: Receipt | UnsetType = UNSET
