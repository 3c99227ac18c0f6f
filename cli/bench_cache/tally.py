"""Counts what a cache answered and how often it was wrong, and says how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

# Of the standard normal distribution: the ends of 95 %.
Z_95 = 1.959963984540054


@dataclass(slots=True)
class Tally:
    """The lookups of one run.

    Attributes:
        lookup_count: Lookups made.
        hit_count: Lookups that were answered from the cache.
        wrong_count: Hits whose entry belongs to another group.
        shadow_count: Would-be hits that were held back for comparison; they count as misses.
        failed_count: Lookups that missed because something was broken.
        times_ms: How long each lookup took.
    """

    lookup_count: int = 0
    hit_count: int = 0
    wrong_count: int = 0
    shadow_count: int = 0
    failed_count: int = 0
    times_ms: list[float] = field(default_factory=list)

    @property
    def hit_rate(self) -> float:
        """Hits over lookups."""
        return _share(self.hit_count, self.lookup_count)

    @property
    def right_rate(self) -> float:
        """Right hits over lookups."""
        return _share(self.hit_count - self.wrong_count, self.lookup_count)

    @property
    def wrong_per_hit(self) -> float:
        """Wrong hits over hits; 0 where there are none."""
        return _share(self.wrong_count, self.hit_count)

    @property
    def wrong_per_lookup(self) -> float:
        """Wrong hits over lookups, as papers report it."""
        return _share(self.wrong_count, self.lookup_count)

    @property
    def shadow_share(self) -> float:
        """Would-be hits held back, over all would-be hits."""
        return _share(self.shadow_count, self.shadow_count + self.hit_count)

    def record(self, policy: str, seed: int) -> dict[str, Any]:
        """The run as the JSON file has it."""
        low, high = wilson(self.wrong_count, self.hit_count)
        return {
            "policy": policy,
            "seed": seed,
            "lookups": self.lookup_count,
            "hit_rate": round(self.hit_rate, 6),
            "right_rate": round(self.right_rate, 6),
            "wrong_per_hit": round(self.wrong_per_hit, 6),
            "wrong_per_hit_low": round(low, 6),
            "wrong_per_hit_high": round(high, 6),
            "p50_ms": round(quantile(self.times_ms, 0.5), 3),
            "p99_ms": round(quantile(self.times_ms, 0.99), 3),
        }


def pooled(tallies: Sequence[Tally]) -> Tally:
    """Several runs as one."""
    whole = Tally()
    for tally in tallies:
        whole.lookup_count += tally.lookup_count
        whole.hit_count += tally.hit_count
        whole.wrong_count += tally.wrong_count
        whole.shadow_count += tally.shadow_count
        whole.failed_count += tally.failed_count
        whole.times_ms += tally.times_ms
    return whole


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share; 0 to 1 where nothing was counted.

    Source: the score interval, Wilson 1927.
    """
    if not total:
        return 0.0, 1.0
    share, spread = count / total, Z_95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    reach = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that a share of all does not exceed; not a number where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
