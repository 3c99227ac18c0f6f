"""Short ways to make the nouns of quotas."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

from services.inference.quota.limit import Claim, Limit, Unit, Window

NOON_MS = int(datetime(2026, 3, 17, 12, tzinfo=UTC).timestamp()) * 1000
MINUTE_MS = 60_000
_NUMBERS = itertools.count()


class HandClock:
    """A clock that stands until it is turned."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def limit(
    maximum: int,
    window: Window = Window.MINUTE,
    unit: Unit = Unit.REQUESTS,
    burst: int | None = None,
    subject: str = "user:alice",
) -> Limit:
    """A limit of one subject."""
    name = f"{unit.name}_{window.name}".lower()
    return Limit(name, subject, f"{subject}:{name}", unit, window, maximum, burst or maximum)


def claim(*wanted: tuple[Limit, int], slot: str = "acme") -> Claim:
    """A claim of its own id for amounts of limits."""
    limits, amounts = zip(*wanted, strict=True)
    return Claim(f"c{next(_NUMBERS)}", slot, limits, amounts)


def tokens(maximum: int, window: Window = Window.DAY) -> Limit:
    """A limit of tokens."""
    return limit(maximum, window, Unit.TOKENS)


def at_once(maximum: int) -> Limit:
    """A limit on what runs at once."""
    return limit(maximum, Window.AT_ONCE)
