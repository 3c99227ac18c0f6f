"""The keeper: looks after the reservations of this process, behind the backs of the requests that they were made for.

It carries out their ends, renews those that run for long, and now and then ends what other processes have left behind.
No request waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from kit.cancelling import cancel_all
from services.inference.quota.reservation import Amounts, Reservation
from services.inference.quota.store import HOLD_MS, QuotaStore, StoreLost

log = logging.getLogger(__name__)

# Renewals in the time that a claim is held without one: three may fail.
RENEWALS = 4
# Tenants whose overdue claims this process looks for; those beyond are looked after by others, or forgotten in time.
SLOT_COUNT_MAX = 1_000
# Renewals asked for at once.
RENEW_COUNT = 64
CLOSE_S = 2.0


class Keeper:
    """Looks after reservations.

    Args:
        store: Where they are counted.
        interval_s: Between two rounds.
    """

    def __init__(self, store: QuotaStore, interval_s: float = HOLD_MS / 1000 / RENEWALS) -> None:
        self._store, self._interval_s = store, interval_s
        self._open: dict[str, Reservation] = {}
        self._slots: dict[str, None] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._due = asyncio.Event()
        self._turn = asyncio.Lock()  # two rounds at once would charge twice what waits to be charged
        self._task: asyncio.Task[None] | None = None

    @property
    def open_count(self) -> int:
        """Reservations that are not ended."""
        return len(self._open)

    async def start(self) -> None:
        """Begins its rounds."""
        self._task = asyncio.create_task(self._rounds())

    def wake(self) -> None:
        """Has the next round begin now."""
        self._due.set()

    def hold(self, reservation: Reservation) -> None:
        """Looks after a reservation until it ends."""
        self._open[reservation.claim.id] = reservation
        slot = reservation.claim.slot
        self._slots.pop(slot, None)
        self._slots[slot] = None
        if len(self._slots) > SLOT_COUNT_MAX:
            del self._slots[next(iter(self._slots))]

    def end(self, reservation: Reservation, used: Amounts) -> None:
        """Carries out the end of a reservation."""
        claim = reservation.claim
        self._open.pop(claim.id, None)
        task = asyncio.create_task(self._end(reservation, used))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def round(self) -> None:
        """Renews what is open, and ends what is overdue; what cannot be done now is done by the next one."""
        async with self._turn:
            waiting = list(self._open.values())
            for at in range(0, len(waiting), RENEW_COUNT):
                await asyncio.gather(*(self._renew(one) for one in waiting[at : at + RENEW_COUNT]))
            with suppress(StoreLost):
                await self._store.tend(tuple(self._slots))

    async def close(self) -> None:
        """Carries out the ends that are under way, and stops."""
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.round()
        await cancel_all({*self._ending, *([self._task] if self._task else [])})

    async def _end(self, reservation: Reservation, used: Amounts) -> None:
        with suppress(StoreLost):  # found overdue, then
            await self._store.end(reservation.claim, used)

    async def _renew(self, reservation: Reservation) -> None:
        so_far = reservation.progress()
        used = reservation.claim.amounts if so_far is None else reservation.used(*so_far)
        with suppress(StoreLost):
            if not await self._store.renew(reservation.claim, used):
                self._open.pop(reservation.claim.id, None)
                reservation.expire()

    async def _rounds(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._due.wait()
            self._due.clear()
            try:
                await self.round()
            except Exception:  # whatever it was, the next round may do better
                log.exception("reservations could not be looked after")
