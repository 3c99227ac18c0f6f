"""The counts of one process: for a single replica, and in place of a Redis that is away.

The same arithmetic as the scripts of the store on Redis, and the same tests prove both. Nothing outlives the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

import msgspec

from services.inference.quota.limit import BUDGETS, Claim, Limit, Standing, Window
from services.inference.quota.store import HOLD_MS, RECORD_MS
from services.inference.quota.windows import DAY_MS, month_starts

# A minute's limit of N gives back N units each millisecond, and 60,000 units are one: all of it whole numbers.
UNITS = 60_000
# When a limit on what runs at once may have room again, nobody knows.
RETRY_AT_ONCE_MS = 1_000
# Between two looks for what is whole again and can be forgotten.
SWEEP_MS = 10_000


class Meter(msgspec.Struct):
    """What is used of one limit; of a minute in units at an instant, of a day or month in the window from `since`."""

    used: int
    since: int
    until: int


class _Held(msgspec.Struct):
    """A claim that is not ended yet."""

    claim: Claim
    used: tuple[int, ...]
    windows: tuple[int, ...]
    overdue_ms: int


class MemoryStore:
    """Counts in dictionaries.

    Args:
        clock: Milliseconds since the epoch.
    """

    def __init__(self, clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock = clock
        self._meters: dict[str, Meter] = {}
        self._running: dict[str, dict[str, int]] = {}
        self._held: dict[str, _Held] = {}
        self._sweep_ms = 0
        self._months = month_starts(clock())

    async def take(self, claim: Claim) -> tuple[Standing, ...]:
        """Grants a claim, or tells why not."""
        now = self._clock()
        self._sweep(now)
        before = [self._meter(claim, limit, now) for limit in claim.limits]
        whole = [
            _fits(limit, meter, amount)
            for limit, meter, amount in zip(claim.limits, before, claim.amounts, strict=True)
        ]
        if granted := all(whole):
            for limit, meter, amount in zip(claim.limits, before, claim.amounts, strict=True):
                self._add(claim, limit, meter, amount, now)
            if claim.is_held:
                windows = tuple(meter.since for meter in before)
                self._held[claim.id] = _Held(claim, claim.amounts, windows, now + HOLD_MS)
        return tuple(
            _standing(limit, meter, amount, now, granted, fits)
            for limit, meter, amount, fits in zip(claim.limits, before, claim.amounts, whole, strict=True)
        )

    async def take_known(self, claim: Claim) -> tuple[Standing, ...] | None:
        """Grants a claim, or tells why not; None where a budget has no count yet."""
        now = self._clock()
        for limit in claim.limits:
            if limit.window in BUDGETS:
                kept = self._meters.get(_at(claim, limit))
                if kept is None or kept.since != self._bounds(limit.window, now)[0]:
                    return None
        return await self.take(claim)

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Charges what was used."""
        held = self._held.pop(claim.id, None)
        if held is None:
            return False
        now, claim = self._clock(), held.claim  # as it was granted: against a share of each limit, maybe
        for limit, reserved, amount, since in zip(claim.limits, claim.amounts, used, held.windows, strict=True):
            if limit.window is Window.AT_ONCE:
                self._running.get(_at(claim, limit), {}).pop(claim.id, None)
                continue
            meter = self._meter(claim, limit, now)
            if limit.window is Window.MINUTE or meter.since == since:
                self._add(claim, limit, meter, amount - reserved, now)
        return True

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Keeps a claim."""
        held = self._held.get(claim.id)
        if held is None:
            return False
        held.used, held.overdue_ms = used, self._clock() + HOLD_MS
        for limit in claim.limits:
            if limit.window is Window.AT_ONCE:
                self._running.setdefault(_at(claim, limit), {})[claim.id] = held.overdue_ms
        return True

    async def floor(self, claim: Claim) -> None:
        """Counts at least the claim's amounts as used."""
        now = self._clock()
        for limit, amount in zip(claim.limits, claim.amounts, strict=True):
            if limit.window in BUDGETS:
                meter = self._meter(claim, limit, now)
                self._add(claim, limit, meter, max(0, amount - meter.used), now)

    async def tend(self, slots: Collection[str]) -> None:
        """Ends what nobody renews; in one process that is only what was granted and then forgotten."""
        now = self._clock()
        for held in [one for one in self._held.values() if one.claim.slot in slots and one.overdue_ms <= now]:
            if held.overdue_ms - HOLD_MS + RECORD_MS > now:
                await self.end(held.claim, held.used)
            else:
                del self._held[held.claim.id]

    def holds(self, claim: Claim) -> bool:
        """Whether a claim was granted here and is not ended."""
        return claim.id in self._held

    def _meter(self, claim: Claim, limit: Limit, now: int) -> Meter:
        """What is used of a limit at this instant."""
        if limit.window is Window.AT_ONCE:
            leases = self._running.get(_at(claim, limit), {})
            return Meter(sum(until > now for until in leases.values()), 0, now)
        kept = self._meters.get(_at(claim, limit))
        if limit.window is Window.MINUTE:
            if kept is None:
                return Meter(0, now, now)
            if kept.since > now:  # the clock was put back: what is used flows back from now on
                kept.since, kept.until = now, now + _ceil(kept.used, limit.maximum)
            return Meter(max(0, kept.used - (now - kept.since) * limit.maximum), now, now)
        since, until = self._bounds(limit.window, now)
        return Meter(kept.used if kept and kept.since == since else 0, since, until)

    def _add(self, claim: Claim, limit: Limit, meter: Meter, amount: int, now: int) -> None:
        at = _at(claim, limit)
        if limit.window is Window.AT_ONCE:
            if amount:
                self._running.setdefault(at, {})[claim.id] = now + HOLD_MS
            return
        used = max(0, meter.used + amount * _units(limit))
        until = now + _ceil(used, limit.maximum) if limit.window is Window.MINUTE else meter.until
        self._meters[at] = Meter(used, meter.since, until)

    def _bounds(self, window: Window, now: int) -> tuple[int, int]:
        if window is Window.DAY:
            start = now - now % DAY_MS
            return start, start + DAY_MS
        if not self._months[1] <= now < self._months[2]:
            self._months = month_starts(now)
        return self._months[1], self._months[2]

    def _sweep(self, now: int) -> None:
        if now < self._sweep_ms:
            return
        self._sweep_ms = now + SWEEP_MS
        self._meters = {at: meter for at, meter in self._meters.items() if meter.until > now}
        self._running = {at: leases for at, leases in self._running.items() if max(leases.values(), default=0) > now}


def _at(claim: Claim, limit: Limit) -> str:
    return f"{claim.slot}:{limit.key}"


def _units(limit: Limit) -> int:
    return UNITS if limit.window is Window.MINUTE else 1


def _ceil(amount: int, divisor: int) -> int:
    return -(-amount // divisor)


def _fits(limit: Limit, meter: Meter, amount: int) -> bool:
    return meter.used + amount * _units(limit) <= limit.burst * _units(limit)


def _standing(limit: Limit, meter: Meter, amount: int, now: int, granted: bool, fits: bool) -> Standing:
    units = _units(limit)
    used = meter.used + (amount * units if granted else 0)
    remaining = max(0, (limit.burst * units - used) // units)
    never = amount > limit.burst
    if limit.window is Window.AT_ONCE:
        return Standing(fits, remaining, 0 if fits else RETRY_AT_ONCE_MS, 0)
    if limit.window is Window.MINUTE:
        wait = _ceil(meter.used + (amount - limit.burst) * units, limit.maximum)
        return Standing(fits, remaining, 0 if fits else None if never else wait, _ceil(used, limit.maximum))
    left = meter.until - now
    return Standing(fits, remaining, 0 if fits else None if never else left, left)
