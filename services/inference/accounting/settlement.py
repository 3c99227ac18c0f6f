"""Settlement: the one place where a request ends, exactly once, however it ends.

What it used is counted (in this process, from 0 at its start), recorded in the ledger and charged to its caller's
limits. A request that was not let in has not begun and leaves nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol

import msgspec

from kit.errors import MillraceError
from services.inference.accounting.spending import NOTHING, Spent, spent
from services.inference.events import Attempt, AttemptOutcome, CacheOutcome, Receipt, Verdict
from services.inference.generation import Prompt
from services.inference.ledger.transcript import Transcript
from services.inference.quota.reservation import Reservation
from services.inference.request import Request

RECENT_COUNT = 1_000  # enough for a p95 that is not moved by one request
MODEL_COUNT_MAX = 200  # names behind a pattern are the callers' to invent
OTHER = "(other)"
BLOCKED = "CONTENT_BLOCKED"
MISSES = (CacheOutcome.MISS, CacheOutcome.UNAVAILABLE)
# Limits that refuse a request before anything was done: a flood of them must cost nothing.
NOT_ADMITTED = frozenset({"RATE_LIMITED", "TOKENS_LIMITED", "BUDGET_EXCEEDED", "CONCURRENCY_LIMITED", "LEDGER_FULL"})


class Totals(msgspec.Struct):
    """What was used since the process started; money in millionths of a US dollar."""

    request_count: int = 0
    failed_request_count: int = 0
    prompt_token_count: int = 0
    completion_token_count: int = 0
    cache_hit_count: int = 0
    cache_miss_count: int = 0
    blocked_count: int = 0
    cost_micro_usd: int = 0
    unpriced_request_count: int = 0

    def add(self, receipt: Receipt, used: Spent, failure: Exception | None) -> None:
        """Adds one request and what it used."""
        self.request_count += 1
        was_blocked = bool(receipt.safety) and any(event.verdict is Verdict.BLOCK for event in receipt.safety)
        if isinstance(failure, MillraceError) and failure.reason == BLOCKED:
            was_blocked = True
        elif failure is not None:
            self.failed_request_count += 1
        self.blocked_count += was_blocked
        if receipt.cache is not None and receipt.cache.is_hit:
            self.cache_hit_count += 1
        elif receipt.cache is not None and receipt.cache.outcome in MISSES:
            self.cache_miss_count += 1
        self.prompt_token_count += used.usage.prompt_token_count
        self.completion_token_count += used.usage.completion_token_count
        self.cost_micro_usd += used.cost_micro_usd or 0
        self.unpriced_request_count += used.cost_micro_usd is None


class Recorder(Protocol):
    """Who makes rows last: the ledger."""

    keep_texts: bool
    """Whether prompts and answers are kept."""

    def check(self) -> None:
        """Refuses new work where no row could be written for it; raises Unavailable."""

    def begin(self, request: Request, receipt: Receipt, attempt: Attempt) -> None:
        """Records that an attempt begins."""

    def record(self, request: Request, receipt: Receipt, outcome: str, error_reason: str) -> None:
        """Records that a request has ended, with its attempts."""

    async def recorded(self) -> None:
        """Returns once what was recorded is as safe as the settings ask for."""


class Witness(Protocol):
    """Who counts requests for those that look on; told of each one twice, and never waits."""

    def began(self, receipt: Receipt) -> None:
        """A request begins."""

    def ended(self, receipt: Receipt, used: Spent, outcome: str, reason: str) -> None:
        """A request has ended: outcome ok, failed, blocked or cancelled, and the reason of its error."""

    def refused(self, receipt: Receipt, reason: str) -> None:
        """A request was not let in, for a reason of NOT_ADMITTED; nothing was done for it."""


class Settlement:
    """Ends requests: counts them, records them, settles what was reserved for them.

    Args:
        recorder: Makes rows last; None keeps none.

    Attributes:
        witnesses: Who else counts.
    """

    def __init__(self, recorder: Recorder | None = None) -> None:
        self._recorder = recorder
        self.witnesses: tuple[Witness, ...] = ()
        self.start_time = time.monotonic()
        self.totals = Totals()
        self.totals_by_model: dict[str, Totals] = {}
        self.durations_s: deque[float] = deque(maxlen=RECENT_COUNT)
        self.ttfts_s: deque[float] = deque(maxlen=RECENT_COUNT)

    def begin(self, request: Request, receipt: Receipt, attempt: Attempt) -> None:
        """Takes note of an attempt before it begins."""
        if self._recorder:
            self._recorder.begin(request, receipt, attempt)

    def transcribe(self, receipt: Receipt, prompt: Prompt) -> Transcript | None:
        """What takes down prompt and answer of a request; None where they are not kept."""
        if not (self._recorder and self._recorder.keep_texts):
            return None
        transcript = Transcript(prompt)
        receipt.texts = transcript.texts
        return transcript

    @contextmanager
    def settle(self, request: Request, receipt: Receipt) -> Iterator[Callable[[], Awaitable[None]]]:
        """Settles the request when the block ends: done, failed, or left by its caller.

        Yields a function that settles it at once, for who is about to say that it is done: what a caller was told is
        recorded by then.

        Raises:
            Unavailable: No row could be written for the request (LEDGER_FULL).
        """
        if self._recorder:
            self._recorder.check()
        for witness in self.witnesses:
            witness.began(receipt)
        is_settled = False
        failure: Exception | None = None

        async def done() -> None:
            nonlocal is_settled
            # Where safety ends an answer its attempt still runs: what that has used is known when the block ends.
            if all(one.outcome is not AttemptOutcome.RUNNING for one in receipt.attempts):
                is_settled = True
                self._end(request, receipt, "ok", None)
                if self._recorder:
                    await self._recorder.recorded()

        outcome = "cancelled"
        try:
            yield done
            outcome = "ok"
        except Exception as error:  # a bug of ours is a failed request too
            failure, outcome = error, "failed"
            raise
        finally:
            if not is_settled:
                self._end(request, receipt, outcome, failure)

    def complete(self, receipt: Receipt) -> None:
        """Writes the final duration into a receipt that is about to leave."""
        receipt.duration_s = receipt.age_s()

    def _end(self, request: Request, receipt: Receipt, outcome: str, failure: Exception | None) -> None:
        used = spent(receipt)
        if receipt.reservation:
            _give_back(receipt.reservation, used)
        reason = failure.reason if isinstance(failure, MillraceError) else "INTERNAL" if failure else ""
        if reason in NOT_ADMITTED and not receipt.attempts:
            for witness in self.witnesses:
                witness.refused(receipt, reason)
            return
        if not receipt.duration_s:
            self.complete(receipt)
        if used.usage != NOTHING:
            receipt.cost_micro_usd = used.cost_micro_usd
            if receipt.usage == NOTHING:
                receipt.usage = used.usage  # of an answer that broke or was left
        self._count(receipt, used, failure)
        outcome = "blocked" if reason == BLOCKED else outcome
        for witness in self.witnesses:
            witness.ended(receipt, used, outcome, reason)
        if self._recorder:
            self._recorder.record(request, receipt, outcome, reason)

    def _count(self, receipt: Receipt, used: Spent, failure: Exception | None) -> None:
        self.totals.add(receipt, used, failure)
        self._of_model(receipt.model).add(receipt, used, failure)
        self.durations_s.append(receipt.duration_s)
        if receipt.ttft_s is not None:
            self.ttfts_s.append(receipt.ttft_s)

    def _of_model(self, name: str) -> Totals:
        if name not in self.totals_by_model and len(self.totals_by_model) >= MODEL_COUNT_MAX:
            name = OTHER
        return self.totals_by_model.setdefault(name, Totals())


def _give_back(reservation: Reservation, used: Spent) -> None:
    """Charges the caller's limits what the request has used; a kept answer was paid for by the one who made it."""
    if used.usage == NOTHING:
        reservation.release()
    else:
        reservation.settle(used.usage, used.cost_micro_usd)


def percentile(values: Iterable[float], share: float) -> float | None:
    """The value below which a share of the values lies; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
