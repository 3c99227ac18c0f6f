"""No answer ever crosses a tenant, user, model, context or scope: 100,000 lookups that would notice."""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.cache.cache import Cache, Finish
from services.cache.entry import EntryDraft
from services.cache.key import EntryKey, Namespace
from services.cache.query import Completed, Hit, LeaseQuery, Miss, Query, Restarted
from tests.cache.conftest import ManualClock, RedisServer, redis_store, sqlite_store
from tests.cache.test_cache import chunks_of, make_cache

# Few values that are alike, begin alike, or run into one another when put side by side.
NAMES = ["a", "b", "ab", "aa", "a\0", "\0a", "A", "a.b", "a:b", "ä", "{a}"]
DIGESTS = [bytes([value]) * 32 for value in range(4)]
CALLERS = 40


def random_key(draw: random.Random) -> EntryKey:
    user = draw.choice([None, *NAMES[:4]])
    context = draw.choice([b"", *DIGESTS[:2]])
    namespace = Namespace(draw.choice(NAMES), user)
    return EntryKey(namespace, draw.choice(NAMES[:4]), draw.choice(DIGESTS), draw.randint(1, 2), context)


def answer_to(key: EntryKey) -> list[bytes]:
    return [b"answer to ", repr(key).encode()]


class Crowd:
    """Callers who ask for answers to random keys, whole and streamed, and produce what is missing."""

    def __init__(self, cache: Cache, clock: ManualClock, seed: int) -> None:
        self._cache, self._clock, self._draw = cache, clock, random.Random(seed)
        self._popular = [random_key(self._draw) for _ in range(20)]
        self.hit_count = self.shared_count = self.lookup_count = 0

    async def ask(self, lookup_count: int) -> None:
        """Asks so often, as several callers at once."""
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(self._ask(lookup_count // CALLERS))

    async def _ask(self, lookup_count: int) -> None:
        for _ in range(lookup_count):
            key = self._draw.choice(self._popular) if self._draw.random() < 0.2 else random_key(self._draw)
            query = Query(key, "test.v1", lease=LeaseQuery(ttl_s=30, wait_s=30))
            self.lookup_count += 1
            if self._draw.random() < 0.2:
                await self._stream(key, query)
                continue
            found = await self._cache.lookup(query)
            if isinstance(found, Hit):
                self._note_hit(key, list(found.entry.chunks), found.shared)
            else:
                await self._produce(key, found)

    async def _stream(self, key: EntryKey, query: Query) -> None:
        chunks: list[bytes] = []
        async for event in self._cache.lookup_stream(query):
            if isinstance(event, bytes):
                chunks.append(event)
            elif isinstance(event, Restarted):
                chunks.clear()
            elif isinstance(event, Miss):
                await self._produce(key, event)
            elif isinstance(event, Completed):
                self._note_hit(key, chunks, shared=False)

    def _note_hit(self, key: EntryKey, chunks: list[bytes], shared: bool) -> None:
        assert chunks == answer_to(key)
        self.hit_count += 1
        self.shared_count += shared

    async def _produce(self, key: EntryKey, miss: Miss) -> None:
        """Answers, so or so, or gives up; now and then everything is a little later."""
        assert miss.lease is not None
        self._clock.now_ms += 10
        for _ in range(self._draw.randrange(5)):
            await asyncio.sleep(0)
        way = self._draw.randrange(4)
        draft = EntryDraft(key, "test.v1", ttl_ms=self._draw.randint(1_000, 600_000), stale_for_ms=0)
        if way == 0:
            await self._cache.flights.release(miss.lease.lease_id)
        elif way == 1:
            await self._cache.keep(draft, answer_to(key), None)
        else:
            await self._cache.keep_stream(draft, chunks_of(*answer_to(key), Finish()), miss.lease.lease_id)


@pytest.fixture
async def embedded(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Cache]:
    store = sqlite_store(tmp_path / "entries", clock, entries_max=5_000, hot_bytes_max=600_000)
    await store.open()
    yield make_cache(store, clock)
    await store.close()


async def test_no_answer_crosses_a_key_in_the_embedded_store(embedded: Cache, clock: ManualClock):
    """Of 100,000 lookups over random tenants, users, models, contexts and versions, no hit is another key's answer."""
    crowd = Crowd(embedded, clock, seed=1)
    await crowd.ask(100_000)

    assert crowd.lookup_count == 100_000
    assert crowd.hit_count > 30_000
    assert crowd.shared_count > 20


async def test_no_answer_crosses_a_key_on_redis(shared_redis: RedisServer, clock: ManualClock):
    """On Redis as well, with fewer lookups."""
    shared_redis.command("flushall")
    store = redis_store(shared_redis.url, clock, entries_max=200)
    await store.open()
    crowd = Crowd(make_cache(store, clock), clock, seed=2)
    await crowd.ask(5_000)
    await store.close()

    assert crowd.hit_count > 300
