"""The nouns of quotas: a limit, where it stands, and what one request claims of several at once.

Plain data that the rules, the stores and the wire share; it counts nothing itself.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Unit(IntEnum):
    """What is counted; the numbers are the contract's."""

    REQUESTS = 1
    TOKENS = 2
    MICRO_USD = 3


class Window(IntEnum):
    """Over which time it is counted; the numbers are the contract's.

    A minute flows: what was used comes back bit by bit, as into a bucket. Days and months are UTC's, and begin anew.
    """

    AT_ONCE = 1
    MINUTE = 2
    DAY = 3
    MONTH = 4


BUDGETS = (Window.DAY, Window.MONTH)


def amount_in(unit: Unit, requests: int, tokens: int, micro_usd: int) -> int:
    """Of several amounts the one that is counted."""
    return tokens if unit is Unit.TOKENS else micro_usd if unit is Unit.MICRO_USD else requests


class Limit(msgspec.Struct, frozen=True, cache_hash=True):
    """The most that one subject may use.

    Attributes:
        name: What it is, as `user_requests_per_minute`.
        subject: Whose it is, as `user:alice`; for messages and statuses.
        key: What a store counts it under; tells nobody's name.
        maximum: Per window, or at once.
        burst: Most that can be taken in one go, `maximum` but for minutes.
    """

    name: str
    subject: str
    key: str
    unit: Unit
    window: Window
    maximum: int
    burst: int


class LimitState(msgspec.Struct, frozen=True):
    """Where a limit stands after a request was let in or refused; `reset_s` is the time until it is whole again."""

    name: str
    unit: Unit
    window: Window
    limit: int
    remaining: int
    reset_s: float


class Claim(msgspec.Struct, frozen=True):
    """What one request wants of several limits: all of it or nothing.

    Attributes:
        id: Tells it from every other claim; empty where it only asks, with amounts of 0, and nothing is held.
        slot: What all its keys share, one per tenant, so that they are in one place.
        limits: The limits.
        amounts: How much of each, in its unit.
    """

    id: str
    slot: str
    limits: tuple[Limit, ...]
    amounts: tuple[int, ...]

    @property
    def is_held(self) -> bool:
        """Whether something of it is still to be settled once the request has ended; a request that came, came."""
        if self.id:
            for limit in self.limits:
                if limit.unit is not Unit.REQUESTS or limit.window is Window.AT_ONCE:
                    return True
        return False


class Standing(msgspec.Struct, frozen=True):
    """What a store says of one limit of a claim.

    Attributes:
        fits: Whether it had room for the amount.
        remaining: What is left, after the amount where the claim was granted.
        wait_ms: Until the amount will fit if nobody else comes; None where it never can, 0 where it fits.
        reset_ms: Until the limit is whole again; 0 for limits on what runs at once.
    """

    fits: bool
    remaining: int
    wait_ms: int | None
    reset_ms: int
