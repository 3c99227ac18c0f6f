"""Answers that calls of this process make: where those who followed one go on when the cache, which told it, is gone.

Without it all of them would ask a target at the same instant. As it is they are told what is being made here; where
nothing is, the first of them makes it and the others wait for that one to begin, one after the other. It holds no
answer: one that nobody makes or keeps any more is gone from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from weakref import WeakValueDictionary

from services.inference.caching.cache_port import CacheKey, FlightNews
from services.inference.caching.flight import Flight

# Longest that one may take to begin before the next one tries: its caller may have left.
CLAIM_S = 1.0


class Nearby:
    """The answers of one process that are being made, and who is about to make one."""

    def __init__(self) -> None:
        self._flights: WeakValueDictionary[CacheKey, Flight] = WeakValueDictionary()
        self._claims: dict[CacheKey, asyncio.Event] = {}

    def note(self, key: CacheKey, flight: Flight) -> None:
        """Notes an answer that begins; the latest one to a key counts."""
        self._flights[key] = flight
        self._settle(key, self._claims.get(key))

    async def find(self, key: CacheKey) -> Flight | None:
        """Waits for an answer that is about to be made here; None where this call is to make it."""
        while True:
            flight = self._flights.get(key)
            if flight and flight.may_be_followed:
                return flight
            claim = self._claims.get(key)
            if claim is None:
                self._claims[key] = claim = asyncio.Event()
                asyncio.get_running_loop().call_later(CLAIM_S, self._settle, key, claim)
                return None
            await claim.wait()

    def _settle(self, key: CacheKey, claim: asyncio.Event | None) -> None:
        """Wakes those who wait for an answer to begin."""
        if claim and self._claims.get(key) is claim:
            del self._claims[key]
            claim.set()


class Near:
    """One answer, for a call that follows it.

    Args:
        nearby: The answers of this process.
        key: Which one it is.
        ask: Asks the cache for it from its beginning.
    """

    def __init__(self, nearby: Nearby, key: CacheKey, ask: Callable[[], AsyncGenerator[FlightNews, None]]) -> None:
        self._nearby, self._key, self.ask = nearby, key, ask

    async def find(self) -> AsyncGenerator[FlightNews, None] | None:
        """Tells it without the cache, from its beginning; None where this call is to make it."""
        flight = await self._nearby.find(self._key)
        return flight.tell() if flight else None
