"""What an OpenAI-compatible upstream sends, decoded from raw bytes into events.

Only the fields that matter are decoded, with msgspec, because on this path every token counts: the openai SDK's own
chunk models cost a hundred times as much. Nothing malformed is ever skipped: it is an error.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from services.inference.engines.openai_errors import from_answer, malformed, too_few_choices, truncated
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)

PIECE_CHARS_MAX = 16  # of one token, on average: beyond it an upstream sends several at a time

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}
NULL = "null"  # KoboldCpp writes it as a word; older Ollama and SGLang write an empty one
GAVE_UP = {"abort", "error", "insufficient_system_resource"}  # vLLM and SGLang; OpenRouter; DeepSeek

# What does not fit the contract's int32 is no count and no index: the upstream is broken.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class WireTop(msgspec.Struct):
    """An alternative token."""

    token: str
    logprob: float
    bytes: list[Byte] | None = None


class WireToken(WireTop):
    """A generated token."""

    top_logprobs: list[WireTop] = []


class WireLogprobs(msgspec.Struct):
    """Log probabilities: chat's `content`, or the parallel lists of completions."""

    content: list[WireToken] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class WireFunction(msgspec.Struct):
    """A tool's name and arguments, whole or in part."""

    name: str | None = None
    arguments: str | None = None


class WireToolCall(msgspec.Struct):
    """A tool call, whole or in part."""

    index: Count | None = None
    id: str | None = None
    function: WireFunction = msgspec.field(default_factory=WireFunction)


class WireMessage(msgspec.Struct):
    """A message or its delta."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[WireToolCall] | None = None


class WireChoice(msgspec.Struct):
    """A choice of a chunk, of a whole answer, or of a completion."""

    index: Count = 0
    delta: WireMessage | None = None
    message: WireMessage | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: Count | None = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: Count | None = 0


class WireUsage(msgspec.Struct):
    """Token counts."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


class WireAnswer(msgspec.Struct):
    """A chunk or a whole answer."""

    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    error: msgspec.Raw = msgspec.Raw()


class WireEmbedding(msgspec.Struct):
    """One vector."""

    embedding: list[float]
    index: Count | None = None


class WireEmbeddings(msgspec.Struct):
    """The answer of POST /embeddings."""

    data: list[WireEmbedding]
    usage: WireUsage | None = None


_decode_answer = msgspec.json.Decoder(WireAnswer).decode


