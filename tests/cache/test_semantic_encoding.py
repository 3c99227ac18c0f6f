"""The cache's vectors: made once for a crowd, remembered for a while, and kept in half the bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from kit.errors import InvalidArgument, MillraceError, Unavailable
from services.cache.semantic.encoding import Floats, TextEncoder, from_bytes, to_bytes


class Encoder:
    """Stands for the model: vectors that tell the text's length, when it may go on."""

    version, dimension = "fake@1", 4

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.may_go = asyncio.Event()
        self.error: MillraceError | None = None

    async def encode(self, texts: Sequence[str]) -> Floats:
        """Makes vectors."""
        self.asked += texts
        await self.may_go.wait()
        if self.error is not None:
            raise self.error
        vectors = np.float32([[len(text), 1, 0, 0] for text in texts])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def encoder() -> Encoder:
    """The fake."""
    return Encoder()


async def test_a_crowd_is_encoded_once(encoder: Encoder) -> None:
    """Callers of the same text share one run of the model, also when one of them leaves."""
    texts = TextEncoder(encoder)
    calls = [asyncio.create_task(texts.vector("hello")) for _ in range(5)]
    await asyncio.sleep(0)
    calls[0].cancel()
    encoder.may_go.set()
    vectors = await asyncio.gather(*calls[1:])

    assert encoder.asked == ["hello"]
    assert {tuple(vector.tolist()) for vector in vectors if vector is not None} == {
        tuple((np.float32([5, 1, 0, 0]) / np.sqrt(np.float32(26))).tolist())
    }


async def test_the_last_are_remembered(encoder: Encoder) -> None:
    """What was asked for lately is not made again; what was not is forgotten."""
    encoder.may_go.set()
    texts = TextEncoder(encoder, remembered_max=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        await texts.vector(text)

    assert encoder.asked == ["a", "b", "c", "b"]


async def test_a_text_that_is_too_long_has_no_vector(encoder: Encoder) -> None:
    """What the model does not read whole is not compared; that is remembered too."""
    encoder.may_go.set()
    encoder.error = InvalidArgument("texts[0]", "too long", reason="CONTEXT_LENGTH_EXCEEDED")
    texts = TextEncoder(encoder)

    assert [await texts.vector("long"), await texts.vector("long")] == [None, None]
    assert encoder.asked == ["long"]


async def test_a_failure_is_not_remembered(encoder: Encoder) -> None:
    """Who waits gets the error; who comes later gets a vector."""
    encoder.may_go.set()
    encoder.error = Unavailable("MODEL_NOT_READY", "loading")
    texts = TextEncoder(encoder)
    with pytest.raises(MillraceError, match="loading"):
        await texts.vector("x")
    encoder.error = None

    assert await texts.vector("x") is not None


def test_vectors_survive_the_store() -> None:
    """A vector comes back from its bytes with its direction, and bytes that are none do not come back."""
    vector = np.random.default_rng(3).normal(size=384).astype(np.float32)
    vector /= np.linalg.norm(vector)
    again = from_bytes(to_bytes(vector), 384)

    assert again is not None
    assert float(again @ vector) == pytest.approx(1, abs=1e-4)
    assert len(to_bytes(vector)) == 768
    assert from_bytes(to_bytes(vector), 383) is None
    assert from_bytes(bytes(768), 384) is None
    assert from_bytes(b"\xff" * 768, 384) is None
