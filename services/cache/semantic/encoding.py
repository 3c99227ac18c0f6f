"""The vectors of the texts that the cache compares: where they come from, and how a store keeps them.

A text that missed is stored with its answer a moment later, and a crowd asks the same at once: so the last vectors are
remembered, and one that is being made is made once. Stores keep 16-bit floats, half the bytes; rounding moves a cosine
by some 1e-5, far less than lies between two answers. Vectors of two versions never meet: that is for their users to
see to.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from kit import minilm
from kit.encoder import Encoder, load
from kit.errors import InvalidArgument
from kit.sentence_model import Precision

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

# Two thirds of the time of float32 where the index has driven the weights out of the processor's cache, and cosines
# that differ by 0.003 on average; int8 without blocks takes half and moves them by 0.011 (docs/semantic-cache.md).
PRECISION: Final[Precision] = "int8_blocks"
# Vectors that are remembered, of 1.5 KB each: some seconds of lookups.
REMEMBERED_MAX: Final = 1024
# The same bytes on every machine that shares a store.
STORED: Final = np.dtype("<f2")
# How far from 1 the length of a vector may be that is one; damage is caught before, by the entry's checksum.
LENGTH_TOLERANCE: Final = 0.01


class Encodes(Protocol):
    """Turns texts into vectors of length 1, as `kit.encoder.Encoder` does."""

    @property
    def version(self) -> str:
        """Names the space of the vectors."""

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""

    async def encode(self, texts: Sequence[str]) -> Floats:
        """Returns the vectors, shape (texts, dimension); refuses a text that is too long with InvalidArgument."""


class TextEncoder:
    """Makes vectors, and remembers the last."""

    def __init__(self, encoder: Encodes, remembered_max: int = REMEMBERED_MAX) -> None:
        self._encoder, self._remembered_max = encoder, remembered_max
        self._recent: OrderedDict[bytes, asyncio.Future[Floats | None]] = OrderedDict()

    @property
    def version(self) -> str:
        """Names the space of the vectors; an entry carries it, and only its own version finds it."""
        return self._encoder.version

    @property
    def dimension(self) -> int:
        """Numbers in a vector."""
        return self._encoder.dimension

    async def vector(self, text: str) -> Floats | None:
        """Returns a text's vector, of length 1; None where it is longer than the model reads.

        Raises:
            ResourceExhausted: QUEUE_FULL.
            Unavailable: MODEL_NOT_READY or SHUTTING_DOWN.
        """
        key = hashlib.blake2b(text.encode(), digest_size=16).digest()
        making = self._recent.get(key)
        if making is None:
            making = self._recent[key] = asyncio.ensure_future(self._make(text))
            making.add_done_callback(lambda made: self._forget_failed(key, made))
            if len(self._recent) > self._remembered_max:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(key)
        return await asyncio.shield(making)  # whoever leaves takes nothing from the others

    async def _make(self, text: str) -> Floats | None:
        try:
            vector: Floats = (await self._encoder.encode([text]))[0]
        except InvalidArgument:
            return None
        return vector

    def _forget_failed(self, key: bytes, made: asyncio.Future[Floats | None]) -> None:
        """A failure is told to who waits, and to nobody later."""
        failed = made.cancelled() or made.exception() is not None
        if failed and self._recent.get(key) is made:
            del self._recent[key]


def text_model(name: str = minilm.NAME, *, threads: int = 1) -> Encoder:
    """The model whose vectors the cache compares; it loads when it is warmed."""
    return Encoder(name, threads=threads, load=partial(load, precision=PRECISION))


def to_bytes(vector: Floats) -> bytes:
    """Writes a vector of length 1."""
    return vector.astype(STORED).tobytes()


def from_bytes(data: bytes, dimension: int) -> Floats | None:
    """Reads a vector; None if the bytes are not those of one of this dimension, of length 1."""
    if len(data) != dimension * STORED.itemsize:
        return None
    vector = np.frombuffer(data, STORED).astype(np.float32)
    return vector if abs(float(np.linalg.norm(vector)) - 1) < LENGTH_TOLERANCE else None
