"""The vector index: as exact as comparing everything, apart by partition, and never in the way while it grows."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.errors import MillraceError
from services.cache.semantic.encoding import Floats
from services.cache.semantic.index import PENDING_MAX, VectorIndex
from services.cache.semantic.index_partitions import Item, Neighbour, Partitions, Sizes
from services.cache.semantic.index_rows import ManyRows

DIMENSION = 8
# So that a test goes through all ways in which a partition is kept.
SMALL = Sizes(few_max=8, lists_from=10**9)
CLUSTERED = Sizes(few_max=64, lists_from=2_000, regrowth=4, read_count=500)
DEADLINE_S = 30.0
# 16-bit floats round.
ROUNDING = 2e-3

entries = st.binary(min_size=1, max_size=1)
partitions = st.sampled_from([b"one", b"two", b"three"])
seeds = st.integers(0, 30)
steps = st.one_of(
    st.tuples(st.just("add"), partitions, entries, seeds),
    st.tuples(st.just("remove"), partitions, entries, seeds),
    st.tuples(st.just("search"), partitions, entries, seeds),
)


def direction(seed: int, dimension: int = DIMENSION) -> Floats:
    """A vector of length 1."""
    vector = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def clusters(count: int, dimension: int = 48, *, seed: int = 0) -> Floats:
    """Vectors as texts give them: some hundred topics, and paraphrases around each."""
    random = np.random.default_rng(seed)
    topics = np.random.default_rng(99).normal(size=(200, dimension))
    vectors = topics[random.integers(0, len(topics), count)] + 0.5 * random.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def named(vectors: Floats, partition: bytes = b"p", first: int = 0) -> list[Item]:
    """Items for vectors; an entry's name tells its row."""
    return [Item(partition, b"%d" % row, vector) for row, vector in enumerate(vectors, first)]


class Oracle:
    """What the index stands for: a dictionary, and a comparison with everything in a partition."""

    def __init__(self) -> None:
        self.held: dict[bytes, Item] = {}

    def search(self, partition: bytes, vector: Floats) -> list[float]:
        """The cosines of a partition's entries, highest first."""
        return sorted((float(i.vector @ vector) for i in self.held.values() if i.partition == partition), reverse=True)

    def agrees(self, partition: bytes, vector: Floats, found: list[Neighbour], count: int) -> bool:
        """Whether these are the nearest, each with its own cosine."""
        wanted = self.search(partition, vector)[:count]
        own = [float(self.held[neighbour.entry].vector @ vector) for neighbour in found]
        return (
            all(self.held[neighbour.entry].partition == partition for neighbour in found)
            and np.allclose(own, [neighbour.cosine for neighbour in found], atol=ROUNDING)
            and len(found) == len(wanted)
            and np.allclose(own, wanted, atol=ROUNDING)
        )


@pytest.fixture(autouse=True)
def one_core() -> None:
    """As in the index's own threads: several would wait for each other where the cores are busy."""
    faiss.omp_set_num_threads(1)


@pytest.fixture
async def index() -> AsyncIterator[VectorIndex]:
    """An index that clusters early."""
    index = VectorIndex(48, 100_000, CLUSTERED)
    yield index
    await index.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=20, max_size=120))
def test_it_finds_what_a_comparison_with_everything_finds(script: list[tuple[str, bytes, bytes, int]]) -> None:
    """Whatever is added, replaced, moved between partitions and removed, a search is that of the oracle."""
    held, oracle = Partitions(DIMENSION, 1000, SMALL), Oracle()
    for step, partition, entry, seed in script:
        if step == "add":
            item = Item(partition, entry, direction(seed))
            held.add([item])
            oracle.held[entry] = item
        elif step == "remove":
            assert held.remove([entry]) == int(oracle.held.pop(entry, None) is not None)
        else:
            assert oracle.agrees(partition, direction(seed), held.search(partition, direction(seed), 5), 5)
    for partition in (b"one", b"two", b"three"):
        assert oracle.agrees(partition, direction(7), held.search(partition, direction(7), 300), 300)

    assert len(held) == len(oracle.held)
    assert held.partition_count == len({item.partition for item in oracle.held.values()})
    held.remove(list(oracle.held))
    assert (len(held), held.partition_count, held.size_bytes) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 5, 200])
def test_partitions_never_meet(count: int) -> None:
    """Where every partition holds the same vectors, a search finds its own entries alone, in each size of partition."""
    held = Partitions(DIMENSION, 100_000, SMALL)
    keys = [b"k%d" % at for at in range(40)]
    held.add(Item(key, key + b"/%d" % seed, direction(seed)) for key in keys for seed in range(count))
    for key, seed in itertools.product(keys, range(0, count, 7)):
        found = held.search(key, direction(seed), 10)

        assert found[0].cosine == pytest.approx(1, abs=ROUNDING)
        assert [neighbour.entry.partition(b"/")[0] for neighbour in found] == [key] * min(count, 10)

    assert held.search(b"nobody", direction(0), 10) == []


def test_there_is_a_bound() -> None:
    """Beyond it entries are refused and counted; an entry that is there is replaced all the same."""
    held = Partitions(DIMENSION, 2, SMALL)
    held.add(Item(b"p", entry, direction(1)) for entry in (b"a", b"b", b"c"))
    held.add([Item(b"p", b"a", direction(2))])

    assert (len(held), held.refused_count) == (2, 1)
    assert {neighbour.entry for neighbour in held.search(b"p", direction(2), 9)} == {b"a", b"b"}
    assert held.search(b"p", direction(2), 1)[0].cosine == pytest.approx(1, abs=ROUNDING)


