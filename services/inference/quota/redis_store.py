"""The counts that all replicas share, on Redis: each step is one script, and everything it touches is in one slot."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from services.inference.quota.limit import Claim, Limit, Standing, Window
from services.inference.quota.redis_lane import RedisLane
from services.inference.quota.redis_scripts import BEAT, CHARGE, END, FLOOR, OVERDUE, RENEW, TAKE
from services.inference.quota.store import HOLD_MS, OVERDUE_COUNT, RECORD_HOLDS
from services.inference.quota.windows import DAY_MS, month_starts

# Raise it when what is kept under the keys changes.
PREFIX: Final = "millrace:quota:1"
KINDS: Final = {Window.AT_ONCE: "c", Window.MINUTE: "r", Window.DAY: "d", Window.MONTH: "m"}
LAYOUT_COUNT_MAX: Final = 4096  # as many callers as are remembered with their limits
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
        self._months, self._months_day = "", -1
        self._layouts: dict[tuple[str, tuple[Limit, ...]], _Layout] = {}
        self._id = secrets.token_hex(8)
        self.replica_count = 1

    async def take(self, claim: Claim) -> tuple[Standing, ...]:
        """Grants a claim, or tells why not."""
        return await self._take(claim, "")

    async def take_known(self, claim: Claim) -> tuple[Standing, ...] | None:
        """Grants a claim, or tells why not; None where a budget has no count yet."""
        return await self._take(claim, "known") or None

    async def _take(self, claim: Claim, how: str) -> tuple[Standing, ...]:
        held, layout = claim.is_held, self._layout(claim)
        words = (
            f"{self._now()} {claim.id or '-'} {self._hold_ms} {self._record_ms} {how}{'held' if held else 'brief'} "
            f"{self._month_starts()} {layout.take % claim.amounts}"
        )
        said = await self._lane.run(TAKE, layout.all_keys(claim.id), (words, _ENCODER.encode(claim) if held else b""))
        return tuple(
            [
                Standing(bool(said[at]), said[at + 1], None if said[at + 2] < 0 else said[at + 2], said[at + 3])
                for at in range(0, len(said), 4)
            ]
        )

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Charges what was used."""
        layout = self._layout(claim)
        changes = tuple([amount - reserved for amount, reserved in zip(used, claim.amounts, strict=True)])
        words = f"{self._now()} {claim.id} {layout.end % changes}"
        return bool(await self._lane.run(END, layout.all_keys(claim.id), (words, b""), patient=True))

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Keeps a claim."""
        record, open_, *limits = self._layout(claim).all_keys(claim.id)
        leases = [key for key, limit in zip(limits, claim.limits, strict=True) if limit.window is Window.AT_ONCE]
        words = (self._now(), claim.id, self._hold_ms, self._record_ms)
        return bool(await self._run(RENEW, [record, open_, *leases], words, _ENCODER.encode(used)))

    async def charge(self, claim: Claim, used: tuple[int, ...]) -> None:
        """Charges what was used of a claim that was granted elsewhere, whether or not there is room; once."""
        layout = self._layout(claim)
        words = (self._now(), self._record_ms, self._month_starts(), layout.end % used)
        await self._run(CHARGE, (f"{layout.record}{claim.id}:charged", *layout.keys), words)

    async def floor(self, claim: Claim) -> None:
        """Counts at least the claim's amounts as used."""
        words: list[Any] = [self._now(), self._month_starts()]
        for limit, amount in zip(claim.limits, claim.amounts, strict=True):
            words += (KINDS[limit.window], amount)
        await self._run(FLOOR, self._layout(claim).keys, words)

    async def beat(self) -> None:
        """Says that this replica is there, and counts those that do."""
        self.replica_count = await self._run(BEAT, [f"{PREFIX}:replicas"], [self._now(), self._id, self._hold_ms])

    async def tend(self, slots: Collection[str]) -> None:
        """Ends what nobody renews: what a replica left that is gone."""
        await self.beat()
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

    async def _run(self, script: str, keys: Sequence[str], words: Sequence[Any], data: bytes = b"") -> Any:
        return await self._lane.run(script, keys, (" ".join(map(str, words)), data))

    def _month_starts(self) -> str:
        now_ms = self._clock() if self._clock else time.time_ns() // 1_000_000
        if now_ms // DAY_MS != self._months_day:
            self._months, self._months_day = " ".join(map(str, month_starts(now_ms))), now_ms // DAY_MS
        return self._months

    def _layout(self, claim: Claim) -> _Layout:
        found = self._layouts.get((claim.slot, claim.limits))
        if found is None:
            if len(self._layouts) >= LAYOUT_COUNT_MAX:
                self._layouts.clear()
            found = self._layouts[claim.slot, claim.limits] = _Layout.of(claim.slot, claim.limits)
        return found


class _Layout(msgspec.Struct, frozen=True):
    """What the commands for several limits of a tenant have in common: keys, and words with room for the amounts."""

    record: str
    open: str
    keys: tuple[str, ...]
    take: str
    end: str

    @classmethod
    def of(cls, slot: str, limits: Sequence[Limit]) -> _Layout:
        """Makes it."""
        keys = tuple(f"{PREFIX}:{{{slot}}}:{one.key}" for one in limits)
        take = " ".join(f"{KINDS[one.window]} {one.maximum} {one.burst} %d" for one in limits)
        end = " ".join(f"{KINDS[one.window]} {one.maximum} %d" for one in limits)
        return cls(_record_key(slot, ""), _open_key(slot), keys, take, end)

    def all_keys(self, id: str) -> tuple[str, ...]:
        """Every key that a claim touches."""
        return (self.record + id, self.open, *self.keys)


def _record_key(slot: str, id: str) -> str:
    return f"{PREFIX}:{{{slot}}}:claim:{id}"


def _open_key(slot: str) -> str:
    return f"{PREFIX}:{{{slot}}}:open"
