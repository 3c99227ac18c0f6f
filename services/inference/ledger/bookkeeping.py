"""Bookkeeping: the ledger's parts and their life, from the first record to the last that is shipped."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Gauge

from kit import names
from kit.errors import ConfigError
from services.inference.database.database import Database
from services.inference.ledger.history import History
from services.inference.ledger.journal import Journal
from services.inference.ledger.ledger import Ledger
from services.inference.ledger.retention import Retention
from services.inference.ledger.row import new_id
from services.inference.ledger.settings import LedgerSettings
from services.inference.ledger.shipping import Shipping
from services.inference.ledger.store import LedgerStore

CLOSE_S = 5.0  # what is left then waits for the next start


class Bookkeeping:
    """Everything about the ledger of this process.

    Args:
        settings: Where rows wait, and how long they are kept.
        database: Where they go.
        registry: Where the metrics are.

    Attributes:
        ledger: Takes records.
        shipping: Brings them to the database.
        history: Tells of them.

    Raises:
        ConfigError: The folder cannot be used.
    """

    def __init__(self, settings: LedgerSettings, database: Database, registry: CollectorRegistry) -> None:
        try:
            journal = Journal(settings.folder, new_id(), settings.bytes_max)
        except OSError as error:
            problem = f"MILLRACE_INFERENCE_LEDGER_FOLDER={str(settings.folder)!r} cannot be used: {error.strerror}"
            raise ConfigError(problem) from None
        store = LedgerStore(database)
        self.ledger = Ledger(journal, settings.sync, settings.keep_texts)
        self.shipping = Shipping(self.ledger, store)
        self.history = History(database, self.shipping.flush)
        self._retention = Retention(store, settings)
        self._task: asyncio.Task[None] | None = None
        waiting = Gauge(names.LEDGER_WAITING_BYTES, "Bytes of rows that wait for the database.", registry=registry)
        waiting.set_function(lambda: journal.waiting_bytes)
        lag = Gauge(names.LEDGER_LAG, "For how long rows have been waiting in vain.", registry=registry)
        lag.set_function(lambda: self.shipping.lag_s)

    def start(self, ready: asyncio.Event) -> None:
        """Ships and deletes from now on, or from when the database can be used at all: then `ready` is set."""
        self.shipping.start(ready)
        self._task = asyncio.create_task(self._delete(ready))

    async def close(self) -> None:
        """Ships what is left; nothing may be recorded any more."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.shipping.close(CLOSE_S)
        self.ledger.journal.close()

    async def _delete(self, ready: asyncio.Event) -> None:
        await ready.wait()
        await self._retention.run()
