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
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np

from services.safety.detectors.detector import Match, Wakes
from services.safety.learned.backwards import turned
from services.safety.learned.features import Floats, Tallies, Tally, count
from services.safety.learned.heads import Heads, pooled
from services.safety.learned.passages import PASSAGE_MAX, Pieces
from services.safety.learned.reading import INLINE_PASSAGES, Reader, Reading, handed_over, work_of

# How many passages a window reaches over: about 400 words. The heads were trained on as much.
WINDOW_PASSAGES = 8

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
# When words are counted of a passage that is expected: while the encoder works.
HANDOVER_S = 0.001

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


class _Told(NamedTuple):
    """A text to be judged, and by how much its log odds are lowered: what of it needs no model."""

    text: str
    tally: Tally
    doubt: float


class _Passages(NamedTuple):
    """Passages to be judged, as far as that needs no model.

    Attributes:
        windows: What ends with each passage.
        sentences: Those of each passage that are judged where they stand.
        backwards: What each passage may mean that is judged by itself.
        told: What words and letters say of all windows, and of all sentences behind them.
    """

    windows: list[_Told]
    sentences: list[list[_Told]]
    backwards: list[list[_Told]]
    told: Floats


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
        self._tallies: deque[Tally] = deque(maxlen=window_passages)
        self._vectors: deque[Floats] = deque(maxlen=window_passages)

    @property
    def wakes(self) -> Wakes:
        """See `detector.AwaitedCursor`."""
        return self._pieces.wakes

    def begin(self, text: str, offset: int, final: bool) -> Awaitable[list[Match]] | None:
        """See `detector.AwaitedCursor.begin`."""
        complete = self._pieces.take(text, offset, final)
        if complete:
            return self._judge(complete, final)
        if passage := self._reader.expect(self._pieces):
            asyncio.get_running_loop().call_later(HANDOVER_S, self._reader.tallies, passage)
        return None

    async def _judge(self, passages: list[str], is_end: bool) -> list[Match]:
        places = self._reader.begin(passages)
        await handed_over()
        work = work_of(passages)
        known = await _worked(work, partial(self._look, passages, is_end))
        readings = await self._reader.finish(places)
        scores, apart = await _worked(work, partial(self._judge_in_place, known, readings))
        if any(apart):
            await self._judge_apart(apart, scores)
        return self._matches(passages, scores)

    def _look(self, passages: list[str], is_end: bool) -> _Passages:
        """Sees to all that needs no model, while the encoder works."""
        windows: list[_Told] = []
        sentences: list[list[_Told]] = []
        for left, passage in zip(range(len(passages))[::-1], passages, strict=True):
            tallies = self._reader.tallies(passage)
            sentences.append(self._sentences(passage, tallies, self.safe == 0 and not windows))
            self._tallies.append(tallies.whole)
            is_whole = (is_end and not left) or len(self._tallies) == self._tallies.maxlen
            windows.append(_Told(passage, Tally.total(self._tallies), 0.0 if is_whole else self._doubt))
        backwards = [
            [_Told(text, self._reader.tallies(text).whole, 0.0) for text in turned(passage)] for passage in passages
        ]
        return _Passages(windows, sentences, backwards, self._tell([*windows, *chain.from_iterable(sentences)]))

    def _sentences(self, passage: str, tallies: Tallies, is_first: bool) -> list[_Told]:
        """The sentences of a passage, unless none is judged by itself or the passage is one and judged as it is."""
        if self._suspicion > 1 or (is_first and len(tallies.sentences) == 1):
            return []
        each = zip(tallies.spans, tallies.sentences, strict=True)
        return [_Told(passage[start:end], tally, 0.0) for (start, end), tally in each]

    def _judge_in_place(self, known: _Passages, readings: list[Reading]) -> tuple[Floats, list[list[_Told]]]:
        """Scores the window that ends with each passage, and says what of the passage is judged by itself.

        Windows and sentences are scored together: one after the other they read the weights twice.
        """
        vectors = []
        for reading in readings:
            self._vectors.append(reading.vector)
            vectors.append(pooled(self._vectors))
        for reading, sentences in zip(readings, known.sentences, strict=True):
            vectors += [one.vector.astype(np.float32) for one in reading.sentences[: len(sentences)]]
        scores = self._scores(vectors, known.told)
        likely = iter(scores[len(readings) :].max(axis=1, initial=0.0).tolist())
        apart = [
            [*backwards, *(one._replace(doubt=DOUBT) for one in sentences if next(likely) >= self._suspicion)]
            for backwards, sentences in zip(known.backwards, known.sentences, strict=True)
        ]
        return scores[: len(readings)], apart

    async def _judge_apart(self, apart: list[list[_Told]], scores: Floats) -> None:
        """Raises the scores of passages to those of what is judged by itself."""
        texts = [*chain.from_iterable(apart)]
        vectors = [reading.vector for reading in await self._reader.read([one.text for one in texts])]
        rows = [row for row, each in enumerate(apart) for _ in each]
        found = await _worked(len(texts), lambda: self._scores(vectors, self._tell(texts)))
        np.maximum.at(scores, rows, found)

    def _matches(self, passages: list[str], scores: Floats) -> list[Match]:
        matches = []
        for passage, row in zip(passages, scores.tolist(), strict=True):
            end = self.safe + len(passage)
            found = zip(self._categories, row, strict=True)
            matches += [Match(self.safe, end, category, score) for category, score in found]
            self.safe = end
        return matches

    def _tell(self, texts: Sequence[_Told]) -> Floats:
        return self._heads.tell(count([one.tally for one in texts]), [one.doubt for one in texts])

    def _scores(self, vectors: Sequence[Floats], told: Floats) -> Floats:
        """The probabilities of each category that is wanted, shape (texts, categories)."""
        return self._heads.scores(np.stack(vectors), told)[:, self._columns]


async def _worked(passage_count: int, work: Callable[[], T]) -> T:
    """Does what takes a part of a millisecond for each passage, in a thread where that is long."""
    return work() if passage_count <= INLINE_PASSAGES else await asyncio.to_thread(work)
