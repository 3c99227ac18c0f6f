"""Finds terms that were written in base64, in hexadecimal, in ROT13, or in letters that are not shown.

Wraps another detector and adds to what that one finds: what reads as text when it is decoded is judged as text, and so
is what was encoded in that. A long run is read in windows that overlap, so that a stream holds no more than one; a
finding covers its window, for the terms in it have no place in the text.
"""

from __future__ import annotations

import base64
import codecs
import re
import string
import unicodedata
from collections.abc import Collection, Iterator

from services.safety.detectors.detector import Match
from services.safety.detectors.folding import invisible_class
from services.safety.detectors.terms import ForbiddenTerms, TermsCursor

# Eleven letters and a bit; shorter runs are words.
_RUN_MIN = 16
# Both multiples of four, so that windows begin where a letter does. Terms up to 90 letters lie within one.
_WINDOW, _STRIDE = 240, 120
# Encoded twice is seen through, and once more.
_DEPTH_MAX = 3
# Unicode's tags: every sign of ASCII once more, never shown, and read by models.
_TAG = "\U000e0020-\U000e007e"
_TAG_BASE = 0xE0000
# What is no part of an encoded text and may stand in it: ends of lines, invisible characters, full-width forms.
_SIGN = r"A-Za-z0-9+/_\-\uff0b\uff0d\uff0f-\uff19\uff21-\uff3a\uff3f\uff41-\uff5a"
_SKIPPED = r"\r\n" + invisible_class()
_TAGS = re.compile(f"[{_TAG}]")
_IGNORED = re.compile(f"[{_SKIPPED}]+")
_TRAILING = re.compile(r"[\r\n]+\Z")
# The look ahead only makes it fast: ten times on English, whose words are short.
_RUN = re.compile(rf"(?=[^ ]{{{_RUN_MIN}}})[{_SIGN}{_TAG}][{_SIGN}{_SKIPPED}]{{{_RUN_MIN - 1},{_WINDOW - 1}}}={{0,2}}")
_BEGUN = re.compile(rf"(?=[^ ]{{1,{_RUN_MIN - 1}}}\Z)[{_SIGN}{_TAG}][{_SIGN}{_SKIPPED}]{{0,{_RUN_MIN - 2}}}\Z")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_URL_SAFE = str.maketrans("-_", "+/")
_READABLE_SHARE = 0.9
_ROT13 = str.maketrans({letter: codecs.encode(letter, "rot13") for letter in string.ascii_letters})


class EncodedTerms:
    """A detector of terms that also reads what is encoded."""

    optional_categories: frozenset[str] = frozenset()

    def __init__(self, terms: ForbiddenTerms) -> None:
        self._terms = terms
        self.name = terms.name
        self.categories = terms.categories
        self.context = terms.context
        self.hold = max(terms.hold, _WINDOW + 2)
        self.inline_code_points = terms.inline_code_points

    def cursor(self, categories: Collection[str]) -> EncodedTermsCursor:
        """Begins to read a text."""
        return EncodedTermsCursor(self._terms, categories)


class EncodedTermsCursor:
    """One reading of one text; `depth` is how often it was decoded."""

    def __init__(self, terms: ForbiddenTerms, categories: Collection[str], depth: int = 0) -> None:
        self.safe = 0
        self._terms, self._categories, self._depth = terms, categories, depth
        self._plain: TermsCursor = terms.cursor(categories)
        # It keeps every letter's place, so it is read as the text is.
        self._rotated: TermsCursor = terms.cursor(categories)
        self._read = 0

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """See `detector.Cursor.scan`."""
        matches = self._plain.scan(text, offset, final) + self._rotated.scan(text.translate(_ROT13), offset, final)
        if self._depth < _DEPTH_MAX:
            matches += self._encoded(text, offset, final)
        else:
            self._read = offset + len(text)
        self.safe = max(self.safe, min(self._plain.safe, self._rotated.safe, self._read))
        return matches

    def _encoded(self, text: str, offset: int, final: bool) -> list[Match]:
        matches: list[Match] = []
        at = self._read - offset
        while run := _RUN.search(text, at):
            start, end = run.span()
            is_full = end - start >= _WINDOW
            if end == len(text) and not final and not is_full:
                at = start
                break
            matches += self._judge(run.group()[:_WINDOW], start + offset)
            at = start + _STRIDE if is_full else end
        else:
            begun = None if final else _BEGUN.search(text, max(at, len(text) - _RUN_MIN + 1))
            at = begun.start() if begun else len(text)
        self._read = offset + at
        return matches

    def _judge(self, run: str, start: int) -> list[Match]:
        found: dict[str, float] = {}
        for decoded in _readings(run):
            for match in EncodedTermsCursor(self._terms, self._categories, self._depth + 1).scan(decoded, 0, True):
                found[match.category] = max(match.score, found.get(match.category, 0.0))
        end = start + len(_TRAILING.sub("", run))
        return [Match(start, end, category, score) for category, score in found.items()]


def _readings(run: str) -> Iterator[str]:
    """What a run may mean, as far as that reads as text."""
    tags = _TAGS.findall(run)
    if len(tags) >= _RUN_MIN:
        yield "".join(chr(ord(tag) - _TAG_BASE) for tag in tags)
    body = run.rstrip("=")
    bare = _IGNORED.sub("", body)
    # Where something was left out, it is not known which letter is the first of four.
    offsets = range(1 if bare == body else 4)
    bare = (bare if bare.isascii() else unicodedata.normalize("NFKC", bare)).translate(_URL_SAFE)
    decoded = [_decoded(bare[offset:]) for offset in offsets if len(bare) - offset >= _RUN_MIN]
    if _HEX.fullmatch(bare):
        decoded.append(bytes.fromhex(bare).decode("utf-8", "replace"))
    yield from (text for text in decoded if _is_readable(text))


def _decoded(body: str) -> str:
    body = body[: len(body) - (len(body) % 4 == 1)]
    return base64.b64decode(body + "=" * (-len(body) % 4)).decode("utf-8", "replace")


def _is_readable(text: str) -> bool:
    readable = sum(character.isprintable() or character.isspace() for character in text if character != "\ufffd")
    return bool(text) and readable >= _READABLE_SHARE * len(text)
