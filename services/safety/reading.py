r"""How a text is read: as it stands, or, where it is JSON, as those read it who take its escapes apart.

`{"to": "bob\u0040corp.com"}` holds an address for whoever calls the tool, so detectors read it decoded. A string that
is JSON itself is read the same way, and what is in that. What they find is led back to the source, and what stands in
its place keeps the source JSON: a number becomes a string.
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
# JSON in a string of JSON, and so on: each level doubles the backslashes of the one within, so nobody writes many.
_DEPTH_MAX = 8
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
        depth: How many strings of JSON it stands in.
    """

    __slots__ = ("_documents", "_is_json", "_plain", "source", "text")

    def __init__(self, source: str, is_json: bool, depth: int = 0) -> None:
        self.source = self.text = source
        self._is_json = is_json
        self._plain: _Plain | None = None
        self._documents: list[_Document] = []
        if is_json and "\\" in source:
            self._plain = _Plain(source)
            self.text = self._plain.text
            if depth < _DEPTH_MAX:
                self._read_documents(self._plain, depth)

    def _read_documents(self, plain: _Plain, depth: int) -> None:
        """Reads the strings that are JSON themselves."""
        pieces: list[str] = []
        at = done = 0
        for scalar in _SCALAR.finditer(self.source):
            if self.source[scalar.start()] != '"' or "\\" not in scalar.group():
                continue
            start, end = plain.position(scalar.start() + 1), plain.position(scalar.end() - 1)
            if not _is_document(content := plain.text[start:end]):
                continue
            reading = Reading(content, True, depth + 1)
            pieces += [plain.text[done:start], reading.text]
            at += start - done
            self._documents.append(_Document(at, start, end, scalar.start() + 1, reading))
            at += len(reading.text)
            done = end
        if pieces:
            self.text = "".join([*pieces, plain.text[done:]])

    def source_position(self, position: int) -> int:
        """Where in the source a position of the text is."""
        if self._plain is None:
            return position
        index = bisect.bisect_right(self._documents, position, key=lambda one: one.at) - 1
        if index >= 0:
            position = self._documents[index].outer_position(position)
        return self._plain.source_position(position)

    def replaced(self, stretches: Iterable[Stretch]) -> str:
        """The source with stretches replaced, which are in order and apart; what was JSON is JSON again."""
        texts = list(stretches)
        found = [Stretch(self.source_position(s.start), self.source_position(s.end), s.replacement) for s in texts]
        if self._is_json and _is_valid(self.source):
            return self._replaced_in_scalars(texts, found)
        return _replaced(self.source, 0, len(self.source), found)

    def _replaced_in_scalars(self, texts: list[Stretch], found: list[Stretch]) -> str:
        """Replaces stretches, given by their places in the text and in the source."""
        documents = {one.source_start: one for one in self._documents}
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
                document = documents.get(start)
                inside = (
                    document.replaced(texts[first:last])
                    if document
                    else _replaced(self.source, start, end, found[first:last])
                )
                pieces += [self.source[done : scalar.start()], f'"{inside}"']
                done = scalar.end()
        return "".join([*pieces, self.source[done:]])


class _Plain:
    """A source without its escapes, one level of them."""

    def __init__(self, source: str) -> None:
        # Where, behind each escape, the text and the source go on alike.
        self._at, self._source_at = [0], [0]
        pieces: list[str] = []
        length = done = 0
        for escape in _ESCAPE.finditer(source):
            pieces += [source[done : escape.start()], _decoded(escape)]
            length += len(pieces[-2]) + 1
            done = escape.end()
            self._at.append(length)
            self._source_at.append(done)
        self.text = "".join([*pieces, source[done:]])

    def source_position(self, position: int) -> int:
        """Where in the source a position of the text is."""
        index = bisect.bisect_right(self._at, position) - 1
        return self._source_at[index] + position - self._at[index]

    def position(self, source_position: int) -> int:
        """Where in the text a position of the source is that lies in no escape."""
        index = bisect.bisect_right(self._source_at, source_position) - 1
        return self._at[index] + source_position - self._source_at[index]


class _Document(NamedTuple):
    """JSON in a string: where its reading begins in the text, its place between the quotes, its place in the source."""

    at: int
    start: int
    end: int
    source_start: int
    reading: Reading

    def outer_position(self, position: int) -> int:
        """Where a position behind `at` would be had the document not been read."""
        inside = position - self.at
        length = len(self.reading.text)
        return self.start + self.reading.source_position(inside) if inside < length else self.end + inside - length

    def replaced(self, stretches: Iterable[Stretch]) -> str:
        """What stands between the quotes when stretches of the whole text are replaced."""
        length = len(self.reading.text)
        inside = [s._replace(start=max(s.start - self.at, 0), end=min(s.end - self.at, length)) for s in stretches]
        return json.dumps(self.reading.replaced(inside), ensure_ascii=False)[1:-1]


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


def _is_document(text: str) -> bool:
    return text.lstrip()[:1] in ("{", "[", '"') and _is_valid(text)


def _is_valid(source: str) -> bool:
    try:
        json.loads(source, parse_int=str, parse_float=str)
    except RecursionError:
        return True  # too deep for us, perhaps not for others
    except ValueError:
        return False
    return True
