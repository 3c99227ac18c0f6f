"""What of a growing answer is held while safety judges it, and what may leave with each release.

Bookkeeping only: it decides nothing. Original text stays here until it was released, so that a policy that fails open
can still let it go, exactly once and in order.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from services.inference.events import AttemptEvent, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from services.inference.screening.safety_port import REFUSAL, Judged, OutputPiece, Released

TEXT_KINDS = ("text", "reasoning", "refusal")
ARGUMENTS, NAME = "tool_arguments", "tool_name"


class _Part(msgspec.Struct):
    """One run of text: `unreleased` begins at code point `released_through` of the original."""

    unreleased: str = ""
    released_through: int = 0

    @property
    def end(self) -> int:
        return self.released_through + len(self.unreleased)

    def release(self, through: int) -> str:
        count = max(0, through - self.released_through)
        text, self.unreleased = self.unreleased[:count], self.unreleased[count:]
        self.released_through += len(text)
        return text


class _Logprobs(msgspec.Struct):
    """Log probabilities of the text between two code points; they leave when all of it has left unchanged."""

    start: int
    end: int
    tokens: tuple[TokenLogprob, ...]


class _Choice(msgspec.Struct):
    parts: dict[tuple[str, int], _Part] = msgspec.field(default_factory=dict)
    calls: dict[int, ToolCallDelta] = msgspec.field(default_factory=dict)
    logprobs: list[_Logprobs] = msgspec.field(default_factory=list)
    redacted: list[tuple[int, int]] = msgspec.field(default_factory=list)
    token_count: int | None = None
    finished: ChoiceFinished | None = None
    is_over: bool = False

    def part(self, kind: str, index: int = 0) -> _Part:
        return self.parts.setdefault((kind, index), _Part())

    def name_call(self, call: ToolCallDelta) -> None:
        """Keeps a call's id and name until its arguments leave; some upstreams repeat them with each fragment."""
        is_new = (ARGUMENTS, call.index) not in self.parts
        if is_new or call.index in self.calls:
            known = self.calls.get(call.index, ToolCallDelta(call.index))
            self.calls[call.index] = ToolCallDelta(call.index, known.id or call.id, known.name or call.name)
        self.part(ARGUMENTS, call.index)

    def is_news(self, piece: OutputPiece) -> bool:
        """Whether safety has not been told of it: a name that comes again says nothing."""
        return piece.kind != NAME or (NAME, piece.tool_call_index) not in self.parts


