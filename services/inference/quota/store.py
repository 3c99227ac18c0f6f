"""What keeps the counts: the one interface of the store in this process and of the one on Redis.

A claim is granted whole or not at all, whoever else claims at the same time. What is granted and held is ended by
exactly one call of `end`, by the one who claimed it or, where that one is lost, by whoever finds it overdue.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kit.errors import Unavailable
from services.inference.quota.limit import Claim, Standing

# A held claim that nobody renews for so long is overdue: three renewals may fail.
HOLD_MS = 30_000
# For so many times that long it can be found, to be ended by what was reported last; then what it reserved stays spent.
RECORD_HOLDS = 20
RECORD_MS = RECORD_HOLDS * HOLD_MS
# How many overdue claims are ended in one go.
OVERDUE_COUNT = 100


class StoreLost(Unavailable):
    """The store did not answer in time, or is known not to; what was `sent` may have been done all the same.

    Where it answered and did not do it, `refusal` has its words.
    """

    def __init__(self, *, sent: bool, refusal: str = "") -> None:
        super().__init__("QUOTAS_UNAVAILABLE", "limits cannot be checked now; retry", retry_after_ms=1_000)
        self.sent, self.refusal = sent, refusal


class QuotaStore(Protocol):
    """Counts claims; every method raises StoreLost where the store cannot be asked."""

    async def take(self, claim: Claim) -> tuple[Standing, ...]:
        """Grants a claim if every limit has room for it, and says where each stands; it was granted if all fit."""

    async def take_known(self, claim: Claim) -> tuple[Standing, ...] | None:
        """As `take`; None, and nothing done, where a day's or month's limit has no count yet: it may have been lost."""

    async def end(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Charges what was used of each limit in place of what was claimed; False where it had been ended before."""

    async def renew(self, claim: Claim, used: tuple[int, ...]) -> bool:
        """Keeps a claim for longer, and notes what was used so far; False where it had been ended before."""

    async def floor(self, claim: Claim) -> None:
        """Has each day's and month's limit of a claim count at least its amount as used: what others know was."""

    async def tend(self, slots: Collection[str]) -> None:
        """Does what is due now and then: ends the claims of these tenants that nobody renews any more.

        They are charged what was reported last; until something was, all that they reserved.
        """
