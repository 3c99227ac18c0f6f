"""Restoring: what was anonymised in a prompt is put back into its answer, for the caller who wrote it and no one else.

Upstreams, the cache, logs and traces see numbered placeholders only. The way back lives in the request and ends with
it; an answer is restored as the last thing before it leaves, also one that the cache kept, so that an entry never holds
anyone's data. Text is held back only while it may be the beginning of a placeholder that the prompt has.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from services.inference.events import Event
from services.inference.generation import ChoiceFinished, Delta, FinishReason, TokenLogprob, ToolCallDelta

TEXT_KINDS = ("text", "reasoning", "refusal")

# As the safety service makes them; models write them back in any case, and serialisers of JSON may escape the brackets.
_PLACEHOLDER = re.compile(r"<([A-Z][A-Z0-9_]{0,126})>", re.IGNORECASE | re.ASCII)
_IN_JSON = re.compile(r"(?:<|\\u003c)([A-Z][A-Z0-9_]{0,126})(?:>|\\u003e)", re.IGNORECASE | re.ASCII)
_BRACKETS = (("<", ">"), ("\\u003c", "\\u003e"), ("<", "\\u003e"), ("\\u003c", ">"))
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)  # no letter becomes two, as with str.lower
_STRING_OR_PLACEHOLDER = re.compile(r'"(?:[^"\\]|\\.)*"|(<[A-Z][A-Z0-9_]{0,126}>)')


class WayBack:
    """The placeholders of one prompt and what they stand for. It shows itself in no log."""

    __slots__ = ("_in_json", "_in_text", "_originals")

    def __init__(self, placeholders: Iterable[tuple[str, str]]) -> None:
        """Takes tokens ("<EMAIL_ADDRESS_1>") and originals."""
        originals = {token[1:-1].lower(): original for token, original in placeholders}
        self._originals = originals
        escaped = {name: json.dumps(original, ensure_ascii=False)[1:-1] for name, original in originals.items()}
        self._in_text = _Way(originals, _PLACEHOLDER, _BRACKETS[:1])
        self._in_json = _Way(escaped, _IN_JSON, _BRACKETS)

    def __repr__(self) -> str:
        return "<WayBack>"

    def joined(self, other: WayBack | None, tokens: Iterable[str]) -> WayBack:
        """Leads back from its own placeholders, and from those of another that are named."""
        others = other._originals if other else {}
        taken = {name: others[name] for token in tokens if (name := token[1:-1].lower()) in others}
        return WayBack((f"<{name}>", original) for name, original in {**taken, **self._originals}.items())

    def restorer(self) -> Restorer:
        """Begins an answer."""
        return Restorer(self._in_text, self._in_json)


class _Way:
    """Originals by the lower-case name of their placeholder, and how these are written in one kind of text."""

    def __init__(
        self, originals: dict[str, str], pattern: re.Pattern[str], brackets: Sequence[tuple[str, str]]
    ) -> None:
        self._originals, self._pattern = originals, pattern
        written = [f"{opening}{name}{closing}" for name in originals for opening, closing in brackets]
        self._beginnings = frozenset(token[:end] for token in written for end in range(1, len(token)))
        self._openings = tuple({opening[0] for opening, _ in brackets})
        self._reach = max(map(len, written), default=1) - 1

    def read(self, text: str, final: bool) -> tuple[str, str, bool]:
        """Restores a text that goes on: what may leave, what is held, and whether anything was put back."""
        if not any(opening in text for opening in self._openings):
            return text, "", False
        held = len(text) if final else self._begun(text)
        free = text[:held]
        restored = self._pattern.sub(self._original, free)
        return restored, text[held:], restored != free

    def _original(self, match: re.Match[str]) -> str:
        return self._originals.get(match[1].lower(), match[0])

    def _begun(self, text: str) -> int:
        """Where a placeholder may have begun that has not ended."""
        tail = text[-self._reach :].translate(_LOWER)
        starts = (at for at, sign in enumerate(tail) if sign in self._openings and tail[at:] in self._beginnings)
        return len(text) - len(tail) + next(starts, len(tail))


class _Part(msgspec.Struct):
    """What is held of one run of text, with the log probabilities of its deltas."""

    held: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class Restorer:
    """One answer on its way out."""

    def __init__(self, in_text: _Way, in_json: _Way) -> None:
        self._in_text, self._in_json = in_text, in_json
        self._parts: dict[tuple[int, str, int], _Part] = {}

    def __call__(self, events: Iterable[Event]) -> list[Event]:
        """Puts back what has become certain. Events are replaced, never changed: others keep them as they were."""
        restored: list[Event] = []
        for event in events:
            if isinstance(event, Delta):
                delta = self._delta(event)
                if not _is_hollow(delta) or _is_hollow(event):
                    restored.append(delta)
            elif isinstance(event, ChoiceFinished):
                rest = [] if event.finish_reason is FinishReason.CONTENT_FILTER else self._rest(event.choice_index)
                restored += [*rest, event]
            else:
                restored.append(event)
        return restored

    def _delta(self, delta: Delta) -> Delta:
        index = delta.choice_index
        text, logprobs = self._text(index, "text", delta.text, delta.logprobs)
        calls = tuple(
            msgspec.structs.replace(call, arguments_json=self._arguments(index, call)) for call in delta.tool_calls
        )
        return Delta(
            index,
            text,
            self._text(index, "reasoning", delta.reasoning)[0],
            self._text(index, "refusal", delta.refusal)[0],
            calls,
            logprobs,
            delta.completion_token_count,
        )

    def _text(
        self, index: int, kind: str, text: str, logprobs: tuple[TokenLogprob, ...] = ()
    ) -> tuple[str, tuple[TokenLogprob, ...]]:
        """The part of a text that may leave; log probabilities leave with it where it is as the model wrote it."""
        if not text:
            return "", logprobs
        part = self._part(index, kind)
        text, part.held, is_changed = self._in_text.read(part.held + text, False)
        free = () if is_changed else (*part.logprobs, *logprobs)
        part.logprobs = free if part.held else ()
        return text, () if part.held else free

    def _arguments(self, index: int, call: ToolCallDelta) -> str:
        part = self._part(index, "tool_arguments", call.index)
        text, part.held, _ = self._in_json.read(part.held + call.arguments_json, False)
        return text

    def _part(self, index: int, kind: str, call_index: int = 0) -> _Part:
        return self._parts.setdefault((index, kind, call_index), _Part())

    def _rest(self, index: int) -> Iterator[Delta]:
        """What was held for a placeholder that never came."""
        for (choice_index, kind, call_index), part in self._parts.items():
            if choice_index != index or not part.held:
                continue
            text, part.held = part.held, ""
            if kind in TEXT_KINDS:
                yield msgspec.structs.replace(Delta(index, logprobs=part.logprobs), **{kind: text})
            else:
                yield Delta(index, tool_calls=(ToolCallDelta(call_index, arguments_json=text),))


def _is_hollow(delta: Delta) -> bool:
    return not (delta.text or delta.reasoning or delta.refusal or delta.tool_calls or delta.logprobs)


def quoted(arguments_json: str) -> str:
    """Quotes placeholders that stand where a number was: arguments must stay JSON, some upstreams read them."""
    return _STRING_OR_PLACEHOLDER.sub(lambda found: f'"{found[1]}"' if found[1] else found[0], arguments_json)
