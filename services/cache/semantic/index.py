"""The nearest entries of a partition, found in memory while entries come and go.

One thread does all searches and changes, in the order in which they were asked for: a search that begins after a change
has ended sees it. A partition that has grown is clustered in a thread of low priority while searches go on in what
there was; so no search ever waits for that, and none is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

import faiss
import numpy as np

from kit.errors import ResourceExhausted
from services.cache.semantic.encoding import Floats
from services.cache.semantic.index_partitions import SIZES, Item, Neighbour, Partition, Partitions, Sizes, replay
from services.cache.semantic.index_rows import SAMPLE_PER_LIST, ManyRows, Numbers

logger = logging.getLogger(__name__)

# Calls that may wait for the thread; more are refused. A search of the largest partition takes milliseconds.
PENDING_MAX: Final = 1024
RETRY_AFTER_MS: Final = 100
# Vectors that go into new lists at once, and changes that may be left for the moment of exchange: 10 ms of work each.
BUILD_ROWS: Final = 4096
LAST_CHANGES_MAX: Final = 128
BUILD_NICENESS: Final = 10

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class IndexSize:
    """What an index holds.

    Attributes:
        entry_count: Entries held.
        partition_count: Partitions that hold one.
        refused_count: Entries that it had no room for since it was made.
        size_bytes: Memory, as counted; that of the process is up to a third more, for lists grow ahead.
    """

    entry_count: int
    partition_count: int
    refused_count: int
    size_bytes: int


class VectorIndex:
    """Searches by cosine within partitions.

    Args:
        dimension: Numbers in a vector.
        entries_max: Most entries held; more are refused.
        sizes: From how many vectors on a partition is kept in which way.

    Errors of every call:
        ResourceExhausted: INDEX_BUSY.
    """

    def __init__(self, dimension: int, entries_max: int, sizes: Sizes = SIZES) -> None:
        self._partitions = Partitions(dimension, entries_max, sizes)
        self._sizes = sizes
        self._thread = ThreadPoolExecutor(1, "index", initializer=_use_one_core)
        self._pending_count = 0
        self._due: list[Partition] = []
        self._building: asyncio.Task[None] | None = None

    async def add(self, items: Iterable[Item]) -> None:
        """Takes vectors, each in place of any that its entry has; some dozens at a time let searches in between."""
        self._due += await self._run(self._partitions.add, items)
        if self._due and self._building is None:
            self._building = asyncio.create_task(self._build_due())

    async def remove(self, entries: Iterable[bytes]) -> int:
        """Forgets entries and counts those that were there; later searches do not find them."""
        return await self._run(self._partitions.remove, entries)

    async def search(self, partition: bytes, vector: Floats, count: int) -> list[Neighbour]:
        """Finds the nearest entries of one partition to a vector of length 1, nearest first."""
        return await self._run(self._partitions.search, partition, vector, count)

    async def size(self) -> IndexSize:
        """Says what is held."""
        return await self._run(self._size)

    async def settled(self) -> None:
        """Waits until nothing is being clustered."""
        while self._building is not None:
            await asyncio.wait([self._building])

    async def close(self) -> None:
        """Ends the thread, after what was asked of it."""
        if self._building is not None:
            self._building.cancel()
            await asyncio.wait([self._building])
        await asyncio.to_thread(self._thread.shutdown)

    async def _run(self, work: Callable[..., Result], *arguments: object) -> Result:
        if self._pending_count >= PENDING_MAX:
            raise ResourceExhausted("INDEX_BUSY", "too many searches wait; retry", retry_after_ms=RETRY_AFTER_MS)
        self._pending_count += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        finally:
            self._pending_count -= 1

    def _size(self) -> IndexSize:
        held = self._partitions
        return IndexSize(len(held), held.partition_count, held.refused_count, held.size_bytes)

    async def _build_due(self) -> None:
        """Clusters one partition after the other, until none is due."""
        try:
            while self._due:
                partition = self._due.pop()
                try:
                    await self._build(partition)
                except Exception:  # the outermost edge of this task: the partition stays as it is, only slower
                    logger.exception("a partition could not be clustered", extra={"entries": len(partition.rows)})
                    await self._run(partition.give_up)
        finally:
            self._building = None

    async def _build(self, partition: Partition) -> None:
        begin = time.monotonic()
        count = await self._run(partition.begin)
        lists = self._sizes.list_count(count)
        stride = max(1, count // (lists * SAMPLE_PER_LIST))
        sample = np.concatenate([vectors[::stride] async for _, vectors in self._parts(partition)])
        rows = await in_background(ManyRows, sample, lists, self._sizes.read_count)
        async for numbers, vectors in self._parts(partition):
            await in_background(rows.add, numbers, vectors)
        while len(changes := await self._run(partition.take_journal)) > LAST_CHANGES_MAX:
            await in_background(replay, rows, changes)
        await self._run(self._partitions.replace, partition, rows, changes)
        if partition.is_due:  # so much came meanwhile
            self._due.append(partition)
        seconds = round(time.monotonic() - begin, 1)
        logger.info("partition clustered", extra={"entries": count, "lists": lists, "seconds": seconds})

    async def _parts(self, partition: Partition) -> AsyncIterator[tuple[Numbers, Floats]]:
        """Copies a partition in pieces of some thousand vectors, between one search and the next."""
        parts = partition.rows.parts()
        pieces: list[tuple[Numbers, Floats]] = []
        while (piece := await self._run(next, parts, None)) is not None:
            pieces.append(piece)
            if sum(len(numbers) for numbers, _ in pieces) >= BUILD_ROWS:
                yield _joined(pieces)
                pieces = []
        if pieces:
            yield _joined(pieces)


async def in_background(work: Callable[..., Result], *arguments: object) -> Result:
    """Runs something long in a thread of low priority, which holds up neither searches nor the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def settle(outcome: Result | BaseException) -> None:
        if future.done():
            return
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def run() -> None:
        _use_one_core()
        with contextlib.suppress(OSError, AttributeError):  # only Linux has a priority for each thread
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BUILD_NICENESS)
        try:
            outcome: Result | BaseException = work(*arguments)
        except Exception as error:  # the outermost edge of the thread: who waits gets the error
            outcome = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="index-build", daemon=True).start()
    return await future


def _joined(pieces: list[tuple[Numbers, Floats]]) -> tuple[Numbers, Floats]:
    return np.concatenate([numbers for numbers, _ in pieces]), np.concatenate([vectors for _, vectors in pieces])


def _use_one_core() -> None:
    faiss.omp_set_num_threads(1)
