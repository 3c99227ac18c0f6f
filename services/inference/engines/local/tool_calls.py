"""Reads the calls of tools out of an answer while it is written, and lets the rest through as text.

A marker never leaks, not even half of it: text that could be the beginning of one is held until the next token tells.
Arguments leave as they come, as the JSON text that the model writes. What only looked like a call is text after all.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from enum import Enum, auto

from services.inference.engines.local.call_json import SPACE, CallJson
from services.inference.engines.local.tool_format import MISTRAL_ARGUMENTS, MISTRAL_ID, ToolFormat
from services.inference.generation import ToolCallDelta

# Of a name and an id before the arguments; more is no call.
NAME_CHARACTERS_MAX = 256


class _At(Enum):
    TEXT = auto()
    OPEN = auto()  # after a marker, before what is called
    CALL = auto()  # within the JSON of a call
    AFTER = auto()  # after it


class ToolCallReader:
    """The calls of one answer.

    Attributes:
        call_count: Calls that were told, the one that is being written included.
    """

    def __init__(self, tool_format: ToolFormat, tool_names: Collection[str], call_count_max: int | None = None) -> None:
        """Args: how calls are written, what may be called, and after how many the answer is over."""
        self._format, self._tool_names, self._call_count_max = tool_format, tool_names, call_count_max
        self._at = _At.OPEN if tool_format.is_bare else _At.TEXT
        self._held = ""  # not looked at yet, or not decidable
        self._raw = ""  # looked at; to be said after all where it is no call
        self._blank = ""  # text only if text follows
        self._call: CallJson | None = None
        self._is_marked = self._is_listed = self._is_told = self._is_saying = False
        self._text: list[str] = []
        self._deltas: list[ToolCallDelta] = []
        self.call_count = self._done_count = 0

    @property
    def is_over(self) -> bool:
        """Whether as many calls as there may be are complete."""
        return self._call_count_max is not None and self._done_count >= self._call_count_max

    def add(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Takes what was written next; returns text and pieces of calls that may leave."""
        self._held += text
        while self._held and not self.is_over and self._step():
            pass
        return self._taken()

    def flush(self, is_cut: bool) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Ends the answer: what is held is text, unless the answer was cut and it may be half a marker or call."""
        if not (is_cut or self.is_over or self._is_told or self._at is _At.AFTER):
            self._say(self._raw + self._held)
            if not self.call_count:
                self._text.append(self._blank)
        self._held = self._raw = self._blank = ""
        return self._taken()

    def _taken(self) -> tuple[str, tuple[ToolCallDelta, ...]]:
        text, deltas = "".join(self._text), joined(self._deltas)
        self._text, self._deltas = [], []
        return text, deltas

    def _step(self) -> bool:
        """Gets on in what is held; False: more must come first."""
        match self._at:
            case _At.TEXT:
                return self._in_text()
            case _At.OPEN:
                return self._in_opening()
            case _At.CALL:
                return self._in_call()
            case _At.AFTER:
                return self._after_call()

    def _in_text(self) -> bool:
        marker = self._format.begin
        begin = self._held.find(marker)
        said = begin if begin >= 0 else len(self._held) - _possible_beginning(self._held, marker)
        self._say(self._held[:said])
        self._held = self._held[said:]
        if begin >= 0:
            self._take_marker()
        return begin >= 0

    def _take_marker(self) -> None:
        self._at, self._is_marked, self._is_listed = _At.OPEN, True, False
        self._pass(len(self._format.begin))

    def _pass(self, count: int) -> None:
        """Goes past what belongs to a call, if it is one."""
        self._raw, self._held = self._raw + self._held[:count], self._held[count:]

    def _in_opening(self) -> bool:
        self._pass(len(self._held) - len(self._held.lstrip(SPACE)))
        if not self._held:
            return False
        if not self._is_marked:  # a bare call may still get its marker
            if self._held.startswith(self._format.begin):
                self._take_marker()
                return True
            if self._format.begin.startswith(self._held):
                return False
        if self._held[0] == "{":
            self._begin_call(CallJson())
        elif self._format.opening != "[":
            self._no_call()
        elif self._held[0] == "[" and not self._is_listed:
            self._is_listed = True
            self._pass(1)
        else:
            return self._in_name()
        return True

    def _in_name(self) -> bool:
        """The newer writing of Mistral, with the name before the arguments."""
        head, found, _ = self._held.partition(MISTRAL_ARGUMENTS)
        if not found and len(head) <= NAME_CHARACTERS_MAX:
            return False
        name = head.partition(MISTRAL_ID)[0].strip(SPACE)
        if not (found and name):
            self._no_call()
            return True
        self._pass(len(head) + len(found))
        self._begin_call(CallJson(name))
        return True

    def _begin_call(self, call: CallJson) -> None:
        self._at, self._call, self._is_told = _At.CALL, call, False

    def _in_call(self) -> bool:
        call = self._call
        assert call
        self._pass(call.read(self._held))
        if not self._is_told:
            # JSON with a name in it is a call only if a marker or the name says so.
            if call.is_broken or (call.name and not self._is_marked and call.name not in self._tool_names):
                self._no_call()
                return True
            if call.name:
                self._tell(call)
        if self._is_told and (arguments := call.take_arguments()):
            self._deltas.append(ToolCallDelta(self.call_count - 1, arguments_json=arguments))
        if call.is_done or call.is_broken:
            self._at, self._raw, self._is_told = _At.AFTER, "", False
            self._done_count += 1
        return bool(self._held)

    def _tell(self, call: CallJson) -> None:
        self._deltas.append(ToolCallDelta(self.call_count, self._new_id(), call.name))
        self.call_count += 1
        self._is_told, self._is_saying, self._blank = True, False, ""

    def _after_call(self) -> bool:
        rest, end = self._held.lstrip(SPACE), self._format.end
        if not rest or (end.startswith(rest) and rest != end):
            return False
        self._held, self._at = rest, _At.TEXT
        if end and rest.startswith(end):
            self._held = rest[len(end) :]
        elif self._is_listed and rest[0] == "]":
            self._held = rest[1:]
        elif rest[0] == "{" or (self._format.separator and rest[0] == self._format.separator[0]):
            self._at = _At.OPEN
            self._pass(int(rest[0] != "{"))
        return True

    def _no_call(self) -> None:
        """What looked like a call is text."""
        self._at, self._is_marked = _At.TEXT, False
        raw, self._raw = self._raw, ""
        self._say(raw)

    def _say(self, text: str) -> None:
        """Lets text through; blanks before and between calls are none."""
        text, self._blank = self._blank + text, ""
        self._is_saying = self._is_saying or bool(text.strip(SPACE))
        if self._is_saying:
            self._text.append(text)
        else:
            self._blank = text

    def _new_id(self) -> str:
        length = self._format.id_length
        return secrets.token_hex(length)[:length] if length else f"call_{secrets.token_hex(12)}"


def _possible_beginning(text: str, marker: str) -> int:
    """Length of the longest end of a text that the marker begins with."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-length:]):
            return length
    return 0


def joined(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCallDelta, ...]:
    """The pieces of each call as one."""
    joined: dict[int, ToolCallDelta] = {}
    for one in deltas:
        before = joined.get(one.index, ToolCallDelta(one.index))
        joined[one.index] = ToolCallDelta(
            one.index, before.id or one.id, before.name or one.name, before.arguments_json + one.arguments_json
        )
    return tuple(joined.values())
