r"""How a text is read: as it stands, or, where it is JSON, as those read it who take its escapes apart.

`{"to": "bob\u0040corp.com"}` holds an address for whoever calls the tool, so detectors read it decoded. What they find
is led back to the source, and what stands in its place keeps the source JSON: a number becomes a string.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

_ESCAPE = re.compile(
    r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL
)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_SCALAR = re.compile(r'"(?:[^"\\]|\\.)*"|[^\s\[\]{},:"]+', re.DOTALL)


class Stretch(NamedTuple):
    """A stretch of the text as it is read, and what stands in its place."""

    start: int
    end: int
    replacement: str


class Reading:
    """A text as detectors read it: `text`, made of `source`.

    Args:
        source: The text as it is sent.
        is_json: Whether its escapes are taken apart.
    """

    __slots__ = ("_at", "_is_json", "_source_at", "source", "text")

    def __init__(self, source: str, is_json: bool) -> None:
        self.source = self.text = source
        self._is_json = is_json
        # Where, behind each escape, the text and the source go on alike.
        self._at, self._source_at = [0], [0]
        if is_json and "\\" in source:
            self._decode()

    def _decode(self) -> None:
        pieces: list[str] = []
        length = done = 0
        for escape in _ESCAPE.finditer(self.source):
            pieces += [self.source[done : escape.start()], _decoded(escape)]
            length += len(pieces[-2]) + 1
            done = escape.end()
            self._at.append(length)
            self._source_at.append(done)
        self.text = "".join([*pieces, self.source[done:]])

    def source_position(self, position: int) -> int:
        """Where in the source a position of the text is."""
        index = bisect.bisect_right(self._at, position) - 1
        return self._source_at[index] + position - self._at[index]

    def replaced(self, stretches: Iterable[Stretch]) -> str:
        """The source with stretches replaced, which are in order and apart; what was JSON is JSON again."""
        found = [Stretch(self.source_position(s.start), self.source_position(s.end), s.replacement) for s in stretches]
        if self._is_json and _is_valid(self.source):
            return self._replaced_in_scalars(found)
        return _replaced(self.source, 0, len(self.source), found)

    def _replaced_in_scalars(self, found: list[Stretch]) -> str:
        pieces: list[str] = []
        done = first = 0
        for scalar in _SCALAR.finditer(self.source):
            start, end = scalar.span()
            if self.source[start] == '"':
                start, end = start + 1, end - 1
            while first < len(found) and found[first].end <= start:
                first += 1
            last = first
            while last < len(found) and found[last].start < end:
                last += 1
            if first < last:
                inside = _replaced(self.source, start, end, found[first:last])
                pieces += [self.source[done : scalar.start()], f'"{inside}"']
                done = scalar.end()
        return "".join([*pieces, self.source[done:]])


def looks_like_json(text: str) -> bool:
    """Whether a text begins as an object or an array does; reading other texts that do costs them nothing."""
    return text.lstrip()[:1] in ("{", "[")


def _decoded(escape: re.Match[str]) -> str:
    """One character: positions count on it."""
    high, low, alone, named = escape.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF))
    if alone:
        code = int(alone, 16)
        return "\ufffd" if 0xD800 <= code < 0xE000 else chr(code)
    return _NAMED.get(named, named)


def _replaced(source: str, start: int, end: int, found: list[Stretch]) -> str:
    """What stands between two positions, with the stretches that reach into it replaced."""
    kept = [start, *(at for one in found for at in (max(one.start, start), min(one.end, end))), end]
    texts = [source[begin:stop] for begin, stop in list(pairwise(kept))[::2]]
    return texts[0] + "".join(one.replacement + text for one, text in zip(found, texts[1:], strict=True))


def _is_valid(source: str) -> bool:
    try:
        json.loads(source, parse_int=str, parse_float=str)
    except RecursionError:
        return True  # too deep for us, perhaps not for others
    except ValueError:
        return False
    return True
