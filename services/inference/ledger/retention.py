"""Retention: deletes what is older than the settings allow, a little at a time. Sums by the hour are never deleted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from sqlalchemy import Table

from kit.errors import Unavailable
from services.inference.ledger import tables
from services.inference.ledger.settings import LedgerSettings
from services.inference.ledger.store import DELETED_AT_ONCE, LedgerStore

log = logging.getLogger(__name__)

INTERVAL_S = 3_600.0
PAUSE_S = 0.05  # between two deletions: others want to write, too
DAY_MS = 86_400_000


class Retention:
    """Deletes old rows; every replica may, for what one has deleted the others do not find."""

    def __init__(self, store: LedgerStore, settings: LedgerSettings, clock: Callable[[], float] = time.time) -> None:
        self._store, self._clock = store, clock
        self._days: list[tuple[Table, int]] = [(tables.texts, settings.text_days)]
        if settings.row_days is not None:
            self._days += [(tables.attempts, settings.row_days), (tables.requests, settings.row_days)]

    async def run(self) -> None:
        """Deletes, once an hour, for ever."""
        while True:
            try:
                await self.delete()
            except Unavailable:
                log.warning("old rows were not deleted: the database is away")
            except Exception:
                log.exception("old rows were not deleted")
            await asyncio.sleep(INTERVAL_S)

    async def delete(self) -> None:
        """Deletes what is too old now.

        Raises:
            Unavailable: The database does not answer.
        """
        for table, days in self._days:
            until_ms = int(self._clock() * 1000) - days * DAY_MS
            deleted_count = DELETED_AT_ONCE
            while deleted_count >= DELETED_AT_ONCE:
                deleted_count = await self._store.delete_before(table, until_ms)
                await asyncio.sleep(PAUSE_S)
