"""The counts that all replicas share, on Redis: each step is one script, and everything it touches is in one slot."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec

from services.inference.quota.limit import Claim, Standing, Window
from services.inference.quota.redis_lane import RedisLane
from services.inference.quota.redis_scripts import BEAT, CHARGE, END, FLOOR, OVERDUE, RENEW, TAKE
from services.inference.quota.store import HOLD_MS, OVERDUE_COUNT, RECORD_HOLDS
from services.inference.quota.windows import month_starts

# Raise it when what is kept under the keys changes.
PREFIX: Final = "millrace:quota:1"
KINDS: Final = {Window.AT_ONCE: "c", Window.MINUTE: "r", Window.DAY: "d", Window.MONTH: "m"}
_ENCODER = msgspec.json.Encoder()
_CLAIM = msgspec.json.Decoder(Claim)
_AMOUNTS = msgspec.json.Decoder(tuple[int, ...])


class RedisStore:
    """Counts on Redis.

    Args:
        lane: The way there.
        clock: Milliseconds since the epoch, in place of Redis's own clock; for tests.
        hold_ms: How long a claim is held without a renewal.

    Attributes:
        replica_count: How many processes count here, as of the last `tend`.
    """

    def __init__(self, lane: RedisLane, clock: Callable[[], int] | None = None, hold_ms: int = HOLD_MS) -> None:
        self._lane, self._clock = lane, clock
        self._hold_ms, self._record_ms = hold_ms, hold_ms * RECORD_HOLDS
        self._months: tuple[int, ...] = ()
        self._months_day = -1
        self._id = secrets.token_hex(8)
        self.replica_count = 1

    async def take(self, claim: Claim) -> tuple[Standing, ...]:
        """Grants a claim, or tells why not."""
        return await self._take(claim, "")

    async def take_known(self, claim: Claim) -> tuple[Standing, ...] | None:
        """Grants a claim, or tells why not; None where a budget has no count yet."""
        return await self._take(claim, "known") or None

    async def _take(self, claim: Claim, how: str) -> tuple[Standing, ...]:
        held = claim.is_held
        how += "held" if held else "brief"
        words: list[Any] = [self._now(), claim.id or "-", self._hold_ms, self._record_ms, how, *self._month_starts()]
        for limit, amount in zip(claim.limits, claim.amounts, strict=True):
            words += (KINDS[limit.window], limit.maximum, limit.burst, amount)
        said = await self._run(TAKE, _keys(claim), words, _ENCODER.encode(claim) if held else b"")
        return tuple(
            Standing(bool(said[at]), said[at + 1], None if said[at + 2] < 0 else said[at + 2], said[at + 3])
            for at in range(0, len(said), 4)
        )

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Charges what was used."""
        words: list[Any] = [self._now(), claim.id]
        for limit, reserved, amount in zip(claim.limits, claim.amounts, used, strict=True):
            words += (KINDS[limit.window], limit.maximum, amount - reserved)
        return bool(await self._run(END, _keys(claim), words, patient=True))

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Keeps a claim."""
        record, open_, *limits = _keys(claim)
        leases = [key for key, limit in zip(limits, claim.limits, strict=True) if limit.window is Window.AT_ONCE]
        words = [self._now(), claim.id, self._hold_ms, self._record_ms]
        return bool(await self._run(RENEW, [record, open_, *leases], words, _ENCODER.encode(used)))

    async def charge(self, claim: Claim, used: tuple[int, ...]) -> None:
        """Charges what was used of a claim that was granted elsewhere, whether or not there is room."""
        words: list[Any] = [self._now(), *self._month_starts()]
        for limit, amount in zip(claim.limits, used, strict=True):
            words += (KINDS[limit.window], limit.maximum, amount)
        await self._run(CHARGE, _keys(claim)[2:], words)

    async def floor(self, claim: Claim) -> None:
        """Counts at least the claim's amounts as used."""
        words: list[Any] = [self._now(), *self._month_starts()]
        for limit, amount in zip(claim.limits, claim.amounts, strict=True):
            words += (KINDS[limit.window], amount)
        await self._run(FLOOR, _keys(claim)[2:], words)

    async def tend(self, slots: Collection[str]) -> None:
        """Ends what nobody renews: what a replica left that is gone. Also counts the replicas that do so."""
        self.replica_count = await self._run(BEAT, [f"{PREFIX}:replicas"], [self._now(), self._id, self._hold_ms])
        await asyncio.gather(*(self._tend(slot) for slot in slots))

    async def _tend(self, slot: str) -> None:
        for id in await self._run(OVERDUE, [_open_key(slot)], [self._now(), OVERDUE_COUNT]):
            await self._end_overdue(slot, id.decode())

    async def _end_overdue(self, slot: str, id: str) -> None:
        body, reported = await self._lane.ask("HMGET", _record_key(slot, id), "body", "reported")
        if body is None:
            await self._lane.ask("ZREM", _open_key(slot), id)
            return
        claim = _CLAIM.decode(body)
        await self.end(claim, claim.amounts if reported is None else _AMOUNTS.decode(reported))

    def _now(self) -> int | str:
        return "-" if self._clock is None else self._clock()

    async def _run(
        self, script: str, keys: list[str], words: list[Any], data: bytes = b"", *, patient: bool = False
    ) -> Any:
        return await self._lane.run(script, keys, (" ".join(map(str, words)), data), patient=patient)

    def _month_starts(self) -> tuple[int, ...]:
        now_ms = self._clock() if self._clock else time.time_ns() // 1_000_000
        if now_ms // 86_400_000 != self._months_day:
            self._months, self._months_day = month_starts(now_ms), now_ms // 86_400_000
        return self._months


def _keys(claim: Claim) -> list[str]:
    slot = f"{PREFIX}:{{{claim.slot}}}"
    return [_record_key(claim.slot, claim.id), _open_key(claim.slot), *(f"{slot}:{one.key}" for one in claim.limits)]


def _record_key(slot: str, id: str) -> str:
    return f"{PREFIX}:{{{slot}}}:claim:{id}"


def _open_key(slot: str) -> str:
    return f"{PREFIX}:{{{slot}}}:open"
