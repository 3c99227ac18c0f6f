"""The JSON of one call of a tool, read as it is written: first the name, then the arguments, piece by piece.

It looks at each character once and keeps nothing that has left. Arguments stay the text that the model writes; that
they fit the tool is promised only where a grammar held the model to it.
"""

from __future__ import annotations

import json

SPACE = " \t\r\n"
ARGUMENTS = {"arguments", "parameters"}


class CallJson:
    """One call: an object with a name and arguments, or the arguments alone of a name that is known.

    Attributes:
        name: What is called; empty until it has been read.
        is_done: Whether the call is complete.
        is_broken: Whether it cannot be one any more.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.is_done = self.is_broken = False
        self._is_alone = bool(name)
        self._expects = "value" if name else "{"
        self._key = "arguments" if name else ""
        self._part = ""  # of a key, or of a value that is wanted whole
        self._arguments = ""  # not taken yet
        self._has_arguments = self._has_begun = self._in_string = self._is_escaped = False
        self._depth = 0

    def read(self, text: str) -> int:
        """Reads on; returns how many characters belong to the call."""
        for at, character in enumerate(text):
            self._take(character)
            if self.is_done or self.is_broken:
                return at + 1
        return len(text)

    def take_arguments(self) -> str:
        """The arguments that have come since the last time."""
        arguments, self._arguments = self._arguments, ""
        return arguments

    def _take(self, character: str) -> None:
        match self._expects:
            case "value":
                self._take_value(character)
            case "key":
                self._take_key(character)
            case _ if character in SPACE:
                pass
            case "{" if character == "{":
                self._expects = "first key"
            case "first key" if character == '"':
                self._expects, self._part = "key", '"'
            case ":" if character == ":":
                self._expects, self._has_begun = "value", False
            case "next" if character == ",":
                self._expects = "first key"
            case "next" | "first key" if character == "}":
                self._end()
            case _:
                self.is_broken = True

    def _take_key(self, character: str) -> None:
        self._part += character
        if character == '"' and not self._is_escaped:
            self._key, self._expects = str(_value(self._part)), ":"
        self._is_escaped = character == "\\" and not self._is_escaped

    def _take_value(self, character: str) -> None:
        if not self._has_begun:
            if character in SPACE:
                return
            self._has_begun, self._part = True, ""
            self._is_streamed = self._key in ARGUMENTS and character == "{"
        if self._in_string:
            self._keep(character)
            self._in_string = character != '"' or self._is_escaped
            self._is_escaped = character == "\\" and not self._is_escaped
            is_over = not self._in_string and not self._depth
        elif not self._depth and character in SPACE + ",}]":  # after a number or a word
            self._value_ends()
            self._take(character)
            return
        else:
            self._keep(character)
            self._in_string, self._is_escaped = character == '"', False
            self._depth += (character in "{[") - (character in "}]")
            is_over = not self._depth and character in "}]"
        if is_over:
            self._value_ends()

    def _keep(self, character: str) -> None:
        if self._is_streamed:
            self._arguments += character
            self._has_arguments = True
        else:
            self._part += character

    def _value_ends(self) -> None:
        if self._key == "name":
            name = _value(self._part)
            self.name = name if isinstance(name, str) else ""
            self.is_broken = not self.name
        elif self._key in ARGUMENTS and not self._is_streamed:
            value = _value(self._part)  # some models write their arguments as a string
            self._arguments += value if isinstance(value, str) else self._part if value is not None else "{}"
            self._has_arguments = True
        self._expects, self.is_done = "next", self._is_alone

    def _end(self) -> None:
        self.is_done, self.is_broken = bool(self.name), not self.name
        if not self._has_arguments:
            self._arguments = "{}"


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
