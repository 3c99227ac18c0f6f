"""Two ways to keep the vectors of one partition: few in a plain array, many in lists of neighbours.

Both hold 16-bit floats under numbers that the caller chooses, and find the nearest by cosine. Neither locks anything or
knows what a number stands for: one thread at a time, and numbers are never in twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol, TypeVar

import faiss
import numpy as np
import numpy.typing as npt

from services.cache.semantic.encoding import Floats, Halves

Numbers = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)

# What faiss keeps for a vector beside its numbers: its number, and where it is (one node of a hash table).
RECORD_BYTES: Final = 8 + 40
# An empty index of faiss, and the vector that stands for one of its lists.
INDEX_BYTES: Final = 4_000
LIST_BYTES: Final = 64
# Most vectors that k-means looks at for each list, and its rounds: more of either finds no more neighbours.
SAMPLE_PER_LIST: Final = 32
TRAINING_ROUNDS: Final = 6
# Vectors that a search reads, about, in as many lists as that takes. Of a million clustered ones in 2,048 lists, made
# when they were 160,000, that finds 98.3 % of the ten nearest, and 99.6 % of those nearer than 0.8.
READ_COUNT: Final = 20_000
# Smaller ones need fewer: a tenth of 100,000 finds 99.7 % of the ten nearest even where nothing is nearer than 0.8, in
# half of the time.
READ_PART: Final = 10
READ_COUNT_MIN: Final = 5_000


class Rows(Protocol):
    """The vectors of one partition."""

    @property
    def size_bytes(self) -> int:
        """Memory held, about."""

    def __len__(self) -> int:
        """How many vectors there are."""

    def add(self, numbers: Numbers, vectors: Floats) -> None:
        """Takes vectors of length 1, shape (numbers, dimension)."""

    def remove(self, number: int) -> None:
        """Forgets a vector that is there."""

    def search(self, vector: Floats, count: int) -> tuple[Numbers, Floats]:
        """Finds the nearest: their numbers and cosines, nearest first."""

    def parts(self) -> Iterator[tuple[Numbers, Floats]]:
        """Copies what is there, part by part; a vector that is moved or added between two parts may be left out."""


class FewRows:
    """An array that doubles; searched whole. Takes little more memory than its vectors, down to a single one."""

    def __init__(self, dimension: int) -> None:
        self._numbers: Numbers = np.empty(1, np.int64)
        self._vectors: Halves = np.empty((1, dimension), np.float16)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """Memory held, about."""
        return self._numbers.nbytes + self._vectors.nbytes

    def add(self, numbers: Numbers, vectors: Floats) -> None:
        """Puts vectors behind the others."""
        end = self._count + len(numbers)
        if end > len(self._numbers):
            capacity = max(end, 2 * len(self._numbers))
            self._numbers = _grown(self._numbers, capacity)
            self._vectors = _grown(self._vectors, capacity)
        self._numbers[self._count : end] = numbers
        self._vectors[self._count : end] = vectors
        self._count = end

    def remove(self, number: int) -> None:
        """Puts the last vector in the place of one that goes."""
        row, last = int(np.flatnonzero(self._numbers[: self._count] == number)[0]), self._count - 1
        self._numbers[row], self._vectors[row] = self._numbers[last], self._vectors[last]
        self._count = last

    def search(self, vector: Floats, count: int) -> tuple[Numbers, Floats]:
        """Compares with every vector."""
        cosines: Floats = self._vectors[: self._count].astype(np.float32) @ vector
        best = np.argsort(-cosines, kind="stable")[:count]
        return self._numbers[best], cosines[best]

    def parts(self) -> Iterator[tuple[Numbers, Floats]]:
        """Copies everything at once."""
        yield self._numbers[: self._count].copy(), self._vectors[: self._count].astype(np.float32)


class ManyRows:
    """Lists of neighbours; a search reads those whose middle is nearest, or the only one there is.

    Source: inverted file with exact vectors (IVF), as in Johnson et al. 2017, arXiv 1702.08734.
    """

    def __init__(self, sample: Floats, list_count: int = 1, read_count: int = READ_COUNT) -> None:
        """Makes the lists of the clusters of a sample, shape (rows, dimension); slow where there are many."""
        dimension = sample.shape[1]
        self._middles = faiss.IndexFlatIP(dimension)
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            self._middles,
            dimension,
            list_count,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,  # by_residual: the vectors themselves are kept, so that cosines are exact
        )
        self._index.cp.niter = TRAINING_ROUNDS
        self._index.cp.max_points_per_centroid = SAMPLE_PER_LIST
        self._index.cp.min_points_per_centroid = 1
        if list_count == 1:
            self._middles.add(np.zeros((1, dimension), np.float32))
        self._index.train(sample)
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)  # type: ignore[attr-defined]  # its stubs forgot it
        self._read_count = read_count

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def size_bytes(self) -> int:
        """Memory held, about: faiss does not say how far its lists have grown ahead."""
        list_bytes = self._index.nlist * (4 * self._index.d + LIST_BYTES)
        return int(INDEX_BYTES + list_bytes + len(self) * (self._index.code_size + RECORD_BYTES))

    def add(self, numbers: Numbers, vectors: Floats) -> None:
        """Puts each vector into the list whose middle is nearest."""
        self._index.add_with_ids(np.ascontiguousarray(vectors), numbers)

    def remove(self, number: int) -> None:
        """Takes a vector out of its list."""
        self._index.remove_ids(np.array([number], np.int64))

    def search(self, vector: Floats, count: int) -> tuple[Numbers, Floats]:
        """Compares with the vectors of the nearest lists."""
        lists, held = int(self._index.nlist), max(1, len(self))
        read_count = min(self._read_count, max(READ_COUNT_MIN, held // READ_PART))
        self._index.nprobe = min(lists, max(1, lists * read_count // held))
        cosines, numbers = self._index.search(vector[None], count)
        found = numbers[0] >= 0
        return numbers[0][found], cosines[0][found]

    def parts(self) -> Iterator[tuple[Numbers, Floats]]:
        """Copies list by list."""
        lists = self._index.invlists
        for at in range(self._index.nlist):
            size = lists.list_size(at)
            if size:
                numbers = faiss.rev_swig_ptr(lists.get_ids(at), size).copy()
                codes = faiss.rev_swig_ptr(lists.get_codes(at), size * self._index.code_size)
                yield numbers, codes.view(np.float16).reshape(size, -1).astype(np.float32)


def _grown(array: npt.NDArray[Scalar], capacity: int) -> npt.NDArray[Scalar]:
    larger = np.empty((capacity, *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
