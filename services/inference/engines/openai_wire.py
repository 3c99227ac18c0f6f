"""What an OpenAI-compatible upstream sends, decoded from raw bytes into events.

Only the fields that matter are decoded, with msgspec, because on this path every token counts: the openai SDK's own
chunk models cost a hundred times as much. Nothing malformed is ever skipped: it is an error.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from kit.errors import MillraceError, Unavailable
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

EVENT_BYTES_MAX = 8 * 1024 * 1024  # far above any event of a sane upstream: an image of 6 MB in base64 still fits

FINISH_REASONS = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


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

    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
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
    index: Count = 0


class WireEmbeddings(msgspec.Struct):
    """The answer of POST /embeddings."""

    data: list[WireEmbedding]
    usage: WireUsage | None = None


_decode_answer = msgspec.json.Decoder(WireAnswer).decode


class EventSplitter:
    """Splits a byte stream of server-sent events into the payloads of their `data` lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Takes what has arrived and returns the payloads that are complete.

        Raises:
            Unavailable: An event is larger than EVENT_BYTES_MAX.
        """
        if self._after_cr and data.startswith(b"\n"):  # the second half of a line end that was cut in two
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, self._rest = (self._rest + data).split(b"\n\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise broken("an event is too large")
        return [payload for event in events if (payload := _payload(event)) is not None]


def _payload(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def decode(payload: bytes) -> WireAnswer:
    """Decodes a chunk or a whole answer.

    Raises:
        Unavailable: It is no JSON of the expected shape, or an error that was sent in-band.
    """
    try:
        answer = _decode_answer(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise broken("malformed JSON") from error
    if bytes(answer.error) not in (b"", b"null"):
        raise Unavailable("UPSTREAM_ERROR", "the upstream reported an error within its answer; retry")
    return answer


def broken(what: str) -> MillraceError:
    """An upstream that does not keep to the protocol."""
    return Unavailable("UPSTREAM_MALFORMED", f"the upstream's answer is malformed ({what}); retry")


class Assembler:
    """Turns decoded chunks into events and knows whether the answer was complete."""

    def __init__(self, choice_count: int, prompt_chars: int) -> None:
        self._unfinished = set(range(choice_count))
        self._prompt_chars = prompt_chars
        self._piece_count = self._char_count = 0
        self._usage: WireUsage | None = None
        self._model = ""
        self._fingerprint = ""

    def take(self, answer: WireAnswer, events: list[EngineEvent]) -> None:
        """Appends a chunk's events; text of one choice joins the delta before it."""
        if answer.model:
            self._model = answer.model
        if answer.system_fingerprint:
            self._fingerprint = answer.system_fingerprint
        if answer.usage is not None:
            self._usage = answer.usage
        for choice in answer.choices or ():
            if choice.index not in self._unfinished:
                if choice.finish_reason is None and _is_blank(choice):
                    continue
                raise broken("a choice went on after its end")
            delta = _delta(choice)
            if delta is not None:
                self._piece_count += 1
                self._char_count += len(delta.text)
                _append(events, delta)
            if choice.finish_reason is not None:
                events.append(ChoiceFinished(choice.index, _finish_reason(choice.finish_reason)))
                self._unfinished.discard(choice.index)

    def complete(self) -> EngineCompleted:
        """The last event.

        Raises:
            Unavailable: A choice has no end: the answer was cut.
        """
        if self._unfinished:
            raise Unavailable("UPSTREAM_TRUNCATED", "the upstream ended its answer too early; retry")
        return EngineCompleted(self._final_usage(), self._model, self._fingerprint)

    def _final_usage(self) -> Usage:
        wire = self._usage
        if wire is None:  # four characters a token is the rule of thumb that OpenAI gives for English
            completion_count = max(self._piece_count, self._char_count // 4)  # a piece is a token, or more
            return Usage(max(1, self._prompt_chars // 4), completion_count, estimated=True)
        prompt, completion = wire.prompt_tokens_details, wire.completion_tokens_details
        return Usage(
            wire.prompt_tokens,
            wire.completion_tokens or 0,
            (prompt.cached_tokens or 0) if prompt else 0,
            (completion.reasoning_tokens or 0) if completion else 0,
        )


def _finish_reason(word: str) -> FinishReason:
    try:
        return FINISH_REASONS[word]
    except KeyError:
        raise broken(f"unknown finish reason {word[:32]!r}") from None


def _is_blank(choice: WireChoice) -> bool:
    return _delta(choice) is None


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
