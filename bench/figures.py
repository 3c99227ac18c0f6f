"""Figures of many measurements, told in the same way by every bench."""

from __future__ import annotations

import math
from collections.abc import Sequence


def quantile(values: Sequence[float], share: float) -> float | None:
    """The least of the values that `share` of them do not exceed; None where there are none.

    Source: nearest rank, type 1 of Hyndman and Fan 1996.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def rounded(value: float | None) -> float | None:
    """To two digits, for tables."""
    return None if value is None else round(value, 2)