class Held:
    """The held text of every choice of one answer; `tools` are the names that calls may have unjudged."""

    def __init__(self, choice_count: int, tools: Collection[str] = ()) -> None:
        self._tools = tools
        self._choices = [_Choice() for _ in range(choice_count)]
        self._completed: EngineCompleted | None = None
        self._is_told = False
        self._piece_count = 0
        self._blocked: set[int] = set()

    @property
    def is_all_blocked(self) -> bool:
        """Whether nothing more can leave."""
        return len(self._blocked) == len(self._choices)

    @property
    def is_over(self) -> bool:
        """Whether the engine has ended its answer, and safety every choice."""
        return self._completed is not None and all(choice.is_over for choice in self._choices)

    @property
    def text_code_point_count_max(self) -> int:
        """Most code points of one text that wait; arguments of a tool call, which wait for its end, are left out."""
        waiting = (
            len(part.unreleased)
            for choice in self._choices
            if not choice.is_over
            for (kind, _), part in choice.parts.items()
            if kind != ARGUMENTS
        )
        return max(waiting, default=0)

    def take(self, batch: Sequence[EngineEvent | AttemptEvent]) -> list[OutputPiece]:
        """Takes what the engine made and returns what safety must see."""
        pieces: list[OutputPiece] = []
        for event in batch:
            if isinstance(event, Delta):
                pieces += self._take_delta(event)
            elif isinstance(event, ChoiceFinished):
                self._choices[event.choice_index].finished = event
                pieces.append(OutputPiece(event.choice_index, "text", end_of_choice=True))
            elif isinstance(event, EngineCompleted):
                self._completed = event
        return [piece for piece in pieces if piece.choice_index not in self._blocked]

    def _take_delta(self, delta: Delta) -> list[OutputPiece]:
        choice = self._choices[delta.choice_index]
        choice.token_count = delta.completion_token_count
        self._piece_count += 1
        start = choice.part("text").end
        for call in delta.tool_calls:
            choice.name_call(call)
        pieces = [piece for piece in pieces_of(delta, self._tools) if choice.is_news(piece)]
        for piece in pieces:
            choice.part(piece.kind, piece.tool_call_index).unreleased += piece.text
        if delta.logprobs:
            end = choice.part("text").end if delta.text else start + 1  # a part of the character that comes next
            choice.logprobs.append(_Logprobs(start, end, delta.logprobs))
        return pieces

    def judged(self, said: Judged) -> None:
        """Remembers which text was replaced: log probabilities would tell it."""
        if said.verdict is Verdict.REDACT and said.kind == "text":
            self._choices[said.choice_index].redacted.append((said.finding.start, said.finding.end))

    def rename(self, said: Released) -> None:
        """Takes the name of a tool call that safety released; it leaves with the arguments."""
        calls = self._choices[said.choice_index].calls
        calls[said.tool_call_index] = msgspec.structs.replace(calls[said.tool_call_index], name=said.text)

    def release(self, said: Released) -> Delta:
        """The delta for text that safety released."""
        choice = self._choices[said.choice_index]
        choice.part(said.kind, said.tool_call_index).release(said.released_through)
        return self._delta(choice, said.choice_index, said.kind, said.tool_call_index, said.text)

    def _delta(self, choice: _Choice, index: int, kind: str, call_index: int, text: str) -> Delta:
        delta = Delta(index, completion_token_count=choice.token_count)
        if kind == ARGUMENTS:
            head = choice.calls.pop(call_index, ToolCallDelta(call_index))
            delta.tool_calls = (ToolCallDelta(call_index, head.id, head.name, text),)
        else:
            setattr(delta, kind, text)
        if kind == "text" and choice.logprobs:
            delta.logprobs = self._free_logprobs(choice, choice.part("text").released_through)
        return delta

    def _free_logprobs(self, choice: _Choice, through: int) -> tuple[TokenLogprob, ...]:
        free = [one for one in choice.logprobs if one.end <= through]
        choice.logprobs = choice.logprobs[len(free) :]
        return tuple(
            token
            for one in free
            if not any(start < one.end and one.start < end for start, end in choice.redacted)
            for token in one.tokens
        )

    def end(self, index: int, verdict: Verdict) -> list[EngineEvent]:
        """What ends a choice: the engine's own end, or a refusal where the choice was blocked."""
        choice = self._choices[index]
        if choice.is_over:
            return []
        choice.is_over = True
        if verdict is Verdict.BLOCK:
            self._blocked.add(index)
            return [Delta(index, refusal=REFUSAL), ChoiceFinished(index, FinishReason.CONTENT_FILTER)]
        bare = [self._delta(choice, index, ARGUMENTS, call, "") for call in sorted(choice.calls)]
        # Of a character that was never finished.
        if rest := self._free_logprobs(choice, choice.part("text").released_through + 1):
            bare.append(Delta(index, logprobs=rest, completion_token_count=choice.token_count))
        return [*bare, *([choice.finished] if choice.finished else [])]

    def flush(self) -> list[EngineEvent]:
        """Everything that is still held, unscreened, in order; what left once never leaves again."""
        events: list[EngineEvent] = []
        for index, choice in enumerate(self._choices):
            if choice.is_over:
                continue
            for (kind, call_index), part in choice.parts.items():
                text = part.release(part.end)
                if kind == NAME:
                    continue  # it is with its call
                if text or (kind == ARGUMENTS and call_index in choice.calls):
                    events.append(self._delta(choice, index, kind, call_index, text))
            if choice.finished:
                events += self.end(index, Verdict.ALLOW)
        if self._completed and not self._is_told:
            events.append(self.completed())
        return events

    def completed(self) -> EngineCompleted:
        """The engine's last event, or a counted one where the answer was stopped before it."""
        self._is_told = True
        counted = Usage(0, self._piece_count, estimated=True)
        return self._completed or EngineCompleted(counted)


def pieces_of(delta: Delta, tools: Collection[str]) -> list[OutputPiece]:
    """The texts of a delta that safety must see; of calls of declared tools, the names were judged with the prompt."""
    pieces = [OutputPiece(delta.choice_index, kind, text) for kind in TEXT_KINDS if (text := getattr(delta, kind))]
    for call in delta.tool_calls:
        if call.name and call.name not in tools:
            pieces.append(OutputPiece(delta.choice_index, NAME, call.name, call.index, end_of_part=True))
        if call.arguments_json:
            pieces.append(OutputPiece(delta.choice_index, ARGUMENTS, call.arguments_json, call.index))
    return pieces
