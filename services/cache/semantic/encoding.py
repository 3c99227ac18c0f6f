"""A vector as a store keeps it: 16-bit floats, half the bytes of what the encoder gives.

Rounding moves a cosine by some 1e-5, far less than lies between two answers. Nothing here knows which space a vector is
of: an entry says that beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]

# The same bytes on every machine that shares a store.
STORED: Final = np.dtype("<f2")
# How far from 1 the length of a vector may be that is one; damage is caught before, by the entry's checksum.
LENGTH_TOLERANCE: Final = 0.01


def to_bytes(vector: Floats) -> bytes:
    """Writes a vector of length 1."""
    return vector.astype(STORED).tobytes()


def from_bytes(data: bytes, dimension: int) -> Floats | None:
    """Reads a vector; None if the bytes are not those of one of this dimension, of length 1."""
    if len(data) != dimension * STORED.itemsize:
        return None
    vector = np.frombuffer(data, STORED).astype(np.float32)
    return vector if abs(float(np.linalg.norm(vector)) - 1) < LENGTH_TOLERANCE else None
