"""The index becomes what the store is, however much it has missed."""

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from services.cache.changes import Behind, Change, Removed, Stored
from services.cache.entry import Entry
from services.cache.key import Address
from services.cache.semantic.encoding import to_bytes
from services.cache.semantic.follower import Follower
from services.cache.semantic.index import VectorIndex
from services.cache.semantic.records import Records, partition
from services.cache.semantic.verifiers import Verifiers
from tests.cache.conftest import ManualClock, sqlite_store
from tests.cache.test_semantic_matcher import CONTEXT, until

VERSION, DIMENSION = "test", 8
VECTOR = np.eye(DIMENSION, dtype=np.float32)[0]


class ScriptedStore:
    """A store whose entries and changes the test says, so that changes can be missed."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.told: asyncio.Queue[Change | None] = asyncio.Queue()

    async def outlines(self) -> AsyncGenerator[Entry, None]:
        for entry in list(self.entries):
            yield entry

    async def changes(self) -> AsyncGenerator[Change, None]:
        while (change := await self.told.get()) is not None:
            yield change


class Suite:
    """A follower of a scripted store."""

    def __init__(self, store: ScriptedStore, clock: ManualClock) -> None:
        self.store, self.clock = store, clock
        self.index, self.records = VectorIndex(DIMENSION, 100), Records(VERSION, DIMENSION)
        verifiers = Verifiers(store, VERSION, held_share_max=0.1, clock=clock, random=random.random)  # type: ignore[arg-type]
        self.follower = Follower(store, self.index, self.records, verifiers, clock)  # type: ignore[arg-type]

    async def follow(self, *changes: Change) -> None:
        """Follows until changes have been taken in."""
        for change in (*changes, None):
            self.store.told.put_nowait(change)
        await self.follower.follow()

    async def found(self) -> set[bytes]:
        """The entries that the index knows."""
        home = partition(b"n" * 32, "m", 1, CONTEXT, "test.v1")
        return {neighbour.entry for neighbour in await self.index.search(home, VECTOR, 100)}


@pytest.fixture
async def suite(clock: ManualClock):
    suite = Suite(ScriptedStore(), clock)
    yield suite
    await suite.index.close()


def make_entry(number: int, clock: ManualClock, *, nonce: str = "a", version: str = VERSION) -> Entry:
    """An entry with a vector."""
    return Entry(
        Address(b"t" * 32, b"n" * 32, bytes([number]) * 32),
        nonce,
        "test.v1",
        "m",
        (),
        clock(),
        clock() + 1000,
        clock() + 1000,
        compare_text=f"question {number}",
        context_digest=CONTEXT,
        embedding=to_bytes(VECTOR),
        embedding_version=version,
        canonical_version=1,
    )


async def test_it_reads_what_is_there(suite: Suite):
    """At the start all entries of the store are read."""
    suite.store.entries = [make_entry(number, suite.clock) for number in range(70)]
    await suite.follow(Behind())

    assert len(await suite.found()) == len(suite.records) == 70
    assert suite.follower.hydrated.is_set()


async def test_what_was_missed_is_made_up_for(suite: Suite):
    """After a gap, entries that went are forgotten and those that came or were replaced are read."""
    one, two, three = (make_entry(number, suite.clock) for number in range(3))
    suite.store.entries = [one, two]
    await suite.follow(Behind())
    again = msgspec.structs.replace(two, nonce="b")
    suite.store.entries = [again, three]
    await suite.follow(Behind())

    assert await suite.found() == {two.address.entry, three.address.entry}
    record = suite.records.get(two.address.entry)
    assert record is not None
    assert record.nonce == "b"


async def test_what_expired_before_it_was_told_is_not_taken(suite: Suite):
    """A change that arrives late names an entry that has gone, and takes its predecessor with it."""
    old, new = make_entry(1, suite.clock), msgspec.structs.replace(make_entry(1, suite.clock), nonce="b")
    await suite.follow(Stored(old))
    suite.clock.now_ms = new.gone_ms
    await suite.follow(Stored(new))

    assert await suite.found() == set()
    assert len(suite.records) == 0


async def test_changes_are_followed(suite: Suite):
    """What is stored is found, what is removed is not, and a removal of an older version is none."""
    one, two = make_entry(1, suite.clock), make_entry(2, suite.clock)
    again = msgspec.structs.replace(one, nonce="b")
    await suite.follow(Stored(one), Stored(two), Stored(again), Removed(((one.address, "a"), (two.address, "a"))))

    assert await suite.found() == {one.address.entry}


async def test_vectors_of_another_model_are_left_out(suite: Suite):
    """An entry of another space is not compared with, and takes the place of one that was."""
    await suite.follow(Stored(make_entry(1, suite.clock)))
    assert len(await suite.found()) == 1
    await suite.follow(Stored(make_entry(1, suite.clock, nonce="b", version="other")))

    assert await suite.found() == set()
    assert len(suite.records) == 0


async def test_a_broken_vector_is_left_out(suite: Suite):
    """An embedding that cannot be one is as good as none."""
    await suite.follow(Stored(msgspec.structs.replace(make_entry(1, suite.clock), embedding=b"\x00" * 16)))

    assert len(suite.records) == 0


async def test_expired_entries_are_forgotten(suite: Suite):
    """What the store lets expire without a word is found and forgotten."""
    await suite.follow(Stored(make_entry(1, suite.clock)))
    suite.clock.now_ms += 1000
    await suite.follower.tidy()

    assert await suite.found() == set()


async def test_words_are_counted_per_partition(suite: Suite):
    """How rare a word is depends on the entries of the partition, and on no others'."""
    elsewhere = msgspec.structs.replace(make_entry(2, suite.clock), model="n")
    await suite.follow(Stored(make_entry(1, suite.clock)), Stored(elsewhere))
    here = suite.records.home(partition(b"n" * 32, "m", 1, CONTEXT, "test.v1"))
    assert here is not None
    assert here.entry_count == 1
    suite.records.remove([(make_entry(1, suite.clock).address, None)])

    assert suite.records.home(here.key) is None


async def test_a_real_store_is_followed(tmp_path: Path, clock: ManualClock):
    """On a file the follower hears of entries that are stored and deleted while it runs."""
    store = sqlite_store(tmp_path / "entries.sqlite3", clock)
    await store.open()
    records, index = Records(VERSION, DIMENSION), VectorIndex(DIMENSION, 100)
    verifiers = Verifiers(store, VERSION, held_share_max=0.1, clock=clock, random=random.random)
    follower = Follower(store, index, records, verifiers, clock)
    following = asyncio.create_task(follower.follow())
    await follower.hydrated.wait()
    await store.put(make_entry(1, clock))
    await until(lambda: len(records) == 1)
    await store.close()
    await following
    await index.close()
