"""Single flight: of many callers that miss one answer, one produces it and the others wait.

A flight is one answer in the making. It is led under a lease and ends when its answer lands, its leader gives up, or
its lease runs out; then whoever comes first leads the next. A table knows the flights of its own process only; what
other replicas fly is added by services/cache/shared_flight.py. No flight ever touches a store.
"""

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from math import inf
from typing import Final

from services.cache.entry import Entry
from services.cache.key import Address

# Landings remembered, to tell a lookup that was under way that its miss is out of date.
LANDINGS_MAX: Final = 4096
# Flights looked at for expiry whenever one begins: more than one, so that the table shrinks faster than it grows.
SWEEP_COUNT: Final = 2
# Those who follow a flight hear as often that this process lives, whether or not there is anything new.
PULSE_S: Final = 0.5


@dataclass(eq=False, slots=True)
class Flight:
    """One answer in the making. `schema_tag` is set while it is streamed; then `chunks` grows.

    A `foreign` flight is led by another replica, which also knows when its lease runs out. `followed` is set once
    somebody waits for the answer, here or at another replica. `kept` is done when the store has an answer that landed.
    """

    address: Address
    lease_id: str
    ttl_s: float
    ends_at: float
    foreign: bool = False
    schema_tag: str | None = None
    chunks: list[bytes] = field(default_factory=list)
    entry: Entry | None = None
    kept: asyncio.Future[None] | None = None
    settled: bool = False
    followed: asyncio.Event = field(default_factory=asyncio.Event)
    _settlement: asyncio.Event = field(default_factory=asyncio.Event)
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    def advance(self) -> None:
        """Wakes those who follow chunk by chunk, and on settlement everyone."""
        progress, self._progress = self._progress, asyncio.Event()
        progress.set()
        if self.settled:
            self._settlement.set()

    async def wait_settled(self) -> None:
        """Waits until the flight has landed or failed."""
        await self._settlement.wait()

    async def wait_progress(self) -> None:
        """Waits for the next chunk, or for the end."""
        if not self.settled:
            await self._progress.wait()


@dataclass(frozen=True, slots=True)
class Joined:
    """A flight that was joined, and whether the caller leads it. No flight: there are too many, the caller is alone.

    `entry` is what the store held when the lease was given, where that was looked up in the same step.
    """

    flight: Flight | None
    leads: bool = False
    entry: Entry | None = None


