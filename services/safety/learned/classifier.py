"""Detectors that judge passages by what heads were taught: moderation and injection.

A passage is judged when it is complete, together with those before it: vectors of passages are pooled, so that a window
slides over a long text without any token being encoded twice. One sentence of harm among calm ones is lost in a pool,
so moderation judges sentences too: those that look like harm where they stand are read by themselves. A finding covers
the passage that completed it. Where the policy blocks, a stream is held until its passage is judged; where it only
flags, nothing waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from services.safety.detectors.detector import Match
from services.safety.learned.backwards import turned
from services.safety.learned.features import Floats, Tally
from services.safety.learned.heads import Heads, pooled
from services.safety.learned.passages import PASSAGE_MAX, Pieces
from services.safety.learned.reading import Reader, Reading

# How many passages a window reaches over: about 400 words. The heads were trained on as much.
WINDOW_PASSAGES = 8
# More passages than this are scored in a thread; one takes about a third of a millisecond.
INLINE_PASSAGES = 4
# Turns of the loop in which passages reach the encoder's thread; it works while words are counted here.
HANDOVER_TURNS = 2

# How much lower the log odds are of what is one chance of many to be flagged: heads were taught whole texts. So it is
# with a window of a prompt that has room for more while the text goes on. Over three splits AUPRC of self-harm is 0.77
# without, 0.82 with this and 0.83 for whole texts alone; of the harmless rows 8.4 % are flagged without and 7.0 % with
# it, of the harmful 70 and 67 %. The windows of an answer have no such grace: its text leaves before the rest.
# And so it is with a sentence, everywhere. Over three splits AUPRC of any harm is 0.805 where none is judged by itself,
# 0.786 at a doubt of 0.5, 0.796 at 1.0 and 0.801 at 1.5, of self-harm 0.82, 0.78, 0.80 and 0.82; of forty sentences of
# harm among calm ones the heads of that trial found 3, 36, 35 and 33.
DOUBT = 1.5
# A sentence that is so likely harm where it stands is read by itself. Of the sentences of benign prompts these are one
# in a hundred (one in ten from 0.1); of forty sentences of harm it finds 32 of the 34 that reading all of them finds.
SUSPICION = 0.25

# Of running text; what has more takes longer than its passages tell.
SENTENCES_PER_PASSAGE = 4

T = TypeVar("T")


class Classifier:
    """A detector made of heads.

    Args:
        name: What policies call it.
        heads: The heads; a category that `names` lacks is not reported.
        names: What the categories are called, by the name of the head.
        reader: Shared by all detectors of the process.
        window_passages: How far back a passage is judged together with those before it.
        suspicion: How likely harm a sentence is that is judged apart; more than 1: none is.
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
        suspicion: float = SUSPICION,
    ) -> None:
        self.name = name
        self.categories = tuple(names.values())
        self._heads = heads
        self._names = names
        self._reader = reader
        self._window_passages = window_passages
        self._suspicion = suspicion

    async def warm(self) -> None:
        """See `detector.Warmed`."""
        await self._reader.warm()

    def cursor(self, categories: Collection[str], doubt: float = 0.0) -> ClassifierCursor:
        """Begins to read a text."""
        wanted = frozenset(categories)
        names = {head: category for head, category in self._names.items() if category in wanted}
        return ClassifierCursor(self._reader, self._heads, names, self._window_passages, doubt, self._suspicion)

    def prompt_cursor(self, categories: Collection[str]) -> ClassifierCursor:
        """See `detector.Deliberate`."""
        return self.cursor(categories, DOUBT)


class _Judged(NamedTuple):
    """What is judged: what was counted in a text, its vector, and by how much to lower its log odds."""

    tally: Tally
    vector: Floats
    doubt: float


class _Sentence(NamedTuple):
    """A sentence of a passage, judged where it stands."""

    text: str
    judged: _Judged


class _Apart(NamedTuple):
    """A text that is judged by itself, beside the window."""

    text: str
    tally: Tally
    doubt: float


