"""The reader: one pass for all who ask, nothing twice, and failures that are not remembered."""

import asyncio

import numpy as np
import pytest

from kit.encoder import Encoded
from kit.errors import InvalidArgument, Unavailable
from services.safety.learned.features import Hints
from services.safety.learned.passages import Pieces, sentence_spans
from services.safety.learned.reading import Reader


class FakeEncoder:
    """Says how long a text is; refuses long ones; can be made to wait or to fail."""

    def __init__(self, length_max: int = 1000) -> None:
        self.passes: list[list[str]] = []
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self._length_max = length_max

    async def token_states(self, texts):
        self.passes.append(list(texts))
        self.asked.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        if any(len(text) > self._length_max for text in texts):
            raise InvalidArgument("texts[0]", "too long", reason="CONTEXT_LENGTH_EXCEEDED")
        nothing = np.zeros((0, 1), np.float32)
        return [Encoded(np.array([len(text)], np.float32), nothing, np.zeros((0, 2), np.int32)) for text in texts]


@pytest.fixture
def encoder():
    return FakeEncoder()


@pytest.fixture
def reader(encoder):
    return Reader(encoder, Hints({}), readings_max=3)


async def test_a_passage_seen_before_costs_nothing(reader, encoder):
    """The second reading of a passage asks the encoder for nothing."""
    await reader.read(["one", "three"])
    readings = await reader.read(["three", "one"])

    assert [reading.vector[0] for reading in readings] == [5, 3]
    assert encoder.passes == [["one", "three"]]


async def test_who_asks_meanwhile_waits_for_the_same_pass(reader, encoder):
    """Two readers of one passage make one pass, and one may leave without taking the other along."""
    encoder.gate.clear()
    first = asyncio.create_task(reader.read(["same"]))
    second = asyncio.create_task(reader.read(["same"]))
    await encoder.asked.wait()
    first.cancel()
    encoder.gate.set()

    assert [reading.vector[0] for reading in await second] == [4]
    assert encoder.passes == [["same"]]


async def test_a_passage_that_is_expected_is_read_before_it_is_complete(reader, encoder):
    """The passage is with the encoder when its last full stop has come, and is not read again behind the blank."""
    passage = "It was agreed that the bridge should open before the rains begin. " * 3
    pieces = Pieces()
    pieces.take(passage[:-1], 0, final=False)
    reader.expect(pieces)
    reader.expect(pieces)
    await encoder.asked.wait()
    await reader.read(pieces.take(passage, 0, final=False))

    assert encoder.passes == [[passage]]


async def test_a_failure_is_not_remembered(reader, encoder):
    """After the encoder failed, the same passage is asked for again."""
    encoder.failure = Unavailable("MODEL_NOT_READY", "loading", retry_after_ms=1)
    with pytest.raises(Unavailable):
        await reader.read(["text"])
    encoder.failure = None

    assert (await reader.read(["text"]))[0].vector[0] == 4


async def test_the_longest_unused_is_forgotten(reader, encoder):
    """No more readings are kept than agreed; the one that was not asked for longest goes first."""
    for passage in ("a", "b", "c", "a", "d"):
        await reader.read([passage])
    await reader.read(["a"])
    await reader.read(["b"])

    assert encoder.passes == [["a"], ["b"], ["c"], ["d"], ["b"]]


async def test_what_the_encoder_cannot_take_whole_is_read_by_halves():
    """A passage with too many tokens is read in pieces, and its vector is their mean."""
    reader = Reader(FakeEncoder(length_max=3), Hints({}))

    assert (await reader.read(["12345678"]))[0].vector[0] == 2


async def test_sentences_of_what_is_read_by_halves_are_those_of_the_whole():
    """A cut in the middle of a passage adds none, so that what is counted in each belongs to it."""
    passage = "one two three four five six. seven! eight nine ten?"
    (reading,) = await Reader(FakeEncoder(length_max=9), Hints({})).read([passage])

    assert [(one.start, one.end) for one in reading.sentences] == sentence_spans(passage)
    assert len(reading.sentences) == 3


async def test_what_would_take_much_room_is_not_kept(reader, encoder):
    """A passage of nothing but full stops has a hundred sentences, each with a vector of its own."""
    for _ in range(2):
        await reader.read(["a. " * 100])

    assert len(encoder.passes) == 2
