"""Detectors that score texts as a whole: classifiers of the hub, moderation endpoints.

A text is judged passage by passage, each together with the one before it, so that nothing hides on a border; where
passages end depends on the text alone, so a stream is judged like the whole. What was judged once is remembered by its
digest.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Protocol

from kit.errors import ConfigError, MillraceError
from services.safety.detectors.detector import ALWAYS, Match
from services.safety.learned.passages import PASSAGE_MAX, passage_end

# Scores of a window are some hundred bytes.
REMEMBERED_MAX = 4096

Scores = Mapping[str, float]


class Scorer(Protocol):
    """What judges; one for each backend."""

    async def warm(self) -> None:
        """Gets ready; again and again has no effect.

        Raises:
            MillraceError: It cannot.
        """
        ...

    async def scores(self, texts: Sequence[str]) -> Sequence[Scores]:
        """Returns the score of each category for each text, 0 to 1; a category that is left out scores 0.

        Raises:
            MillraceError: It could not judge.
        """
        ...


class Scored:
    """A detector made of a scorer."""

    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = PASSAGE_MAX
    inline_code_points = 0

    def __init__(self, name: str, categories: Sequence[str], scorer: Scorer, place: str) -> None:
        self._place = place
        self.name = name
        self.categories = tuple(sorted(set(categories)))
        self._scorer = scorer
        self._remembered: OrderedDict[bytes, Scores] = OrderedDict()

    async def warm(self) -> None:
        """See `detector.Warmed`.

        Raises:
            ConfigError: The model cannot be loaded; names it as the policy file does.
        """
        try:
            await self._scorer.warm()
        except MillraceError as error:
            raise ConfigError(f"{self._place}: {error.message}") from error

    def cursor(self, categories: Collection[str]) -> ScoredCursor:
        """Begins to read a text."""
        return ScoredCursor(self, frozenset(categories))

    async def scores(self, windows: Sequence[str]) -> list[Scores]:
        """Scores windows; those seen before cost nothing."""
        keys = [hashlib.blake2b(each.encode("utf-8", "surrogatepass"), digest_size=16).digest() for each in windows]
        known = {key: found for key in keys if (found := self._remembered.get(key)) is not None}
        new = {key: window for key, window in zip(keys, windows, strict=True) if key not in known}
        if new:
            said = await self._scorer.scores(list(new.values()))
            known |= dict(zip(new, said, strict=True))
        for key in known:
            self._remembered[key] = known[key]
            self._remembered.move_to_end(key)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return [known[key] for key in keys]


class ScoredCursor:
    """One reading of one text; see `detector.AwaitedCursor`."""

    def __init__(self, detector: Scored, categories: frozenset[str]) -> None:
        self.safe, self.wakes = 0, ALWAYS
        self._detector = detector
        self._categories = categories
        self._arrived = 0
        self._unread = ""
        self._before = ""

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        self._unread += text[self._arrived - offset :]
        self._arrived = offset + len(text)
        passages: list[str] = []
        at = 0
        while (end := passage_end(self._unread, at, final)) is not None:
            passages.append(self._unread[at:end])
            at = end
        self._unread = self._unread[at:]
        return self._judge(passages) if passages else None

    async def _judge(self, passages: list[str]) -> list[Match]:
        windows = [before + passage for before, passage in zip([self._before, *passages], passages, strict=False)]
        self._before = passages[-1]
        matches: list[Match] = []
        for passage, scores in zip(passages, await self._detector.scores(windows), strict=True):
            end = self.safe + len(passage)
            wanted = self._categories & scores.keys()
            matches += [Match(self.safe, end, category, scores[category]) for category in sorted(wanted)]
            self.safe = end
        return matches