def decode(payload: bytes, label: str) -> WireAnswer:
    """Decodes a chunk or a whole answer of the upstream of this label.

    Raises:
        MillraceError: It is no JSON of the expected shape (UPSTREAM_MALFORMED), or an error that was sent in-band.
    """
    try:
        answer = _decode_answer(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise from_answer(payload, label) or malformed("malformed JSON") from error
    is_error = bytes(answer.error) not in (b"", b"null") or (answer.choices is None and answer.usage is None)
    if is_error and (failure := from_answer(payload, label)):
        raise failure
    return answer


class Assembler:
    """Turns decoded chunks into events and knows whether the answer was complete."""

    def __init__(self, choice_count: int, prompt_chars: int, label: str) -> None:
        self._choice_count = choice_count
        self._begun: set[int] = set()
        self._finished: dict[int, str] = {}  # the word of each choice that has ended
        self._prompt_chars = prompt_chars
        self._label = label
        self._piece_count = self._char_count = self._token_count = 0
        self._named: dict[tuple[int, int], bool] = {}  # each tool call, and whether its name has come
        self._usage: WireUsage | None = None
        self._model = ""
        self._fingerprint = ""

    def take(self, answer: WireAnswer, events: list[EngineEvent]) -> None:
        """Appends a chunk's events; text of one choice joins the delta before it.

        Raises:
            Unavailable: The chunk cannot belong to the answer (UPSTREAM_MALFORMED), or the upstream gave up
                (UPSTREAM_TRUNCATED).
        """
        if answer.model:
            self._model = answer.model
        if answer.system_fingerprint:
            self._fingerprint = answer.system_fingerprint
        if answer.usage is not None:
            self._usage = answer.usage
        for choice in answer.choices or ():
            delta = _delta(choice)
            if choice.index in self._finished or choice.index >= self._choice_count:
                self._check_late(choice, delta)
                continue
            self._begun.add(choice.index)
            if delta is not None:
                for call in delta.tool_calls:
                    self._named[choice.index, call.index] = self._named.get((choice.index, call.index)) or bool(
                        call.name
                    )
                self._piece_count += 1
                self._token_count += len(delta.logprobs) or 1
                self._char_count += len(delta.text) + len(delta.reasoning) + len(delta.refusal)
                _append(events, delta)
            word = choice.finish_reason
            if word and word != NULL:
                events.append(ChoiceFinished(choice.index, self._finish(choice.index, word)))

    def complete(self) -> EngineCompleted:
        """The last event.

        Raises:
            Unavailable: A choice has no end: the answer was cut.
            InvalidArgument: The upstream says that this was all, and it is fewer choices than were asked for.
        """
        if len(self._finished) < self._choice_count:
            is_all = self._usage is not None and self._finished and self._begun == self._finished.keys()
            raise too_few_choices(self._label) if is_all else truncated(self._label)
        if not all(self._named.values()):
            raise malformed("a tool call without a name")
        return EngineCompleted(self._final_usage(), self._model, self._fingerprint)

    def usage_so_far(self) -> Usage:
        """What an answer that is not complete has used: as the upstream has said, else a token for each piece."""
        if self._usage is not None and self._usage.completion_tokens is not None:
            return self._final_usage()
        is_coarse = self._char_count > PIECE_CHARS_MAX * self._token_count
        arrived_count = self._char_count // 4 if is_coarse else self._token_count
        return Usage(max(1, self._prompt_chars // 4), arrived_count, estimated=True)

    def _finish(self, index: int, word: str) -> FinishReason:
        if word in GAVE_UP:
            raise truncated(self._label)
        reason = FINISH_REASONS.get(word)
        if reason is None:
            raise malformed(f"unknown finish reason {word[:32]!r}")
        self._finished[index] = word
        return reason

    def _check_late(self, choice: WireChoice, delta: Delta | None) -> None:
        """Lets pass what changes nothing: a chunk without content, and an end that is told twice alike."""
        if choice.index >= self._choice_count:
            raise malformed("a choice that was not asked for")
        if delta is not None:
            raise malformed("a choice went on after its end")
        word = choice.finish_reason
        if word and word not in (NULL, self._finished[choice.index]):
            raise malformed("a choice ended twice, for different reasons")

    def _final_usage(self) -> Usage:
        """What the upstream counted; where it did not, an estimate that says so."""
        wire = self._usage or WireUsage()
        prompt_count, completion_count = wire.prompt_tokens, wire.completion_tokens
        estimated = prompt_count is None or completion_count is None
        if prompt_count is None:  # four characters a token is the rule of thumb that OpenAI gives for English
            prompt_count = max(1, self._prompt_chars // 4)
        if completion_count is None:  # a piece is a token, or more
            completion_count = max(self._piece_count, self._char_count // 4)
        prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
        cached_count = (prompt.cached_tokens or 0) if prompt else 0
        reasoning_count = (completion.reasoning_tokens or 0) if completion else 0
        return Usage(
            prompt_count,
            completion_count,
            min(cached_count, prompt_count),  # a part is never more than the whole: prices are reckoned from both
            min(reasoning_count, completion_count),
            estimated,
        )


def _delta(choice: WireChoice) -> Delta | None:
    message = choice.delta or choice.message
    logprobs = _logprobs(choice.logprobs) if choice.logprobs is not None else ()
    if message is None:
        return Delta(choice.index, choice.text or "", logprobs=logprobs) if choice.text or logprobs else None
    text, reasoning = message.content or "", message.reasoning_content or message.reasoning or ""
    calls = _tool_calls(message.tool_calls) if message.tool_calls else ()
    if not (text or reasoning or calls or message.refusal or logprobs):
        return None
    return Delta(choice.index, text, reasoning, message.refusal or "", calls, logprobs)


def _append(events: list[EngineEvent], delta: Delta) -> None:
    """Joins a delta with the one before where both only grow the same choice's text."""
    before = events[-1] if events else None
    if (
        isinstance(before, Delta)
        and before.choice_index == delta.choice_index
        and not (delta.tool_calls or delta.reasoning or delta.refusal)
        and not (before.tool_calls or before.reasoning or before.refusal)
    ):
        before.text += delta.text
        before.logprobs += delta.logprobs
    else:
        events.append(delta)


def _tool_calls(calls: list[WireToolCall]) -> tuple[ToolCallDelta, ...]:
    return tuple(
        ToolCallDelta(
            position if call.index is None else call.index,
            call.id or "",
            call.function.name or "",
            call.function.arguments or "",
        )
        for position, call in enumerate(calls)
        if call.id or call.function.name or call.function.arguments  # an empty one is no token
    )


def _logprobs(wire: WireLogprobs) -> tuple[TokenLogprob, ...]:
    if wire.content:
        return tuple(
            TokenLogprob(
                one.token, one.logprob, _bytes(one), tuple(_top(alternative) for alternative in one.top_logprobs)
            )
            for one in wire.content
        )
    if not wire.tokens:
        return ()
    tops = wire.top_logprobs or [None] * len(wire.tokens)
    values = wire.token_logprobs or [None] * len(wire.tokens)
    return tuple(
        TokenLogprob(
            token,
            value or 0.0,
            token.encode(),
            tuple(TopLogprob(text, logprob, text.encode()) for text, logprob in (top or {}).items()),
        )
        for token, value, top in zip(wire.tokens, values, tops, strict=False)
    )


def _top(wire: WireTop) -> TopLogprob:
    return TopLogprob(wire.token, wire.logprob, _bytes(wire))


def _bytes(wire: WireTop) -> bytes:
    return bytes(wire.bytes) if wire.bytes is not None else wire.token.encode()