def test_memory_is_counted() -> None:
    """The count is that of the vectors in 16 bits, and of what Python needs to know them."""
    held = Partitions(384, 10_000, Sizes())
    held.add(named(np.stack([direction(seed, 384) for seed in range(3000)])))

    assert 3000 * 768 < held.size_bytes < 3000 * 768 * 1.6


async def test_lists_find_what_is_near(index: VectorIndex) -> None:
    """A clustered partition finds 98 of 100 of the ten nearest, and forgets nothing."""
    vectors, lookups = clusters(6_000), clusters(100, seed=1)
    await index.add(named(vectors))
    await index.settled()
    wanted = np.argsort(-(lookups @ vectors.T), axis=1)[:, :10]
    hits = 0
    for row, lookup in enumerate(lookups):
        found = await index.search(b"p", lookup, 10)
        hits += len({int(neighbour.entry) for neighbour in found} & set(wanted[row].tolist()))

    assert hits >= 980
    assert (await index.size()).entry_count == 6_000
    for row in range(0, 6_000, 50):
        assert (await index.search(b"p", vectors[row], 1))[0].cosine == pytest.approx(1, abs=ROUNDING)


def test_lists_are_due_again_where_many_came_meanwhile() -> None:
    """Lists made for a few thousand vectors do not stay when ten times as many came while they were made."""
    vectors = clusters(CLUSTERED.regrowth * CLUSTERED.lists_from + 1_000)
    held = Partitions(vectors.shape[1], len(vectors), CLUSTERED)
    first = CLUSTERED.lists_from
    [partition] = held.add(named(vectors[:first]))
    made_for = partition.begin()
    rows = ManyRows(vectors[:first], CLUSTERED.list_count(made_for), CLUSTERED.read_count)
    rows.add(np.arange(first), vectors[:first])
    held.add(named(vectors[first:], first=first))
    held.replace(partition, rows, partition.take_journal())

    assert len(partition.rows) == len(vectors)
    assert partition.is_due


async def test_what_changes_while_lists_are_made_is_not_lost(index: VectorIndex) -> None:
    """Entries that come, go or change while a partition is clustered are found, or not, afterwards as before."""
    vectors = clusters(9_000)
    await index.add(named(vectors[:4_000]))
    for begin in range(4_000, 9_000, 100):
        await index.add(named(vectors[begin : begin + 100], first=begin))
        await index.remove([b"%d" % row for row in range(begin - 4_000, begin - 4_000 + 50)])
        await index.add([Item(b"p", b"%d" % (begin - 3_901), vectors[0])])
    await index.settled()
    removed = {begin + row for begin in range(0, 5_000, 100) for row in range(50)}
    changed = {begin + 99 for begin in range(0, 5_000, 100)}

    for row in range(9_000):
        nearest = {neighbour.entry for neighbour in await index.search(b"p", vectors[row], 1)}
        assert (b"%d" % row in nearest) == (row not in removed and row not in changed), row
    near = {int(neighbour.entry) for neighbour in await index.search(b"p", vectors[0], len(changed))}
    assert near == changed
    assert (await index.size()).entry_count == 9_000 - len(removed)


async def test_searches_do_not_wait_for_lists(index: VectorIndex) -> None:
    """While a partition is clustered, searches in it and in others are answered."""
    vectors = clusters(20_000)
    await index.add(named(vectors))
    answered = 0
    clustering = asyncio.create_task(index.settled())
    async with asyncio.timeout(DEADLINE_S):
        while not clustering.done():
            row = answered % len(vectors)
            assert (await index.search(b"p", vectors[row], 1))[0].entry == b"%d" % row
            answered += 1

    assert answered > 10


async def test_an_emptied_partition_stays_empty(index: VectorIndex) -> None:
    """A partition whose entries all go while it is clustered does not come back."""
    vectors = clusters(3_000)
    await index.add(named(vectors))
    await index.remove([b"%d" % row for row in range(3_000)])
    await index.add([Item(b"p", b"new", vectors[0])])
    await index.settled()

    assert await index.search(b"p", vectors[0], 5) == [Neighbour(b"new", pytest.approx(1, abs=ROUNDING))]
    assert (await index.size()).entry_count == 1


async def test_lists_that_cannot_be_made_cost_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Where clustering fails, that is logged, and the partition is searched as before until it has grown."""

    class Impossible(Sizes):
        def list_count(self, count: int) -> int:
            return 2 * count

    vectors = clusters(4_500)
    index = VectorIndex(48, 100_000, Impossible(few_max=64, lists_from=2_000))
    await index.add(named(vectors[:2_000]))
    await index.settled()
    failures = caplog.text.count("a partition could not be clustered")
    await index.add(named(vectors[2_000:3_900], first=2_000))
    await index.settled()

    assert failures == caplog.text.count("a partition could not be clustered") == 1
    assert (await index.search(b"p", vectors[3_000], 1))[0].entry == b"3000"
    await index.add(named(vectors[3_900:], first=3_900))
    await index.settled()
    assert caplog.text.count("a partition could not be clustered") == 2
    await index.close()


async def test_too_many_at_once_are_refused(index: VectorIndex) -> None:
    """The queue for the thread has a bound, and who is within it is answered."""
    calls = [index.search(b"p", direction(1, 48), 1) for _ in range(PENDING_MAX + 1)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    refused = [result for result in results if isinstance(result, MillraceError)]

    assert [error.reason for error in refused] == ["INDEX_BUSY"]
    assert results.count([]) == PENDING_MAX


async def test_closing_while_lists_are_made() -> None:
    """An index that is closed while it clusters ends at once."""
    index = VectorIndex(48, 100_000, CLUSTERED)
    await index.add(named(clusters(20_000)))
    async with asyncio.timeout(DEADLINE_S):
        await index.close()
