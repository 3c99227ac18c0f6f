"""The body and the answers of POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from services.edge.openai import fields
from services.edge.openai.chat_answer import Usage
from services.edge.openai.receipt import Receipt

REFUSED = {"suffix": "no target fills in the middle."}
HINTS = {"prompt": "Give text: token ids are not taken."}
# OpenAI's default for this endpoint, in its published schema.
MAX_TOKENS_DEFAULT = 16


class CompletionRequest(Struct, forbid_unknown_fields=True):
    """Asks for text that goes on from raw prompts. Prompts are text; token ids are not taken."""

    model: fields.ModelName
    prompt: str | Annotated[list[str], Meta(min_length=1, max_length=100)]
    best_of: int | None = None
    echo: bool | None = None
    frequency_penalty: fields.Penalty | None = None
    logit_bias: fields.LogitBias | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    max_tokens: fields.TokenCount | None = MAX_TOKENS_DEFAULT
    min_p: fields.Probability | None = None
    n: fields.ChoiceCount | None = None
    presence_penalty: fields.Penalty | None = None
    repetition_penalty: fields.RepetitionPenalty | None = None
    seed: fields.Seed | None = None
    stop: fields.Stop | None = None
    stream: bool | None = None
    stream_options: fields.StreamOptions | None = None
    temperature: fields.Temperature | None = None
    top_k: fields.TopK | None = None
    top_p: fields.TopP | None = None
    user: fields.EndUser | None = None


FinishReason = Literal["stop", "length", "content_filter"]


class CompletionLogprobs(Struct):
    """Log probabilities of a choice's tokens; `text_offset` counts code points of its text."""

    text_offset: list[int]
    token_logprobs: list[float]
    tokens: list[str]
    top_logprobs: list[dict[str, float]]


class CompletionChoice(Struct):
    """One answer to one prompt; choices of prompt i have the indexes from i * n on."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(Struct):
    """A complete answer; `millrace` is its receipt, where it is one to a single prompt."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str | UnsetType = UNSET
    millrace: Receipt | UnsetType = UNSET


class CompletionChunkChoice(Struct):
    """A step of one answer; choices of prompt i have the indexes from i * n on."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: FinishReason | None = None


class CompletionChunk(Struct):
    """One event of streamed answers."""

    id: str
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    object: Literal["text_completion"] = "text_completion"
    usage: Usage | UnsetType | None = UNSET
    millrace: Receipt | UnsetType = UNSET
