"""Opening: a budget is never less used than the ledger says, whatever the store of its counts has forgotten.

Counts in this process begin at 0 with it, and a Redis may come back empty; the ledger knows what was used since the day
and the month began. So before a budget is asked for the first time, and now and then afterwards, its count is raised to
that. A ledger that does not answer delays a request by `WAIT_S` at most, and then none for a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from kit.cancelling import cancel_all
from kit.errors import MillraceError
from kit.identity import Caller
from services.inference.quota.limit import Claim, Limit, Unit, Window
from services.inference.quota.store import QuotaStore
from services.inference.quota.windows import DAY_MS, month_starts

log = logging.getLogger(__name__)

WAIT_S = 0.1
# What a process that died has left reaches the ledger a little later than the first request after it: so the second
# look comes soon. The later ones mend what a Redis has lost unnoticed.
SECOND_LOOK_S, LOOK_INTERVAL_S, FAILED_INTERVAL_S = 5.0, 300.0, 5.0
BUDGET_COUNT_MAX = 10_000


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


class _Look(msgspec.Struct):
    """The looks at one budget: when the last one began and the next is due; `task` while one goes on."""

    due_s: float = 0.0
    began_s: float = 0.0
    count: int = 0
    task: asyncio.Task[None] | None = None


class Opening:
    """Raises the counts of budgets to what the ledger says.

    Args:
        look_up: Asks the ledger.
        store: Where budgets are counted.
        clock: Seconds of a steady clock.
    """

    def __init__(self, look_up: LookUp, store: QuotaStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up, self._store, self._clock = look_up, store, clock
        self._looks: dict[str, _Look] = {}
        self._is_failing = False

    async def open(self, claim: Claim, caller: Caller) -> None:
        """Sees to it that what a claim asks of budgets is counted on top of what the ledger knows."""
        now = self._clock()
        awaited = [
            self._look(claim, limit, account, now)
            for limit in claim.limits
            if limit.window in (Window.DAY, Window.MONTH) and (account := _account(limit, caller))
        ]
        tasks = [task for task in awaited if task]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=WAIT_S)
        if late:
            self._failed("the ledger is slow")

    def forget(self) -> None:
        """Has every budget looked at anew: their counts may have been lost."""
        self._looks = {at: look for at, look in self._looks.items() if look.task}

    async def close(self) -> None:
        """Stops."""
        await cancel_all({look.task for look in self._looks.values() if look.task})

    def _look(self, claim: Claim, limit: Limit, account: Account, now: float) -> asyncio.Task[None] | None:
        key = f"{claim.slot}:{limit.key}"
        look = self._looks.get(key)
        if look is None:
            if len(self._looks) >= BUDGET_COUNT_MAX:
                self._looks = {at: one for at, one in self._looks.items() if one.task}
            look = self._looks[key] = _Look()
        if look.due_s <= now and look.task is None:
            look.began_s, look.due_s = now, now + FAILED_INTERVAL_S
            look.task = asyncio.create_task(self._raise(claim, limit, account, look))
        is_slow = now >= look.began_s + WAIT_S
        return None if look.count or is_slow else look.task  # only the first look is waited for

    async def _raise(self, claim: Claim, limit: Limit, account: Account, look: _Look) -> None:
        unit = "token_count" if limit.unit is Unit.TOKENS else "cost_micro_usd"
        try:
            used = getattr(await self._look_up(account, _since_ms(limit.window)), unit)
            if used:
                await self._store.floor(Claim("", claim.slot, (limit,), (used,)))
        except MillraceError as error:
            self._failed(error.reason)
            return
        finally:
            look.task = None
        self._is_failing = False
        look.count += 1
        look.due_s = self._clock() + (SECOND_LOOK_S if look.count == 1 else LOOK_INTERVAL_S)

    def _failed(self, reason: str) -> None:
        if not self._is_failing:
            log.warning("budgets are counted without the ledger", extra={"reason": reason})
        self._is_failing = True


def _account(limit: Limit, caller: Caller) -> Account | None:
    """Whose rows a limit is about; None where the ledger does not know, as of anonymous clients."""
    kind = limit.subject.partition(":")[0]
    if kind == "tenant":
        return Account(caller.tenant)
    if kind == "user":
        return Account(caller.tenant, caller.principal)
    if kind == "key":
        return Account(caller.tenant, caller.principal, caller.key_id)
    return None


def _since_ms(window: Window) -> int:
    now_ms = time.time_ns() // 1_000_000
    return now_ms - now_ms % DAY_MS if window is Window.DAY else month_starts(now_ms)[1]
