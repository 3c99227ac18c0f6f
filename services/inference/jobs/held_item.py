"""An item in a worker's hands: its lease is renewed and its steps are told while it is done.

It stops the work where the lease is lost, for somebody else has the item then, and where its job is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from kit.cancelling import cancel_all
from kit.errors import Unavailable
from services.inference.jobs.item_store import ItemStore, Lease
from services.inference.jobs.job import Claim, Outcome

log = logging.getLogger(__name__)

FLUSH_S = 0.1  # steps become visible together: a page of them costs as much as one
RENEW_SHARE = 0.2  # of a lease: four renewals may fail before it is lost


class HeldItem:
    """One claimed item.

    Args:
        store: Where it was claimed.
        claim: The claim.
        lease_s: How long the claim holds without being renewed.
    """

    def __init__(self, store: ItemStore, claim: Claim, lease_s: float) -> None:
        self._store, self._claim, self._renew_s = store, claim, lease_s * RENEW_SHARE
        self._steps: list[bytes] = []
        self._is_over = asyncio.Event()
        self.lease = Lease.HELD

    def take(self, step: bytes) -> None:
        """Takes a step, to be told soon."""
        self._steps.append(step)

    async def keep(self, doing: asyncio.Task[Any]) -> None:
        """Renews and tells until the work is over; cancels it where it must not go on."""
        renewed = asyncio.get_running_loop().time()
        while not self._is_over.is_set():
            await _sleep(self._is_over, FLUSH_S if self._claim.keep_events else self._renew_s)
            now = asyncio.get_running_loop().time()
            try:
                if now - renewed >= self._renew_s:
                    renewed = now
                    self.lease = await self._store.renew(self._claim)
                if self._steps and self.lease is Lease.HELD:
                    await self._tell()
            except Exception as error:
                if not isinstance(error, Unavailable):
                    log.exception("an item of a job could not be kept")
                continue  # the lease holds for a while; whether it is lost is found out when the database is back
            if self.lease is not Lease.HELD:
                await cancel_all({doing})
                return

    async def _tell(self) -> None:
        count = len(self._steps)
        if not await self._store.tell(self._claim, self._steps[:count]):
            self.lease = Lease.LOST
        del self._steps[:count]

    async def end(self, outcome: Outcome) -> None:
        """Records the outcome with the steps that are not told yet; waits for a database that is away.

        The claim stands while the database is away, since nobody can take it then.
        """
        while True:
            try:
                await self._store.end(self._claim, outcome, self._steps)
            except Unavailable as error:
                await asyncio.sleep((error.retry_after_ms or 1_000) / 1000)
            else:
                return

    def let_go(self) -> None:
        """Ends the keeping: the work is over."""
        self._is_over.set()


async def _sleep(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return
