"""Short ways to make what the ledger is about."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from pydantic import SecretStr

from kit.identity import Caller
from services.inference.database import migrating
from services.inference.database.database import Database
from services.inference.database.settings import DatabaseSettings
from services.inference.events import Attempt, AttemptOutcome, Receipt
from services.inference.generation import Usage
from services.inference.ledger.history import History
from services.inference.ledger.journal import Journal
from services.inference.ledger.ledger import Ledger
from services.inference.ledger.row import new_id
from services.inference.ledger.shipping import Shipping
from services.inference.ledger.store import LedgerStore
from services.inference.request import Request
from tests.inference.parts import request

ALICE = Caller("alice", "acme", "user", key_id="k1", key_name="alice's")
BYTES_MAX = 16 * 1024 * 1024


def asked(caller: Caller = ALICE) -> Request:
    """A request of a caller."""
    return msgspec.structs.replace(request(), caller=caller, tenant=caller.tenant)


def attempt(number: int = 1, outcome: AttemptOutcome = AttemptOutcome.RUNNING, **fields: object) -> Attempt:
    """A try at a target that costs 1 a token."""
    made = Attempt(number, "openai", "up:gpt", outcome, created_time=time.time(), target_model="gpt")
    if outcome is AttemptOutcome.OK:
        made.usage, made.usage_source, made.cost_micro_usd = Usage(3, 7), "reported", 10
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def answered(model: str = "gpt", created_time: float | None = None, *attempts: Attempt) -> Receipt:
    """The receipt of a request that was answered at the first try, or by these."""
    created_time = time.time() if created_time is None else created_time
    made = Receipt("r1", model, created_time=created_time, engine="openai", target="up:gpt", duration_s=0.5)
    made.attempts = list(attempts) or [attempt(outcome=AttemptOutcome.OK)]
    return made


class Books:
    """A ledger over a database, whose shipping is done by hand."""

    def __init__(self, folder: Path, database: Database, **settings: bool) -> None:
        self.database = database
        self.journal = Journal(folder, new_id(), BYTES_MAX)
        self.ledger = Ledger(self.journal, **settings)
        self.store = LedgerStore(database)
        self.shipping = Shipping(self.ledger, self.store, gather_s=0.01)
        self.history = History(database, self.shipping.flush)

    def record(self, receipt: Receipt | None = None, caller: Caller = ALICE, outcome: str = "ok") -> Receipt:
        """Records a request that has ended."""
        receipt = receipt or answered()
        self.ledger.record(asked(caller), receipt, outcome)
        return receipt


async def open_database(url: str, timeout_s: float = 5.0) -> Database:
    """A database whose schema is the code's."""
    database = Database(DatabaseSettings(url=SecretStr(url), timeout_s=timeout_s))
    await migrating.upgrade(database)
    return database
