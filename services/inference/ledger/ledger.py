"""The ledger: every attempt and every request leaves exactly one row, whatever becomes of this process or the database.

When an attempt begins, and again when its request has ended, a record goes to the journal before anybody is told; from
there it goes to the database behind everybody's back (`Shipping`). What a killed process leaves in its journal is
brought in by the next one that starts, or by one that runs beside it: attempts without an end become rows that say so.
It never makes a request wait for the database; it refuses new work where no row could be written for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import msgspec

from kit.errors import Unavailable
from services.inference.events import Attempt, Receipt
from services.inference.ledger import row
from services.inference.ledger.journal import NO_ROOM, Journal, Segment
from services.inference.request import Request

log = logging.getLogger(__name__)

RETRY_AFTER_MS = 5_000  # a disk is not made room on in a moment
DISK_FULL = "the disk of the ledger is full; whoever runs it must make room there"


class Ledger:
    """Takes records and makes them last.

    Args:
        journal: Where records are until the database has them.
        sync: Whether `recorded` waits for the disk.
        keep_texts: Whether prompts and answers are kept.

    Attributes:
        has_news: Set when there is something for the database.
    """

    def __init__(self, journal: Journal, sync: bool = False, keep_texts: bool = False) -> None:
        self.journal, self.keep_texts = journal, keep_texts
        self.has_news = asyncio.Event()
        self._sync = sync
        self._encode = msgspec.msgpack.Encoder().encode
        self._open: dict[str, list[Segment]] = {}  # where the beginnings of each request that runs are
        self._unwritten: deque[bytes] = deque()  # what a full disk did not take; bounded by the requests that ran then
        self._problem = ""  # why no new work is taken on
        self._disk_problem = ""  # why it did not take what is unwritten
        self._appended = self._synced = 0
        self._syncing: asyncio.Task[None] | None = None

    def check(self) -> None:
        """Refuses new work where no row could be written for it.

        Raises:
            Unavailable: The disk is full, or too much waits for the database (LEDGER_FULL).
        """
        problem = self._find_problem()
        if problem != self._problem:
            self._problem = problem
            if problem:
                log.warning("new requests are refused", extra={"reason": problem, "folder": str(self.journal.folder)})
            else:
                log.info("requests are recorded again")
        if problem:
            message = f"no more requests can be recorded: {problem}"
            raise Unavailable("LEDGER_FULL", message, retry_after_ms=RETRY_AFTER_MS)

    def begin(self, request: Request, receipt: Receipt, attempt: Attempt) -> None:
        """Records that an attempt begins, before it does."""
        receipt.ledger_id = receipt.ledger_id or row.new_id(receipt.created_time)
        segment = self._append(self._encode(row.begun(request, receipt, attempt)))
        if segment:
            segment.open_count += 1
            self._open.setdefault(receipt.ledger_id, []).append(segment)

    def record(self, request: Request, receipt: Receipt, outcome: str, error_reason: str = "") -> None:
        """Records a request that has ended, and its attempts; once for each.

        Args:
            request: Who asked, for what.
            receipt: What was done.
            outcome: ok, failed, blocked or cancelled.
            error_reason: Why it failed, UPPER_SNAKE.
        """
        receipt.ledger_id = receipt.ledger_id or row.new_id(receipt.created_time)
        made = row.entry(request, receipt, outcome, error_reason)
        if receipt.texts:
            made.prompt, made.completion = receipt.texts()
        self._append(self._encode(made))
        for segment in self._open.pop(receipt.ledger_id, ()):
            segment.open_count -= 1
        self.has_news.set()

    async def recorded(self) -> None:
        """Returns once what was recorded so far is as safe as the settings ask for."""
        wanted = self._appended
        while self._sync and self._synced < wanted:
            self._syncing = self._syncing or asyncio.create_task(self._have_synced())
            await asyncio.shield(self._syncing)

    def write_rest(self) -> None:
        """Writes what a full disk has not taken, as far as it does by now."""
        while self._unwritten:
            try:
                self.journal.append(self._unwritten[0])
            except OSError:
                return
            self._unwritten.popleft()

    def _find_problem(self) -> str:
        if self._unwritten:
            return self._disk_problem
        if self.journal.is_disk_full:
            return DISK_FULL
        return "the database does not take what has ended; retry later" if self.journal.is_behind else ""

    def _append(self, record: bytes) -> Segment | None:
        try:
            segment = self.journal.append(record)
        except OSError as error:
            self._disk_problem = DISK_FULL if error.errno in NO_ROOM else "the disk does not take them; retry later"
            if not self._unwritten:
                log.exception("the ledger cannot be written; new requests are refused until it can")
            self._unwritten.append(record)
            return None
        self._appended += 1
        return segment

    async def _have_synced(self) -> None:
        """Has everything so far on the disk; whoever comes meanwhile shares the next turn."""
        appended = self._appended
        try:
            await asyncio.to_thread(self.journal.sync)
            self._synced = appended
        finally:
            self._syncing = None
