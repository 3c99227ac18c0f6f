"""The calendar of budgets: when a day and a month begin, in UTC, as milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime

DAY_MS = 86_400_000


def month_starts(now_ms: int) -> tuple[int, ...]:
    """When the month before, this one and the next two begin: enough for whoever's clock is less than a month off."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC)
    months = today.year * 12 + today.month - 1
    starts = (datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC) for month in range(months - 1, months + 3))
    return tuple(int(start.timestamp()) * 1000 for start in starts)
