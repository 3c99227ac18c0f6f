"""How many of the answers given to similar questions are wrong, told by those that were held back instead.

Each that was held back stands for as many as were given in its place, so that their weighted share is that of all, free
of any model. The last ones count, for it is the present that is asked about.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

SAMPLES_MAX: Final = 1000

# What one that was held back stands for, and whether it fitted.
Sample = tuple[float, bool]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of wrong answers, its 95 % interval, and the comparisons that it rests on."""

    share: float
    low: float
    high: float
    sample_count: int


class HeldBack:
    """The last would-be hits that were held back and compared."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.samples: deque[Sample] = deque(samples, SAMPLES_MAX)

    def add(self, weight: float, *, fits: bool) -> None:
        """Takes in one."""
        self.samples.append((weight, fits))


def estimate(samples: Iterable[Sample]) -> Estimate | None:
    """Estimates the share of wrong answers; None without samples. Those of several tenants may be chained."""
    known = list(samples)
    if not known:
        return None
    total = sum(weight for weight, _ in known)
    share = sum(weight for weight, fits in known if not fits) / total
    effective_count = total**2 / sum(weight**2 for weight, _ in known)
    return Estimate(share, *wilson(share, effective_count), len(known))


def wilson(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share seen in that many samples (Wilson 1927)."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * ((share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5)
    return max(0.0, middle - reach), min(1.0, middle + reach)
