"""Places in the KV cache: contiguous runs of token positions, each a power of two long.

A buddy allocator, so that the rows of a batch can be read where they lie: extents of one size that are neighbours are
one strided tensor, and no row is longer than twice another of its size. It hands out numbers and never touches memory.
"""

from __future__ import annotations

from dataclasses import dataclass

# Positions of the smallest extent: a short question and its answer.
EXTENT_TOKENS_MIN = 32


@dataclass(frozen=True, slots=True)
class Extent:
    """Positions `start` to `start + size`; `start` is a multiple of `size`."""

    start: int
    size: int


class Extents:
    """The positions of one cache."""

    def __init__(self, token_count: int) -> None:
        """`token_count` positions, rounded down to whole extents of the smallest size."""
        self.token_count = token_count - token_count % EXTENT_TOKENS_MIN
        self.size_max = 1 << (self.token_count.bit_length() - 1) if self.token_count else 0
        self._free: dict[int, set[int]] = {}
        start, size = 0, self.size_max
        while start < self.token_count:
            if start + size <= self.token_count:
                self._free[size] = {start}
                start += size
            size //= 2

    @property
    def free_token_count(self) -> int:
        """Positions that nobody holds."""
        return sum(size * len(starts) for size, starts in self._free.items())

    def take(self, token_count: int) -> Extent | None:
        """Takes the lowest extent of at least so many positions; None where there is none."""
        size = _rounded(token_count)
        found = min((other for other, starts in self._free.items() if other >= size and starts), default=0)
        if not found:
            return None
        start = min(self._free[found])
        self._free[found].remove(start)
        while found > size:  # the upper halves stay free
            found //= 2
            self._free.setdefault(found, set()).add(start + found)
        return Extent(start, size)

    def extend(self, extent: Extent) -> Extent | None:
        """Doubles an extent where it lies; None where its neighbour above is taken or is not its buddy."""
        above = extent.start + extent.size
        if extent.start % (2 * extent.size) or above not in self._free.get(extent.size, ()):
            return None
        self._free[extent.size].remove(above)
        return Extent(extent.start, 2 * extent.size)

    def give_back(self, extent: Extent) -> None:
        """Frees an extent and joins it with its buddy, as far as that goes."""
        start, size = extent.start, extent.size
        while start ^ size in self._free.get(size, ()):
            self._free[size].remove(start ^ size)
            start, size = start & ~size, 2 * size
        starts = self._free.setdefault(size, set())
        assert start not in starts, "an extent was given back twice"
        starts.add(start)


def _rounded(token_count: int) -> int:
    return max(EXTENT_TOKENS_MIN, 1 << (token_count - 1).bit_length())
