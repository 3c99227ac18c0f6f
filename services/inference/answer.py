"""The answer as a whole: choices put together from the deltas in which they came."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from services.inference.events import Event
from services.inference.generation import ChoiceFinished, Delta, EngineEvent, FinishReason, TokenLogprob, ToolCallDelta


class WholeChoice(msgspec.Struct):
    """One choice, complete; `tool_calls` by index, each in one piece."""

    index: int
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: dict[int, ToolCallDelta] = {}
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stop_sequence: str = ""

    def take(self, delta: Delta) -> None:
        """Grows by a delta."""
        self.text += delta.text
        self.reasoning += delta.reasoning
        self.refusal += delta.refusal
        self.logprobs += delta.logprobs
        for piece in delta.tool_calls:
            before = self.tool_calls.get(piece.index, ToolCallDelta(piece.index))
            self.tool_calls[piece.index] = ToolCallDelta(
                piece.index,
                before.id or piece.id,
                before.name or piece.name,
                before.arguments_json + piece.arguments_json,
            )

    def replace(self, kind: str, call_index: int, text: str) -> None:
        """Puts other text in the place of one part; log probabilities would tell the old one."""
        if kind == "tool_arguments":
            call = self.tool_calls[call_index]
            self.tool_calls[call_index] = ToolCallDelta(call_index, call.id, call.name, text)
        elif kind == "tool_name":
            self.tool_calls[call_index] = msgspec.structs.replace(self.tool_calls[call_index], name=text)
        else:
            setattr(self, kind, text)
            self.logprobs = ()

    def delta(self) -> Delta:
        """The choice as one delta."""
        calls = tuple(self.tool_calls[index] for index in sorted(self.tool_calls))
        return Delta(self.index, self.text, self.reasoning, self.refusal, calls, self.logprobs)

    def events(self) -> list[EngineEvent]:
        """The choice as one delta and its end."""
        finished = [ChoiceFinished(self.index, self.finish_reason, self.stop_sequence)] if self.finish_reason else []
        return [self.delta(), *finished]


def put_together(events: Iterable[Event | EngineEvent]) -> list[WholeChoice]:
    """Puts the choices of an answer together, by index; events that are no part of a choice are passed over."""
    choices: dict[int, WholeChoice] = {}
    for event in events:
        if isinstance(event, Delta):
            choice = choices.get(event.choice_index) or choices.setdefault(
                event.choice_index, WholeChoice(event.choice_index)
            )
            choice.take(event)
        elif isinstance(event, ChoiceFinished):
            choice = choices.setdefault(event.choice_index, WholeChoice(event.choice_index))
            choice.finish_reason, choice.stop_sequence = event.finish_reason, event.stop_sequence
    return [choices[index] for index in sorted(choices)]
