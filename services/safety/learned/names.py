"""The detector of names: of people, and of places where a policy asks for them.

A name is judged with the passage that it stands in, so it is the same however the text arrived; where the policy
replaces names, text waits until its passage is complete.
"""

from __future__ import annotations

from collections.abc import Awaitable, Collection

from services.safety.detectors.detector import Match, Wakes
from services.safety.learned.passages import PASSAGE_MAX, Pieces
from services.safety.learned.reading import Reader


class Names:
    """Finds PERSON and LOCATION.

    Args:
        reader: Shared by all detectors of the process.
    """

    name = "names"
    categories = ("LOCATION", "PERSON")
    # Where somebody is from is rarely a secret, and much of an answer.
    optional_categories = frozenset({"LOCATION"})
    context = 0
    hold = PASSAGE_MAX
    inline_code_points = 0

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def warm(self) -> None:
        """See `detector.Warmed`."""
        await self._reader.warm()

    def cursor(self, categories: Collection[str]) -> NamesCursor:
        """Begins to read a text."""
        return NamesCursor(self._reader, frozenset(categories))


class NamesCursor:
    """One reading of one text; see `detector.AwaitedCursor`."""

    def __init__(self, reader: Reader, categories: frozenset[str]) -> None:
        self.safe = 0
        self._reader = reader
        self._categories = categories
        self._pieces = Pieces()

    @property
    def wakes(self) -> Wakes:
        """See `detector.AwaitedCursor`."""
        return self._pieces.wakes

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        complete = self._pieces.take(text, offset, final)
        if complete:
            return self._judge(complete)
        self._reader.expect(self._pieces)
        return None

    async def _judge(self, passages: list[str]) -> list[Match]:
        matches = []
        for passage, reading in zip(passages, await self._reader.read(passages), strict=True):
            matches += [
                Match(self.safe + mark.start, self.safe + mark.end, mark.category, mark.score)
                for mark in reading.names
                if mark.category in self._categories
            ]
            self.safe += len(passage)
        return matches
