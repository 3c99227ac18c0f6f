"""What the cache has done since it started, for each tenant and in all.

Tenants are counted by digest; the tenants seen longest ago are forgotten first. Nothing here is kept across a restart.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from services.cache.entry import Savings
from services.cache.query import Found, Hit, HitKind, MissReason

# Tenants counted apart. Beyond that the total stays right and the tenant seen longest ago starts at 0.
TENANTS_MAX = 10_000


@dataclass(slots=True)
class Tally:
    """Counts of one tenant, or of all."""

    hits: Counter[HitKind] = field(default_factory=Counter)
    misses: Counter[MissReason] = field(default_factory=Counter)
    shared_count: int = 0
    refresh_count: int = 0
    store_count: int = 0
    false_hit_count: int = 0
    saved_prompt_token_count: int = 0
    saved_completion_token_count: int = 0
    saved_cost_micro_usd: int = 0
    saved_generation_ms: int = 0

    @property
    def lookup_count(self) -> int:
        """Lookups answered."""
        return self.hits.total() + self.misses.total()

    def add(self, found: Found) -> None:
        """Counts what a lookup found."""
        if not isinstance(found, Hit):
            self.misses[found.reason] += 1
            return
        self.hits[found.kind] += 1
        self.shared_count += found.shared
        self.refresh_count += found.refresh is not None
        savings = found.entry.savings or Savings()
        self.saved_prompt_token_count += savings.prompt_token_count
        self.saved_completion_token_count += savings.completion_token_count
        self.saved_cost_micro_usd += savings.cost_micro_usd or 0
        self.saved_generation_ms += savings.generation_ms or 0


class Stats:
    """The tallies of all tenants."""

    def __init__(self, start_ms: int) -> None:
        self.start_ms = start_ms
        self._total = Tally()
        self._tenants: OrderedDict[bytes, Tally] = OrderedDict()

    def tally(self, tenant: bytes | None) -> Tally:
        """The counts of one tenant, or of all."""
        return self._total if tenant is None else self._tenants.get(tenant) or Tally()

    def count_found(self, tenant: bytes, found: Found) -> None:
        """Counts an answered lookup."""
        for tally in self._both(tenant):
            tally.add(found)

    def count_store(self, tenant: bytes) -> None:
        """Counts a stored answer."""
        for tally in self._both(tenant):
            tally.store_count += 1

    def count_false_hit(self, tenant: bytes) -> None:
        """Counts an entry that was reported."""
        for tally in self._both(tenant):
            tally.false_hit_count += 1

    def _both(self, tenant: bytes) -> tuple[Tally, Tally]:
        tally = self._tenants.get(tenant)
        if tally is None:
            tally = self._tenants[tenant] = Tally()
            if len(self._tenants) > TENANTS_MAX:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return self._total, tally
