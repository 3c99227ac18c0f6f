"""Reads passages with the encoder, once for all heads and once for all callers.

What is kept of a passage is its numbers, under a digest of its text: the same passage in a later turn of a chat, in
another detector or in another call costs nothing. No text is kept, and nothing outlives the process.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from kit.encoder import Encoded
from kit.errors import InvalidArgument
from services.safety.learned.features import Floats, Hints, Tallies, tallies
from services.safety.learned.marking import Mark, NamesHead
from services.safety.learned.passages import Pieces, sentence_count_max, sentence_spans
from services.safety.learned.words import Words, read_words, states_of
from services.safety.recent import Recent, digest

# A vector is 1.5 KB and that of a sentence half of it, so this is about 35 MB with its book-keeping.
READINGS_MAX = 4096
# A pass with a passage of more sentences is not kept: in a passage of nothing but full stops they take 120 KB.
SENTENCES_MAX = 16
# What is counted in a passage is about 2 KB.
TALLIES_MAX = 512
# More passages than this are counted, scored and searched for names in a thread; each takes a third of a millisecond.
INLINE_PASSAGES = 4
# Of running text; what has more takes longer than its passages tell.
SENTENCES_PER_PASSAGE = 4
# Turns of the loop in which passages reach the encoder's thread, which works while the loop does what needs no model.
HANDOVER_TURNS = 3

T = TypeVar("T")


class TextEncoder(Protocol):
    """What encodes; `kit.encoder.Encoder` is one."""

    async def warm(self) -> None:
        """Loads the model; again and again has no effect."""
        ...

    async def token_states(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """Returns vectors and the states of all tokens, in one pass."""
        ...


class Sentence(NamedTuple):
    """A sentence of a passage: where it is, in code points, and what its tokens came to mean in this company.

    The vector, float16 and of length 1, costs nothing beside the passage's. It tells which sentences are worth a
    reading by themselves: by it alone a third less is found.
    """

    start: int
    end: int
    vector: npt.NDArray[np.float16]

    def moved(self, by: int) -> Sentence:
        """The same behind as many more code points."""
        return self._replace(start=self.start + by, end=self.end + by)


@dataclass(frozen=True, slots=True)
class Reading:
    """What is known of one passage: its vector, float32, shape (dimension,), the names in it and its sentences."""

    vector: Floats
    names: tuple[Mark, ...] = ()
    sentences: tuple[Sentence, ...] = ()


class Reader:
    """Reads passages; belongs to one event loop."""

    def __init__(
        self, encoder: TextEncoder, hints: Hints, names: NamesHead | None = None, readings_max: int = READINGS_MAX
    ) -> None:
        self._encoder = encoder
        self._hints = hints
        self._names = names
        self._readings = Recent[bytes, Place](readings_max)
        self._tallies = Recent[bytes, Tallies](TALLIES_MAX)

    async def warm(self) -> None:
        """Loads the encoder; needed before `read`."""
        await self._encoder.warm()

    async def read(self, passages: Sequence[str]) -> list[Reading]:
        """Begins to read passages, and awaits that.

        Raises:
            MillraceError: The encoder refuses: it is not ready, or too many wait.
        """
        return await self.finish(self.begin(passages))

    def begin(self, passages: Sequence[str]) -> list[Place]:
        """Begins to read passages, those that are new in one pass.

        A pass goes on when who asked for it leaves, for others may wait for it; a failed one is not remembered.
        """
        keys = [digest(passage) for passage in passages]
        places = {key: place for key in keys if (place := self._readings.get(key))}
        new = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in places}
        if new:
            task = asyncio.get_running_loop().create_task(self._encode(list(new.values())))
            places |= {key: Place(task, row) for row, key in enumerate(new)}
            for key in new:
                self._readings.put(key, places[key])
            task.add_done_callback(functools.partial(self._forget, tuple(new)))
        return [places[key] for key in keys]

    def expect(self, pieces: Pieces) -> str | None:
        """Begins to read the first passage of a stream that seems to be complete, and returns it; None when none is."""
        if passage := pieces.expected():
            self.begin([passage])
        return passage

    async def finish(self, places: Sequence[Place]) -> list[Reading]:
        """Awaits what was begun; errors as in `read`."""
        return [(await _result(place.task))[place.row] for place in places]

    def tallies(self, passage: str) -> Tallies:
        """Counts words and letters in a passage and its sentences; heads share the work. Safe for threads."""
        key = digest(passage)
        if (found := self._tallies.get(key)) is None:
            found = tallies(passage, self._hints)
            self._tallies.put(key, found)
        return found

    def _forget(self, keys: tuple[bytes, ...], task: asyncio.Task[list[Reading]]) -> None:
        """Drops what failed, and what would take too much room."""
        has_failed = task.cancelled() or task.exception()
        if has_failed or any(len(reading.sentences) > SENTENCES_MAX for reading in task.result()):
            for key in keys:
                self._readings.drop(key)

    async def _encode(self, passages: list[str]) -> list[Reading]:
        is_short = work_of(passages) <= INLINE_PASSAGES
        looking = asyncio.ensure_future(self._look(passages)) if is_short else None
        try:
            encoded = await self._encoder.token_states(passages)
        except InvalidArgument:  # a script of which one letter is several tokens
            return [await self._by_halves(passage) for passage in passages]
        if looking:
            return self._understand(passages, await looking, encoded)
        return await asyncio.to_thread(lambda: self._understand(passages, map(read_words, passages), encoded))

    async def _look(self, passages: Sequence[str]) -> list[Words]:
        """Reads how words are written, while the encoder works."""
        await handed_over()
        return [read_words(passage) for passage in passages]

    def _understand(self, passages: Sequence[str], words: Iterable[Words], encoded: Sequence[Encoded]) -> list[Reading]:
        mark = self._names.mark if self._names else lambda *_: ()
        return [
            Reading(each.vector, mark(text, known, each), _sentences(text, each))
            for text, known, each in zip(passages, words, encoded, strict=True)
        ]

    async def _by_halves(self, passage: str) -> Reading:
        """Reads a passage in two parts if it must be, and each of them again."""
        try:
            encoded = await self._encoder.token_states([passage])
            return self._understand([passage], [read_words(passage)], encoded)[0]
        except InvalidArgument:
            middle = len(passage) // 2
            if not middle:
                raise
            one, other = [await self._by_halves(half) for half in (passage[:middle], passage[middle:])]
            behind = [mark._replace(start=mark.start + middle, end=mark.end + middle) for mark in other.names]
            sentences = _whole(passage, (*one.sentences, *(sentence.moved(middle) for sentence in other.sentences)))
            vector = np.asarray((one.vector + other.vector) / 2, np.float32)
            return Reading(vector, (*one.names, *behind), sentences)


def _sentences(passage: str, encoded: Encoded) -> tuple[Sentence, ...]:
    spans = sentence_spans(passage)
    vectors = states_of(np.array(spans), encoded) if len(spans) > 1 else encoded.vector[None]
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return tuple(Sentence(*span, vector) for span, vector in zip(spans, vectors.astype(np.float16), strict=True))


def _whole(passage: str, parts: Sequence[Sentence]) -> tuple[Sentence, ...]:
    """The sentences of a passage that was read in two: one that was cut has the mean of its parts."""
    whole = []
    for start, end in sentence_spans(passage):
        inside = [part.vector.astype(np.float32) for part in parts if part.start < end and start < part.end]
        mean = np.mean(inside, axis=0)
        whole.append(Sentence(start, end, (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float16)))
    return tuple(whole)


def work_of(passages: Sequence[str]) -> int:
    """How many passages of running text are about as much work."""
    return max(len(passages), sum(map(sentence_count_max, passages)) // SENTENCES_PER_PASSAGE)


async def handed_over() -> None:
    """Waits until the encoder's thread has what was begun."""
    for _ in range(HANDOVER_TURNS):
        await asyncio.sleep(0)


async def _result(task: asyncio.Task[T]) -> T:
    """Awaits a task that goes on without whoever awaits it."""
    return task.result() if task.done() else await asyncio.shield(task)


class Place(NamedTuple):
    """Where a reading is, or will be: a row of a pass."""

    task: asyncio.Task[list[Reading]]
    row: int
