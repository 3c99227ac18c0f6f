"""Settlement: what each request used, counted exactly once however it ends.

Counts live in this process and begin at 0 with it; a durable ledger takes the same calls when it comes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from kit.errors import MillraceError
from services.inference.events import Receipt, Verdict
from services.inference.generation import Usage
from services.inference.quota.reservation import Reservation

RECENT_COUNT = 1_000  # enough for a p95 that is not moved by one request
MODEL_COUNT_MAX = 200  # names behind a pattern are the callers' to invent
OTHER = "(other)"


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

    def add(self, receipt: Receipt, failure: Exception | None) -> None:
        """Adds one request."""
        self.request_count += 1
        was_blocked = any(event.verdict is Verdict.BLOCK for event in receipt.safety)
        if isinstance(failure, MillraceError) and failure.reason == "CONTENT_BLOCKED":
            was_blocked = True
        elif failure is not None:
            self.failed_request_count += 1
        self.blocked_count += was_blocked
        if receipt.cache is not None and receipt.cache.is_hit:
            self.cache_hit_count += 1
        elif receipt.cache is not None and receipt.cache.outcome.name in ("MISS", "UNAVAILABLE"):
            self.cache_miss_count += 1
        if receipt.engine != "cache":
            self.prompt_token_count += receipt.usage.prompt_token_count
            self.completion_token_count += receipt.usage.completion_token_count
        self.cost_micro_usd += receipt.cost_micro_usd or 0
        self.unpriced_request_count += failure is None and receipt.cost_micro_usd is None


class Settlement:
    """Counts requests and how long they took."""

    def __init__(self) -> None:
        self.start_time = time.monotonic()
        self.totals = Totals()
        self.totals_by_model: dict[str, Totals] = {}
        self.durations_s: deque[float] = deque(maxlen=RECENT_COUNT)
        self.ttfts_s: deque[float] = deque(maxlen=RECENT_COUNT)

    @contextmanager
    def settle(self, receipt: Receipt) -> Iterator[None]:
        """Counts the request when the block ends: done, failed, or left by its caller."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # a bug of ours is a failed request too
            failure = error
            raise
        finally:
            if not receipt.duration_s:
                self.complete(receipt)
            if receipt.reservation:
                _give_back(receipt, receipt.reservation)
            self.totals.add(receipt, failure)
            self._of_model(receipt.model).add(receipt, failure)
            self.durations_s.append(receipt.duration_s)
            if receipt.ttft_s is not None:
                self.ttfts_s.append(receipt.ttft_s)

    def complete(self, receipt: Receipt) -> None:
        """Writes the final duration into a receipt that is about to leave."""
        receipt.duration_s = time.time() - receipt.created_time

    def _of_model(self, name: str) -> Totals:
        if name not in self.totals_by_model and len(self.totals_by_model) >= MODEL_COUNT_MAX:
            name = OTHER
        return self.totals_by_model.setdefault(name, Totals())


def _give_back(receipt: Receipt, reservation: Reservation) -> None:
    """Charges the caller's limits what the request has used; a kept answer was paid for by the one who made it."""
    if receipt.engine == "cache" or receipt.usage == Usage():
        reservation.release()
    else:
        reservation.settle(receipt.usage, receipt.cost_micro_usd)


def percentile(values: deque[float], share: float) -> float | None:
    """The value below which a share of the values lies; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
