"""Resuming: going on with an answer that its maker has left half-done, by one that another maker begins anew.

A caller who has seen the beginning of an answer gets the rest of another one only if that begins with exactly the same:
then it is as if it had been one. Otherwise the call fails; two answers are never mixed. It never waits and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from kit.errors import Unavailable
from services.inference.answer import WholeChoice, put_together
from services.inference.caching.recording import Ending
from services.inference.events import Completed, SafetyEvent
from services.inference.generation import ChoiceFinished, Delta, ToolCallDelta
from services.inference.screening.held import TEXT_KINDS

T = TypeVar("T")


class Seen:
    """What a caller has seen of an answer, and what of the next one is new to it."""

    def __init__(self) -> None:
        self._events: list[object] = []
        self._choices: dict[int, _Again] = {}
        self._has_begun = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing of an answer was seen."""
        return not self._has_begun

    def restart(self) -> None:
        """What comes from now on is of another answer, from its beginning."""
        self._choices = {choice.index: _Again(choice) for choice in put_together(self._events)}  # type: ignore[arg-type]

    def take(self, events: Sequence[T]) -> list[T]:
        """Returns what of these events is new to the caller, and counts it as seen.

        Raises:
            Unavailable: The other answer is not the one that the caller has seen the beginning of (ANSWER_CHANGED).
        """
        fresh = list(events) if not self._choices else [new for event in events for new in self._fresh(event)]
        self._events += fresh
        self._has_begun = self._has_begun or any(isinstance(event, Delta | ChoiceFinished) for event in fresh)
        return fresh

    def _fresh(self, event: T) -> Iterable[T]:
        if isinstance(event, SafetyEvent):
            return [] if event in self._events else [event]
        if isinstance(event, Delta | ChoiceFinished):
            again = self._choices.get(event.choice_index)
            if again is None:
                return [event]
            return again.delta(event) if isinstance(event, Delta) else again.finished(event)  # type: ignore[return-value]
        if isinstance(event, Ending | Completed) and not all(again.is_through for again in self._choices.values()):
            raise _changed()
        return [event]


class _Again:
    """One choice that is told again: `left` is what of it was seen and has not come again."""

    def __init__(self, seen: WholeChoice) -> None:
        self._left = seen
        self._held: list[Delta] = []  # new to the caller, until all that was seen has come again

    @property
    def is_through(self) -> bool:
        """Whether all that was seen has come again."""
        left = self._left
        return not (any(getattr(left, kind) for kind in TEXT_KINDS) or left.tool_calls or left.logprobs)

    def delta(self, delta: Delta) -> list[Delta]:
        if self.is_through and self._left.finish_reason is None:
            return [delta]
        rest = self._rest_of(delta)
        if _says_something(rest):
            self._held.append(rest)
        return self._freed()

    def finished(self, finished: ChoiceFinished) -> list[ChoiceFinished]:
        if not self.is_through:
            raise _changed()
        if self._left.finish_reason is None:
            return [finished]
        if self._left.finish_reason is not finished.finish_reason:
            raise _changed()
        self._left.finish_reason = None
        return []

    def _freed(self) -> list[Delta]:
        if not self.is_through:
            return []
        freed, self._held = self._held, []
        if freed and self._left.finish_reason is not None:
            raise _changed()
        return freed

    def _rest_of(self, delta: Delta) -> Delta:
        left = self._left
        texts = {}
        for kind in TEXT_KINDS:
            texts[kind], still_left = _cut(getattr(delta, kind), getattr(left, kind))
            setattr(left, kind, still_left)
        count = min(len(delta.logprobs), len(left.logprobs))
        left.logprobs = left.logprobs[count:]
        calls = tuple(more for call in delta.tool_calls if (more := self._rest_of_call(call)))
        return msgspec.structs.replace(delta, **texts, tool_calls=calls, logprobs=delta.logprobs[count:])

    def _rest_of_call(self, call: ToolCallDelta) -> ToolCallDelta | None:
        seen = self._left.tool_calls.pop(call.index, None)
        if seen is None:
            return call
        if call.id not in ("", seen.id) or call.name not in ("", seen.name):
            raise _changed()
        rest, still_left = _cut(call.arguments_json, seen.arguments_json)
        if still_left:
            self._left.tool_calls[call.index] = msgspec.structs.replace(seen, arguments_json=still_left)
        return ToolCallDelta(call.index, arguments_json=rest) if rest else None


def _cut(text: str, seen: str) -> tuple[str, str]:
    """What of a text goes beyond what was seen, and what of that has still to come."""
    count = min(len(text), len(seen))
    if text[:count] != seen[:count]:
        raise _changed()
    return text[count:], seen[count:]


def _says_something(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.refusal or delta.tool_calls or delta.logprobs)


def _changed() -> Unavailable:
    return Unavailable("ANSWER_CHANGED", "the answer broke off, and making it again gave another one; ask again")
