"""What the cache has done, as Prometheus reads it: the same figures as GetStats, all tenants together.

They are read when Prometheus asks, in a thread of its own; a lookup pays nothing for them. What only the event loop can
tell (sizes, leases) is measured now and then. No label holds a tenant's name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kit import names
from services.cache.cache import Cache
from services.cache.query import HitKind, MissReason
from services.cache.store import Size, StoreUnavailable
from services.cache.worth import EvictionReason

if TYPE_CHECKING:  # see cache.py
    from services.cache.semantic.estimate import Estimate
    from services.cache.semantic.matcher import Matcher

# How often what is held is counted: on Redis that is one call for each tenant.
MEASURE_INTERVAL_S: Final = 30.0

Kind = TypeVar("Kind", bound=IntEnum)


class CacheMetrics(Collector):
    """The figures of one cache."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._size: Size | None = None
        self._lease_count = 0
        self._error: Estimate | None = None

    def collect(self) -> Iterator[Metric]:
        """Yields every figure as it is now."""
        cache, tally = self._cache, self._cache.stats.tally(None)
        outcomes = {**_by_name(HitKind, tally.hits), **_by_name(MissReason, tally.misses)}
        evictions = _by_name(EvictionReason, cache.store.evictions)
        tokens = {"prompt": tally.saved_prompt_token_count, "completion": tally.saved_completion_token_count}
        yield _counts(names.CACHE_LOOKUPS, "Lookups answered.", names.LABEL_OUTCOME, outcomes)
        yield _count(names.CACHE_SHARED_HITS, "Hits whose answer was in the making.", tally.shared_count)
        yield _count(names.CACHE_REFRESHES, "Leases given to produce an answer anew.", tally.refresh_count)
        yield _count(names.CACHE_STORES, "Answers stored.", tally.store_count)
        yield _count(names.CACHE_FALSE_HITS, "Entries reported as false hits.", tally.false_hit_count)
        yield _counts(names.CACHE_EVICTIONS, "Entries let go.", names.LABEL_REASON, evictions)
        yield _counts(names.CACHE_SAVED_TOKENS, "Tokens that hits saved.", names.LABEL_TOKEN_KIND, tokens)
        yield _count(names.CACHE_SAVED_USD, "Money that hits saved.", tally.saved_cost_micro_usd / 1_000_000)
        yield _count(names.CACHE_SAVED_SECONDS, "Generation time that hits saved.", tally.saved_generation_ms / 1000)
        yield GaugeMetricFamily(names.CACHE_LEASES, "Leases held by callers.", self._lease_count)
        yield GaugeMetricFamily(names.CACHE_STORE_UP, "Whether the store answers.", int(cache.store.available))
        if cache.matcher is not None:
            yield from self._semantic(cache.matcher)
        if self._size is not None:
            yield GaugeMetricFamily(names.CACHE_ENTRIES, "Entries held.", self._size.entry_count)
            yield GaugeMetricFamily(names.CACHE_BYTES, "Bytes held.", self._size.size_bytes)

    def _semantic(self, matcher: Matcher) -> Iterator[Metric]:
        yield GaugeMetricFamily(names.CACHE_SEMANTIC_ENTRIES, "Entries found by similarity.", len(matcher.records))
        alarms = matcher.verifiers.alarm_count
        yield _count(names.CACHE_SEMANTIC_ALARMS, "Times that hits were found to have become wrong.", alarms)
        if self._error is not None:
            error = self._error
            help_text = "Wrong answers among semantic hits, as estimated, with the 95 % interval."
            family = GaugeMetricFamily(names.CACHE_SEMANTIC_ERROR, help_text, labels=[names.LABEL_END])
            for end, value in {"share": error.share, "low": error.low, "high": error.high}.items():
                family.add_metric([end], value)
            yield family

    async def measure(self) -> None:
        """Counts what is held, and estimates what was wrong."""
        self._lease_count = self._cache.flights.lease_count
        if self._cache.matcher is not None:
            self._error = self._cache.matcher.verifiers.estimate(None)
        try:
            self._size = await self._cache.store.size(None)
        except StoreUnavailable:
            self._size = None

    async def keep_measuring(self) -> None:
        """Counts what is held, again and again; to be run as a task."""
        while True:
            await self.measure()
            await asyncio.sleep(MEASURE_INTERVAL_S)


def _by_name(kind: type[Kind], counts: Mapping[Kind, int]) -> dict[str, int]:
    """Counts by the names of all that can be counted, so that a rate starts at 0."""
    return {member.name.lower(): counts.get(member, 0) for member in kind}


def _count(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value)


def _counts(name: str, help_text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for label_value, value in values.items():
        family.add_metric([label_value], value)
    return family
