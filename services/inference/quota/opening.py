"""Opening: a budget is never less used than the ledger says, whatever the store of its counts has forgotten.

Counts in this process begin at 0 with it, and a Redis may come back empty; the ledger knows what was used since the day
and the month began. So where a store has no count of a budget yet, the ledger is asked before a claim is granted, and
the count begins there. A ledger that does not answer delays a request by `WAIT_S` at most; it is asked again later.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable

import msgspec

from kit.cancelling import cancel_all
from kit.errors import MillraceError
from kit.identity import Caller
from services.inference.quota.limit import BUDGETS, Claim, Limit, Standing, Unit, Window
from services.inference.quota.store import QuotaStore
from services.inference.quota.windows import DAY_MS, month_starts

log = logging.getLogger(__name__)

WAIT_S = 0.1
# What a process that died has left reaches the ledger a little later than the first request after it.
SECOND_LOOK_S = 5.0
BUDGET_COUNT_MAX = 10_000
KNOWN = ("tenant:", "user:", "key:")  # subjects of whom the ledger knows; anonymous clients are not among them


class Account(msgspec.Struct, frozen=True):
    """Whose use is meant: a tenant's, or of it that of one principal, or of that one's key."""

    tenant: str
    principal: str | None = None
    key_id: str | None = None


class Used(msgspec.Struct, frozen=True):
    """What the ledger says was used: tokens of prompts and answers, and millionths of a US dollar."""

    token_count: int
    cost_micro_usd: int


# What an account has used since an instant, in milliseconds since the epoch; raises MillraceError without an answer.
LookUp = Callable[[Account, int], Awaitable[Used]]


class Opening:
    """Has claims granted on top of what the ledger knows.

    Args:
        look_up: Asks the ledger.
        store: Where claims are counted.
        clock: Seconds of a steady clock.
    """

    def __init__(self, look_up: LookUp, store: QuotaStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up, self._store, self._clock = look_up, store, clock
        self._looks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._due_s: dict[tuple[str, str], float] = {}  # of each budget that was looked at: when it will be again
        self._is_failing = False

    async def take(self, claim: Claim, caller: Caller) -> tuple[Standing, ...]:
        """Takes a claim of a caller; see `QuotaStore.take`."""
        budgets = [one for one in claim.limits if one.window in BUDGETS and one.subject.startswith(KNOWN)]
        if not budgets:
            return await self._store.take(claim)
        now = self._clock()
        for limit in budgets:
            if self._due_s.get((claim.slot, limit.key), math.inf) <= now:
                self._look(claim, limit, caller, math.inf)
        known = await self._store.take_known(claim)
        if known is not None:
            return known
        looks = [self._look(claim, limit, caller, SECOND_LOOK_S) for limit in budgets]
        _, late = await asyncio.wait(looks, timeout=WAIT_S)
        if late:
            self._failed("the ledger is slow")
        return await self._store.take(claim)

    def forget(self) -> None:
        """Has every budget looked at anew, for their counts may be old ones; a little later.

        What every process let in by itself meanwhile is charged by then. The ledger knows of it, so that what is
        charged after the look would count twice.
        """
        self._due_s = dict.fromkeys(self._due_s, self._clock() + SECOND_LOOK_S)

    async def close(self) -> None:
        """Stops."""
        await cancel_all(set(self._looks.values()))

    def _look(self, claim: Claim, limit: Limit, caller: Caller, again_s: float) -> asyncio.Task[None]:
        at = (claim.slot, limit.key)
        if at not in self._looks:
            if len(self._due_s) >= BUDGET_COUNT_MAX:
                self._due_s.clear()
            self._due_s[at] = math.inf
            self._looks[at] = asyncio.create_task(self._raise(claim, limit, _account(limit, caller), again_s))
        return self._looks[at]

    async def _raise(self, claim: Claim, limit: Limit, account: Account, again_s: float) -> None:
        at, unit = (claim.slot, limit.key), "token_count" if limit.unit is Unit.TOKENS else "cost_micro_usd"
        try:
            used = getattr(await self._look_up(account, _since_ms(limit.window)), unit)
            await self._store.floor(Claim("", claim.slot, (limit,), (used,)))
        except MillraceError as error:
            self._failed(error.reason)
            again_s = SECOND_LOOK_S
        else:
            self._is_failing = False
        finally:
            del self._looks[at]
        self._due_s[at] = self._clock() + again_s

    def _failed(self, reason: str) -> None:
        if not self._is_failing:
            log.warning("budgets are counted without the ledger", extra={"reason": reason})
        self._is_failing = True


def _account(limit: Limit, caller: Caller) -> Account:
    """Whose rows a limit is about."""
    if limit.subject.startswith("tenant:"):
        return Account(caller.tenant)
    return Account(caller.tenant, caller.principal, caller.key_id if limit.subject.startswith("key:") else None)


def _since_ms(window: Window) -> int:
    now_ms = time.time_ns() // 1_000_000
    return now_ms - now_ms % DAY_MS if window is Window.DAY else month_starts(now_ms)[1]
