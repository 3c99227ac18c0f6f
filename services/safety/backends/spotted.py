"""Detectors that spot mentions: named-entity models, for people and places.

A text is read sentence by sentence. Where a sentence ends depends on the text alone, so a stream is read like the
whole, and is held for no longer than one. A text without sentences is cut behind a word that no capital follows, as far
as there is one, so that a name is not cut in two.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Collection, Sequence
from typing import NamedTuple, Protocol

from kit.errors import ConfigError, MillraceError
from services.safety.detectors.detector import ALWAYS, Match

# Shorter sentences are read with the next: "Dr. " is none.
SENTENCE_MIN = 24
SENTENCE_MAX = 320
_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|[。！？]|\n")
_BETWEEN_PLAIN_WORDS = re.compile(r"\s+(?=[^\W\d_A-Z])")
_SPACE = re.compile(r"\s+")


class Mention(NamedTuple):
    """Something named: a half-open range of code points of the text that was given, its category, and a score."""

    start: int
    end: int
    category: str
    score: float


class Spotter(Protocol):
    """What spots; one for each backend."""

    async def warm(self) -> None:
        """Gets ready; again and again has no effect.

        Raises:
            MillraceError: It cannot.
        """
        ...

    async def mentions(self, texts: Sequence[str]) -> Sequence[Sequence[Mention]]:
        """Returns the mentions of each text.

        Raises:
            MillraceError: It could not read.
        """
        ...


class Spotted:
    """A detector made of a spotter."""

    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = SENTENCE_MAX
    inline_code_points = 0

    def __init__(self, name: str, categories: Sequence[str], spotter: Spotter, place: str) -> None:
        self._place = place
        self.name = name
        self.categories = tuple(sorted(set(categories)))
        self._spotter = spotter

    async def warm(self) -> None:
        """See `detector.Warmed`.

        Raises:
            ConfigError: The model cannot be loaded; names it as the policy file does.
        """
        try:
            await self._spotter.warm()
        except MillraceError as error:
            raise ConfigError(f"{self._place}: {error.message}") from error

    def cursor(self, categories: Collection[str]) -> SpottedCursor:
        """Begins to read a text."""
        return SpottedCursor(self._spotter, frozenset(categories))


class SpottedCursor:
    """One reading of one text; see `detector.AwaitedCursor`."""

    def __init__(self, spotter: Spotter, categories: frozenset[str]) -> None:
        self.safe, self.wakes = 0, ALWAYS
        self._spotter = spotter
        self._categories = categories
        self._arrived = 0
        self._unread = ""

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        self._unread += text[self._arrived - offset :]
        self._arrived = offset + len(text)
        sentences: list[str] = []
        at = 0
        while (end := sentence_end(self._unread, at, final)) is not None:
            sentences.append(self._unread[at:end])
            at = end
        self._unread = self._unread[at:]
        return self._judge(sentences) if sentences else None

    async def _judge(self, sentences: list[str]) -> list[Match]:
        matches: list[Match] = []
        for sentence, mentions in zip(sentences, await self._spotter.mentions(sentences), strict=True):
            matches += [
                Match(self.safe + each.start, self.safe + each.end, each.category, each.score)
                for each in mentions
                if each.category in self._categories
            ]
            self.safe += len(sentence)
        return matches


def sentence_end(text: str, start: int, final: bool) -> int | None:
    """Returns one past the end of the sentence that begins at `start`; None when the text must arrive further first."""
    limit = start + SENTENCE_MAX
    sentence = _END.search(text, start + SENTENCE_MIN, limit)
    # White space may go on: where it ends, and not where it was cut, the next sentence begins.
    if sentence and (sentence.end() < len(text) or final or sentence.end() == limit):
        return sentence.end()
    if len(text) < limit:
        return len(text) if final and len(text) > start else None
    cuts = [space.end() for space in _BETWEEN_PLAIN_WORDS.finditer(text, start + SENTENCE_MIN, limit)]
    cuts = cuts or [space.end() for space in _SPACE.finditer(text, start + SENTENCE_MIN, limit)]
    return cuts[-1] if cuts else limit
