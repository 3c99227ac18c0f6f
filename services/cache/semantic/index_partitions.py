"""Vectors of entries, apart by partition: a search sees its own partition and nothing else.

A partition is an opaque key that stands for all that must be equal (namespace, model, context, space of the vectors).
Its vectors lie in structures of their own, so that no filter can fail. Everything here runs in one thread and takes
milliseconds at most; what takes longer (clustering a partition that has grown) is only noted as due, and is done
elsewhere while `journal` keeps what changes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from services.cache.semantic.encoding import Floats
from services.cache.semantic.index_rows import READ_COUNT, FewRows, ManyRows, Numbers, Rows

# Python objects that an entry and a partition need beside their vectors: two bytes objects, dict and list slots.
ENTRY_BYTES: Final = 230
PARTITION_BYTES: Final = 900


@dataclass(frozen=True, slots=True)
class Sizes:
    """From how many vectors on a partition is kept in which way.

    Attributes:
        few_max: Most in a plain array, which is read as 16-bit floats at each search.
        lists_from: Fewest that are clustered; below, all are compared within some milliseconds.
        regrowth: Lists are made anew when there are so many times more vectors than those they were made for.
        read_count: How many vectors a search of lists reads at most, about.
    """

    few_max: int = 1024
    lists_from: int = 20_000
    regrowth: int = 8
    read_count: int = READ_COUNT

    def list_count(self, count: int) -> int:
        """How many lists to make for so many vectors that are to grow further: a power of two."""
        return 1 << round(2 * sqrt(count * self.regrowth)).bit_length() - 1


SIZES: Final = Sizes()

# A number's new vector, or None where it was removed.
Change = tuple[int, Floats | None]


@dataclass(frozen=True, slots=True)
class Item:
    """An entry's vector, of length 1, and where it belongs."""

    partition: bytes
    entry: bytes
    vector: Floats


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry near what was searched for."""

    entry: bytes
    cosine: float


class Partition:
    """The vectors of one partition.

    Attributes:
        journal: What has changed since its lists began to be made anew; None while they are not.
        due_count: How many vectors make new lists due: a multiple of those that the last were made for, however many
            came meanwhile.
    """

    __slots__ = ("_sizes", "due_count", "journal", "key", "rows")

    def __init__(self, key: bytes, dimension: int, sizes: Sizes) -> None:
        self.key = key
        self.rows: Rows = FewRows(dimension)
        self.journal: list[Change] | None = None
        self.due_count = sizes.lists_from
        self._sizes = sizes

    @property
    def is_due(self) -> bool:
        """Whether its lists should be made anew."""
        return self.journal is None and len(self.rows) >= self.due_count

    def add(self, number: int, vector: Floats) -> None:
        """Takes a vector."""
        self.rows.add(np.array([number], np.int64), vector[None])
        if self.journal is not None:
            self.journal.append((number, vector))
        elif len(self.rows) > self._sizes.few_max and isinstance(self.rows, FewRows):
            self._use_one_list()

    def remove(self, number: int) -> None:
        """Forgets a vector that is there."""
        self.rows.remove(number)
        if self.journal is not None:
            self.journal.append((number, None))

    def begin(self) -> int:
        """Begins to note changes, and counts the vectors."""
        self.journal = []
        self.due_count = self._sizes.regrowth * len(self.rows)
        return len(self.rows)

    def take_journal(self) -> list[Change]:
        """Returns what has changed since it was last asked."""
        changes, self.journal = self.journal or [], []
        return changes

    def give_up(self) -> None:
        """Stays as it is until it has grown further."""
        self.journal = None
        self.due_count = 2 * len(self.rows)

    def _use_one_list(self) -> None:
        (numbers, vectors), *_ = self.rows.parts()
        self.rows = ManyRows(vectors)
        self.rows.add(numbers, vectors)


class Partitions:
    """All partitions, and which entry is where."""

    def __init__(self, dimension: int, entries_max: int, sizes: Sizes) -> None:
        self.refused_count = 0
        self.size_bytes = 0
        self._dimension, self._entries_max, self._sizes = dimension, entries_max, sizes
        self._partitions: dict[bytes, Partition] = {}
        # faiss knows entries by number: an entry's is its place in these two, and is used again when it has gone.
        self._entries: list[bytes] = []
        self._homes: list[Partition | None] = []
        self._free: list[int] = []
        self._numbers: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def partition_count(self) -> int:
        """Partitions that hold an entry."""
        return len(self._partitions)

    def add(self, items: Iterable[Item]) -> list[Partition]:
        """Takes vectors, in place of any that their entries have; those beyond the bound are refused, and counted.

        Returns:
            Partitions whose lists are due.
        """
        due: dict[bytes, Partition] = {}
        for item in items:
            self.remove([item.entry])
            if len(self) >= self._entries_max:
                self.refused_count += 1
                continue
            partition = self._add(item)
            if partition.is_due:
                due[partition.key] = partition
        return list(due.values())

    def remove(self, entries: Iterable[bytes]) -> int:
        """Forgets entries, wherever they are, and counts those that were there."""
        numbers = [number for entry in entries if (number := self._numbers.pop(entry, None)) is not None]
        for number in numbers:
            partition = self._homes[number]
            assert partition is not None, "an entry that has a number has a home"
            self._homes[number] = None
            self._free.append(number)
            before = partition.rows.size_bytes
            partition.remove(number)
            self.size_bytes += partition.rows.size_bytes - before - ENTRY_BYTES
            if not len(partition.rows):
                del self._partitions[partition.key]
                self.size_bytes -= partition.rows.size_bytes + PARTITION_BYTES
        return len(numbers)

    def search(self, key: bytes, vector: Floats, count: int) -> list[Neighbour]:
        """Finds the nearest entries of one partition, nearest first."""
        partition = self._partitions.get(key)
        if partition is None:
            return []
        numbers, cosines = partition.rows.search(vector, count)
        return [
            Neighbour(self._entries[number], min(1.0, max(-1.0, cosine)))
            for number, cosine in zip(numbers.tolist(), cosines.tolist(), strict=True)
        ]

    def replace(self, partition: Partition, rows: ManyRows, changes: Sequence[Change]) -> None:
        """Puts rows with new lists in the place of a partition's own, when they lack no more than some changes."""
        if self._partitions.get(partition.key) is not partition:  # emptied meanwhile
            return
        replay(rows, [*changes, *partition.take_journal()])
        self.size_bytes += rows.size_bytes - partition.rows.size_bytes
        partition.rows, partition.journal = rows, None

    def _add(self, item: Item) -> Partition:
        partition = self._partitions.get(item.partition)
        if partition is None:
            partition = self._partitions[item.partition] = Partition(item.partition, self._dimension, self._sizes)
            self.size_bytes += partition.rows.size_bytes + PARTITION_BYTES
        number = self._number(item.entry, partition)
        before = partition.rows.size_bytes
        partition.add(number, item.vector)
        self.size_bytes += partition.rows.size_bytes - before + ENTRY_BYTES
        return partition

    def _number(self, entry: bytes, partition: Partition) -> int:
        if self._free:
            number = self._free.pop()
            self._entries[number], self._homes[number] = entry, partition
        else:
            number = len(self._entries)
            self._entries.append(entry)
            self._homes.append(partition)
        self._numbers[entry] = number
        return number


def replay(rows: ManyRows, changes: Sequence[Change]) -> None:
    """Does to rows what was done to others; what they have already, or never had, does no harm."""
    last = dict(changes)
    for number in last:
        rows.remove(number)
    kept = [(number, vector) for number, vector in last.items() if vector is not None]
    if kept:
        numbers: Numbers = np.array([number for number, _ in kept], np.int64)
        rows.add(numbers, np.stack([vector for _, vector in kept]))
