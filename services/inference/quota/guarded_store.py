"""The counts on Redis, and what is done while Redis is away.

By the operator's choice requests then go on counted in this process, against its share of each limit (`local`), go on
uncounted (`open`), or are refused (`closed`). What ends meanwhile, wherever it was taken, is charged on Redis as soon
as it is back; what was asked of it and never answered is given back, should it have been granted after all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Literal

import msgspec

from services.inference.quota.limit import Claim, Limit, Standing
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import StoreLost

log = logging.getLogger(__name__)

OnLoss = Literal["local", "open", "closed"]
TakeShared = Callable[[RedisStore, Claim], Awaitable[tuple[Standing, ...] | None]]
TakeLocal = Callable[[MemoryStore, Claim], Awaitable[tuple[Standing, ...] | None]]
# Ends that wait for Redis; beyond that the oldest are left to be found overdue.
OWED_COUNT_MAX = 10_000
SAY_INTERVAL_S = 10.0


class GuardedStore:
    """Counts on Redis where it answers.

    Args:
        shared: The counts on Redis.
        on_loss: What is done while they are away.
        local: The counts of this process.
    """

    def __init__(self, shared: RedisStore, on_loss: OnLoss, local: MemoryStore) -> None:
        self._shared, self._on_loss, self._local = shared, on_loss, local
        self._owed: deque[tuple[Claim, tuple[int, ...]]] = deque(maxlen=OWED_COUNT_MAX)
        self._uncharged: deque[tuple[Claim, tuple[int, ...]]] = deque(maxlen=OWED_COUNT_MAX)
        self._charging = asyncio.Lock()
        self._lost_count, self._say_at = 0, 0.0

    async def take(self, claim: Claim) -> tuple[Standing, ...]:
        """Grants a claim, or tells why not.

        Raises:
            StoreLost: Redis is away, and requests are to be refused then.
        """
        standings = await self._take(claim, RedisStore.take, MemoryStore.take)
        assert standings is not None
        return standings

    async def take_known(self, claim: Claim) -> tuple[Standing, ...] | None:
        """Grants a claim, or tells why not; None where a budget has no count yet. Raises as `take`."""
        return await self._take(claim, RedisStore.take_known, MemoryStore.take_known)

    async def _take(self, claim: Claim, shared: TakeShared, local: TakeLocal) -> tuple[Standing, ...] | None:
        try:
            return await shared(self._shared, claim)
        except asyncio.CancelledError:
            self._owe(claim, (0,) * len(claim.amounts))
            raise
        except StoreLost as lost:
            if lost.sent:
                self._say("Redis was too late for a limit")
                self._owe(claim, (0,) * len(claim.amounts))
            elif lost.refusal:
                self._say("Redis refuses to count for a limit", lost.refusal)
            if self._on_loss == "closed":
                raise
        if self._on_loss == "open":
            return tuple(Standing(True, limit.burst, 0, 0) for limit in claim.limits)
        return await local(self._local, self._shared_out(claim))

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Charges what was used, where it was taken; later, where Redis is away."""
        if self._local.holds(claim):
            self._uncharged.append((claim, used))
            return await self._local.end(claim, used)
        return await self._end_shared(claim, used)

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Keeps a claim, where it was taken."""
        if self._local.holds(claim):
            return await self._local.renew(claim, used)
        return await self._shared.renew(claim, used)

    async def floor(self, claim: Claim) -> None:
        """Counts at least the claim's amounts as used; in this process, should Redis be away, its share of them."""
        share = tuple(amount // self._shared.replica_count for amount in claim.amounts)
        await self._local.floor(msgspec.structs.replace(claim, amounts=share))
        with suppress(StoreLost):
            await self._charge()  # what others know of holds it already: charged afterwards, it would count twice
            await self._shared.floor(claim)

    async def tend(self, slots: Collection[str]) -> None:
        """Pays what is owed, and ends what nobody renews."""
        await self._local.tend(slots)
        for _ in range(len(self._owed)):
            # Never what this process holds: a claim that Redis was too late for may run here, let in by this one.
            await self._end_shared(*self._owed.popleft())
        await self._charge()
        await self._shared.tend(slots)

    async def _charge(self) -> None:
        """Charges what was let in here while Redis was away."""
        async with self._charging:
            while self._uncharged:
                await self._shared.charge(*self._uncharged[0])
                self._uncharged.popleft()

    async def _end_shared(self, claim: Claim, used: tuple[int, ...]) -> bool:
        try:
            return await self._shared.end(claim, used)
        except StoreLost:
            self._owe(claim, used)
            return True

    def _say(self, what: str, reason: str = "no answer in time") -> None:
        """Logs claims that failed one by one, now and then: what they let in is beyond what Redis counts."""
        self._lost_count += 1
        if (now := time.monotonic()) >= self._say_at:
            log.warning(what, extra={"count": self._lost_count, "on_loss": self._on_loss, "reason": reason})
            self._lost_count, self._say_at = 0, now + SAY_INTERVAL_S

    def _owe(self, claim: Claim, used: tuple[int, ...]) -> None:
        if claim.is_held:
            self._owed.append((claim, used))

    def _shared_out(self, claim: Claim) -> Claim:
        """The claim against this process's share of each limit."""
        count = self._shared.replica_count
        if count == 1:
            return claim
        return msgspec.structs.replace(claim, limits=tuple(_part(one, count) for one in claim.limits))


def _part(limit: Limit, count: int) -> Limit:
    maximum, burst = max(1, limit.maximum // count), max(1, limit.burst // count)
    return msgspec.structs.replace(limit, maximum=maximum, burst=burst)