class FlightTable:
    """The flights under way, by entry digest."""

    def __init__(self, flights_max: int = 100_000) -> None:
        self._flights_max = flights_max
        self._by_key: dict[bytes, Flight] = {}
        self._by_lease: dict[str, Flight] = {}
        self._order: deque[Flight] = deque()
        self._landings: OrderedDict[bytes, int] = OrderedDict()
        self._landing_count = 0

    def start(self) -> None:
        """Begins what the table does by itself: nothing, in one process."""

    async def close(self) -> None:
        """Ends what the table does by itself."""

    @property
    def lease_count(self) -> int:
        """Leases held by callers of this process."""
        self._sweep(len(self._order))
        return len(self._by_lease)

    def mark(self) -> int:
        """A point in the order of landings, for `landed_since`."""
        return self._landing_count

    def landed_since(self, address: Address, mark: int) -> bool:
        """Whether an answer may have landed at an address after the mark; true when too much landed to know."""
        return self._landings.get(address.entry, 0) > mark or self._landing_count - mark > LANDINGS_MAX

    async def join(self, address: Address, ttl_s: float, since: float) -> Joined:
        """Joins the flight to an address, or begins one under a lease of `ttl_s`.

        `since` is when the lookup began, by the event loop's clock: the time that it may take counts from then.
        """
        return self._join(address, ttl_s)

    async def lead(self, lease_id: str, address: Address) -> Flight | None:
        """The flight to an address that a lease leads, unless it has ended."""
        flight = self._led(lease_id)
        return flight if flight is not None and flight.address == address else None

    async def release(self, lease_id: str) -> bool:
        """Ends the flight that a lease leads without an answer; false if it had ended."""
        flight = self._led(lease_id)
        if flight is None:
            return False
        self._settle(flight, None)
        return True

    def append(self, flight: Flight, chunk: bytes) -> None:
        """Adds a chunk to a streamed flight and renews its lease."""
        flight.ends_at = _now() + flight.ttl_s
        flight.chunks.append(chunk)
        flight.advance()

    def land(self, entry: Entry, kept: asyncio.Future[None] | None, streamed: Flight | None = None) -> None:
        """Gives an answer to those who wait for it; `kept` is done when the store has it, if it is to get it.

        Whoever produced it, it ends the flight under its key; but one that is being streamed is ended by its own stream
        (`streamed`) only, for those who follow it must see one answer.
        """
        key = entry.address.entry
        self._landing_count += 1
        self._landings[key] = self._landing_count
        self._landings.move_to_end(key)
        if len(self._landings) > LANDINGS_MAX:
            self._landings.popitem(last=False)
        flight = self._by_key.get(key)
        if flight is None:
            return
        flight.kept = kept
        if flight is streamed or flight.schema_tag is None:
            self._settle(flight, entry)

    def abandon(self, flight: Flight) -> None:
        """Ends a flight without an answer, unless it has ended."""
        if not flight.settled:
            self._settle(flight, None)

    async def settlement(self, flight: Flight, until: float) -> bool:
        """Waits for the end of a flight; false if it goes on at `until` (of the event loop's clock)."""
        return await self._wait(flight, flight.wait_settled, until)

    async def progress(self, flight: Flight, until: float, seen_count: int = 0) -> bool:
        """Waits for more than `seen_count` chunks or the end of a flight; false if neither came by `until`."""
        if len(flight.chunks) > seen_count:
            return True
        return await self._wait(flight, flight.wait_progress, until)

    async def follow(self, flight: Flight) -> AsyncGenerator[bytes | None, None]:
        """Yields the chunks of a streamed flight, as they come, until it settles; None where none came for a while."""
        flight.followed.set()
        seen_count = 0
        while True:
            while seen_count < len(flight.chunks):
                seen_count += 1
                yield flight.chunks[seen_count - 1]
            if flight.settled:
                return
            if not await self.progress(flight, _now() + PULSE_S, seen_count):
                yield None

    async def _wait(self, flight: Flight, event: Callable[[], Awaitable[None]], until: float) -> bool:
        """Waits for an event of a flight; wakes when the lease should end, for nobody else would end it."""
        if until > _now():
            flight.followed.set()
        while not self._expire(flight):
            ends_at = min(flight.ends_at, until)
            try:
                async with asyncio.timeout(None if ends_at == inf else max(0.0, ends_at - _now())):
                    await event()
                    return True
            except TimeoutError:
                if _now() >= until:
                    return flight.settled
        return True

    def _join(self, address: Address, ttl_s: float) -> Joined:
        self._sweep(SWEEP_COUNT)
        flight = self._by_key.get(address.entry)
        if flight is not None and not self._expire(flight):
            return Joined(flight)
        if len(self._by_key) >= self._flights_max:
            return Joined(None)
        return Joined(self._begin(address, new_lease_id(address), ttl_s), leads=True)

    def _begin(self, address: Address, lease_id: str, ttl_s: float) -> Flight:
        flight = Flight(address, lease_id, ttl_s, _now() + ttl_s)
        self._by_key[address.entry] = self._by_lease[lease_id] = flight
        self._order.append(flight)
        return flight

    def _led(self, lease_id: str) -> Flight | None:
        flight = self._by_lease.get(lease_id)
        return None if flight is None or self._expire(flight) else flight

    def _expire(self, flight: Flight) -> bool:
        """Settles a flight whose lease has run out; true if the flight has ended."""
        if not flight.settled and _now() >= flight.ends_at:
            self._settle(flight, None)
        return flight.settled

    def _settle(self, flight: Flight, entry: Entry | None) -> None:
        flight.entry, flight.settled = entry, True
        del self._by_key[flight.address.entry]
        self._by_lease.pop(flight.lease_id, None)
        flight.advance()

    def _sweep(self, count: int) -> None:
        """Looks at the oldest flights: those that have ended leave the queue, the others go to its end."""
        for _ in range(min(count, len(self._order))):
            flight = self._order.popleft()
            if not self._expire(flight):
                self._order.append(flight)


def new_lease_id(address: Address) -> str:
    """Names a lease: whose answer it is for, so that any replica can tell, and a part that nobody can guess."""
    return f"{address.tenant.hex()}.{address.entry.hex()}.{secrets.token_hex(16)}"


def parse_lease_id(lease_id: str) -> tuple[bytes, bytes] | None:
    """Reads the digests of tenant and entry that a lease is for; None if it cannot be one."""
    tenant, _, rest = lease_id.partition(".")
    entry, _, secret = rest.partition(".")
    try:
        return (bytes.fromhex(tenant), bytes.fromhex(entry)) if len(tenant) == len(entry) == 64 and secret else None
    except ValueError:
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
