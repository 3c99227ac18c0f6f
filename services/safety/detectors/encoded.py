"""Finds terms that were written in base64: what reads as text when it is decoded is judged as text.

Wraps another detector and adds to what that one finds. A long run is read in windows that overlap, so that a stream
holds no more than one; a finding covers its window, for the terms in it have no place in the text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection

from services.safety.detectors.detector import Match
from services.safety.detectors.terms import ForbiddenTerms, TermsCursor

# Eleven letters and a bit; shorter runs are words.
_RUN_MIN = 16
# Both multiples of four, so that windows begin where a letter does. Terms up to 90 letters lie within one.
_WINDOW, _STRIDE = 240, 120
_RUN = re.compile(rf"[A-Za-z0-9+/_\-]{{{_RUN_MIN},{_WINDOW}}}={{0,2}}")
_BEGUN = re.compile(rf"[A-Za-z0-9+/_\-]{{1,{_RUN_MIN - 1}}}\Z")
_URL_SAFE = str.maketrans("-_", "+/")
_READABLE_SHARE = 0.9


class EncodedTerms:
    """A detector of terms that also reads base64."""

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
    """One reading of one text."""

    def __init__(self, terms: ForbiddenTerms, categories: Collection[str]) -> None:
        self.safe = 0
        self._terms, self._categories = terms, categories
        self._plain: TermsCursor = terms.cursor(categories)
        self._read = 0

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """See `detector.Cursor.scan`."""
        matches = self._plain.scan(text, offset, final)
        matches += self._encoded(text, offset, final)
        self.safe = max(self.safe, min(self._plain.safe, self._read))
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
        body = run.rstrip("=").translate(_URL_SAFE)
        body = body[: len(body) - (len(body) % 4 == 1)]
        decoded = base64.b64decode(body + "=" * (-len(body) % 4)).decode("utf-8", "replace")
        readable = sum(character.isprintable() or character.isspace() for character in decoded if character != "\ufffd")
        if readable < _READABLE_SHARE * len(decoded):
            return []
        found = self._terms.cursor(self._categories).scan(decoded, 0, True)
        return [Match(start, start + len(run), match.category, match.score) for match in found]
