import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from kit import names
from services.cache.cache import Cache
from services.cache.entry import EntryDraft, Savings
from services.cache.metrics import CacheMetrics
from services.cache.query import LeaseQuery, Query
from tests.cache.conftest import ManualClock, make_key, sqlite_store
from tests.cache.test_cache import QUERY, BrokenStore, make_cache


class Reading:
    """The figures of a cache, as Prometheus would read them now."""

    def __init__(self, cache: Cache) -> None:
        self.metrics = CacheMetrics(cache)
        self._registry = CollectorRegistry()
        self._registry.register(self.metrics)

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)


async def test_figures_are_those_of_the_stats(tmp_path: Path, clock: ManualClock):
    """Lookups by outcome, what hits saved, what was let go and what is held is told, and starts at 0."""
    store = sqlite_store(tmp_path / "entries", clock, entries_max=2)
    await store.open()
    reading = Reading(cache := make_cache(store, clock))
    assert reading.value(names.CACHE_LOOKUPS, outcome="exact") == 0
    assert reading.value(names.CACHE_ENTRIES) is None
    for request in (b"1", b"2", b"3"):
        savings = Savings(3, 4, cost_micro_usd=2_000_000, generation_ms=1_500)
        await cache.keep(EntryDraft(make_key(request=request), "test.v1"), [b"x"], savings)
    await cache.lookup(Query(make_key(request=b"3"), "test.v1"))
    await cache.lookup(QUERY)
    await reading.metrics.measure()
    await store.close()

    for name, labels, value in (
        (names.CACHE_LOOKUPS, {"outcome": "exact"}, 1),
        (names.CACHE_LOOKUPS, {"outcome": "not_found"}, 1),
        (names.CACHE_LOOKUPS, {"outcome": "semantic"}, 0),
        (names.CACHE_STORES, {}, 3),
        (names.CACHE_EVICTIONS, {"reason": "entries"}, 1),
        (names.CACHE_SAVED_TOKENS, {"kind": "completion"}, 4),
        (names.CACHE_SAVED_USD, {}, 2),
        (names.CACHE_SAVED_SECONDS, {}, 1.5),
        (names.CACHE_ENTRIES, {}, 2),
        (names.CACHE_LEASES, {}, 0),
    ):
        assert reading.value(name, **labels) == value, (name, labels)


async def test_figures_are_read_in_any_thread(clock: ManualClock):
    """Prometheus reads in a thread that has no event loop, while a lookup holds a lease."""
    reading = Reading(cache := make_cache(BrokenStore(), clock))
    await cache.lookup(replace(QUERY, lease=LeaseQuery(ttl_s=5)))
    await reading.metrics.measure()

    assert await asyncio.to_thread(reading.value, names.CACHE_LEASES) == 1


async def test_store_that_is_away_is_told(clock: ManualClock):
    """While the store does not answer its size is left out, and it is said to be down."""
    reading = Reading(make_cache(BrokenStore(), clock))
    await reading.metrics.measure()

    assert reading.value(names.CACHE_STORE_UP) == 0
    assert reading.value(names.CACHE_BYTES) is None


@pytest.mark.parametrize(
    "name", [value for key, value in vars(names).items() if key.startswith("CACHE_") and "SEMANTIC" not in key]
)
async def test_every_name_is_told(clock: ManualClock, name: str):
    """No metric of the cache is named that is not there; sizes are told once they were measured."""
    reading = Reading(make_cache(BrokenStore(), clock))
    told = Counter(sample.name for family in reading.metrics.collect() for sample in family.samples)

    assert told[name] or name in (names.CACHE_ENTRIES, names.CACHE_BYTES, names.CACHE_OUTCOME)