class ClassifierCursor:
    """One reading of one text; see `detector.AwaitedCursor`."""

    def __init__(
        self,
        reader: Reader,
        heads: Heads,
        names: Mapping[str, str],
        window_passages: int,
        doubt: float,
        suspicion: float,
    ) -> None:
        self.safe = 0
        self._doubt = doubt
        self._suspicion = suspicion
        self._reader = reader
        self._heads = heads
        self._categories = tuple(names.values())
        self._columns = [heads.names.index(name) for name in names]
        self._pieces = Pieces()
        self._window: deque[tuple[Tally, Floats]] = deque(maxlen=window_passages)

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        complete = self._pieces.take(text, offset, final)
        return self._judge(complete, final) if complete else None

    async def _judge(self, passages: list[str], is_end: bool) -> list[Match]:
        places = self._reader.begin(passages)
        if len(passages) <= INLINE_PASSAGES:
            for _ in range(HANDOVER_TURNS):
                await asyncio.sleep(0)
            for passage in passages:
                self._reader.tallies(passage)
        readings = await self._reader.finish(places)
        # Each sentence is counted and scored.
        sentence_count = sum(len(reading.sentences) for reading in readings)
        work = max(len(passages), sentence_count // SENTENCES_PER_PASSAGE)
        scores, apart = await _worked(work, partial(self._judge_in_place, passages, readings, is_end))
        if any(apart):
            await self._judge_apart(apart, scores)
        return self._matches(passages, scores)

    def _judge_in_place(
        self, passages: list[str], readings: list[Reading], is_end: bool
    ) -> tuple[Floats, list[list[_Apart]]]:
        """Scores the window that ends with each passage, and says what of the passage is judged by itself.

        Windows and sentences are scored together: one after the other they read the weights twice.
        """
        windows: list[_Judged] = []
        sentences: list[list[_Sentence]] = []
        for left, passage, reading in zip(range(len(passages))[::-1], passages, readings, strict=True):
            is_first = self.safe == 0 and not windows
            windows.append(self._window_with(passage, reading, is_end and not left))
            sentences.append(self._sentences(passage, reading, is_first))
        scores = self._scores([*windows, *(one.judged for each in sentences for one in each)])
        likely = iter(scores[len(windows) :].max(axis=1, initial=0.0).tolist())
        apart = []
        for passage, each in zip(passages, sentences, strict=True):
            backwards = [_Apart(text, Tally.total(self._reader.tallies(text)), 0.0) for text in turned(passage)]
            suspects = [_Apart(one.text, one.judged.tally, DOUBT) for one in each if next(likely) >= self._suspicion]
            apart.append([*backwards, *suspects])
        return scores[: len(windows)], apart

    def _window_with(self, passage: str, reading: Reading, is_end: bool) -> _Judged:
        self._window.append((Tally.total(self._reader.tallies(passage)), reading.vector))
        is_whole = is_end or len(self._window) == self._window.maxlen
        tallies, vectors = zip(*self._window, strict=True)
        return _Judged(Tally.total(tallies), pooled(vectors), 0.0 if is_whole else self._doubt)

    def _sentences(self, passage: str, reading: Reading, is_first: bool) -> list[_Sentence]:
        """The sentences of a passage, unless none is judged by itself or the passage is one and judged as it is."""
        if self._suspicion > 1 or (is_first and len(reading.sentences) == 1):
            return []
        return [
            _Sentence(passage[one.start : one.end], _Judged(tally, one.vector.astype(np.float32), 0.0))
            for tally, one in zip(self._reader.tallies(passage), reading.sentences, strict=True)
        ]

    async def _judge_apart(self, apart: list[list[_Apart]], scores: Floats) -> None:
        """Raises the scores of passages to those of what is judged by itself."""
        texts = [one for each in apart for one in each]
        readings = await self._reader.read([one.text for one in texts])
        judged = [_Judged(one.tally, reading.vector, one.doubt) for one, reading in zip(texts, readings, strict=True)]
        rows = [row for row, each in enumerate(apart) for _ in each]
        np.maximum.at(scores, rows, await _worked(len(texts), partial(self._scores, judged)))

    def _matches(self, passages: list[str], scores: Floats) -> list[Match]:
        matches = []
        for passage, row in zip(passages, scores.tolist(), strict=True):
            end = self.safe + len(passage)
            found = zip(self._categories, row, strict=True)
            matches += [Match(self.safe, end, category, score) for category, score in found]
            self.safe = end
        return matches

    def _scores(self, judged: Sequence[_Judged]) -> Floats:
        """The probabilities of each category that is wanted, shape (judged, categories)."""
        tallies, vectors, doubts = zip(*judged, strict=True)
        counted = [tally.counted() for tally in tallies]
        return self._heads.scores(np.stack(vectors), counted, np.array(doubts, np.float32))[:, self._columns]


async def _worked(passage_count: int, work: Callable[[], T]) -> T:
    """Does what takes a part of a millisecond for each passage, in a thread where that is long."""
    return work() if passage_count <= INLINE_PASSAGES else await asyncio.to_thread(work)
