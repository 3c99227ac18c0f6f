"""Detectors that judge passages by what heads were taught: moderation and injection.

A passage is judged when it is complete, together with those before it: vectors of passages are pooled, so that a window
slides over a long text without any token being encoded twice. A finding covers the passage that completed it. Where the
policy blocks, a stream is held until its passage is judged; where it only flags, nothing waits.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping

from services.safety.detectors.detector import Match
from services.safety.learned.backwards import turned
from services.safety.learned.features import Counted, Floats
from services.safety.learned.heads import Heads, pooled
from services.safety.learned.passages import PASSAGE_MAX, Pieces
from services.safety.learned.reading import Reader, Reading

# How many passages a window reaches over: about 400 words. The heads were trained on as much.
WINDOW_PASSAGES = 8
# More passages than this are scored in a thread; one takes about a millisecond.
INLINE_PASSAGES = 2

# How much lower the log odds are of a window of a prompt that has room for more while the text goes on: heads were
# taught whole texts, and a text has as many chances to be flagged as it has passages. Over three splits AUPRC of
# self-harm is 0.77 without, 0.82 with this and 0.83 for whole texts alone; of the harmless rows 8.4 % are flagged
# without and 7.0 % with it, of the harmful 70 and 67 %. An answer has no such grace: its text leaves before the rest.
DOUBT = 1.5

Scorer = Callable[[Floats, Counted, float], Mapping[str, float]]


class Classifier:
    """A detector made of heads.

    Args:
        name: What policies call it.
        heads: The heads; a category that `names` lacks is not reported.
        names: What the categories are called, by the name of the head.
        reader: Shared by all detectors of the process.
        window_passages: How far back a passage is judged together with those before it.
    """

    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = PASSAGE_MAX
    inline_code_points = 0

    def __init__(
        self,
        name: str,
        heads: Heads,
        names: Mapping[str, str],
        reader: Reader,
        window_passages: int = WINDOW_PASSAGES,
    ) -> None:
        self.name = name
        self.categories = tuple(names.values())
        self._heads = heads
        self._names = names
        self._reader = reader
        self._window_passages = window_passages

    async def warm(self) -> None:
        """See `detector.Warmed`."""
        await self._reader.warm()

    def cursor(self, categories: Collection[str], doubt: float = 0.0) -> ClassifierCursor:
        """Begins to read a text."""
        wanted = frozenset(categories)
        names = {head: category for head, category in self._names.items() if category in wanted}
        return ClassifierCursor(self._reader, self._heads.score, names, self._window_passages, doubt)

    def prompt_cursor(self, categories: Collection[str]) -> ClassifierCursor:
        """See `detector.Deliberate`."""
        return self.cursor(categories, DOUBT)


class ClassifierCursor:
    """One reading of one text; see `detector.AwaitedCursor`."""

    def __init__(
        self, reader: Reader, score: Scorer, names: Mapping[str, str], window_passages: int, doubt: float
    ) -> None:
        self.safe = 0
        self._doubt = doubt
        self._reader = reader
        self._score = score
        self._names = names
        self._pieces = Pieces()
        self._window: deque[tuple[str, Floats]] = deque(maxlen=window_passages)

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        complete = self._pieces.take(text, offset, final)
        return self._judge(complete, final) if complete else None

    async def _judge(self, passages: list[str], is_end: bool) -> list[Match]:
        meant = [turned(passage) for passage in passages]
        texts = [*passages, *itertools.chain.from_iterable(meant)]
        readings = await self._reader.read(texts)
        if len(texts) <= INLINE_PASSAGES:
            return self._matches(passages, meant, readings, is_end)
        return await asyncio.to_thread(self._matches, passages, meant, readings, is_end)

    def _matches(
        self, passages: list[str], meant: list[tuple[str, ...]], readings: list[Reading], is_end: bool
    ) -> list[Match]:
        matches = []
        rest = iter(readings[len(passages) :])
        for left, passage, others, reading in zip(range(len(passages))[::-1], passages, meant, readings, strict=False):
            self._window.append((passage, reading.vector))
            is_whole = len(self._window) == self._window.maxlen or (is_end and not left)
            scores = self._scores(self._window, 0.0 if is_whole else self._doubt)
            for other in others:
                alone = self._scores([(other, next(rest).vector)], 0.0)
                scores = {category: max(score, alone[category]) for category, score in scores.items()}
            end = self.safe + len(passage)
            matches += [Match(self.safe, end, category, score) for category, score in scores.items()]
            self.safe = end
        return matches

    def _scores(self, window: Collection[tuple[str, Floats]], doubt: float) -> dict[str, float]:
        counted = self._reader.counted("".join(passage for passage, _ in window))
        scores = self._score(pooled([vector for _, vector in window]), counted, doubt)
        return {category: scores[head] for head, category in self._names.items()}
