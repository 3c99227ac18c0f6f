"""Single flight over all replicas: of all who miss one answer, wherever they ask, one produces it.

Within this process a flight is what it is without Redis. What is added: the first to miss here claims the lease on
Redis before it leads. If another replica has it, the flight here is a foreign one; it is fed from there, once however
many callers wait, and ends as the one there does. A lease on Redis outlives its replica by seconds: this replica renews
those that it holds, and looks whether those that it follows are still there.

Nothing is sent until another replica follows: an answer that nobody else waits for costs two calls, to claim and to
end. Without Redis, flights are those of this process. No caller ever waits for Redis longer than a lookup may take.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import msgspec

from kit.cancelling import cancel_all
from services.cache.entry import Entry, outline_of
from services.cache.flight import Flight, FlightTable, Joined, parse_lease_id
from services.cache.key import Address
from services.cache.redis_leases import RENEWAL_S, Claim, Ending, Record, RedisLeases, Tenure
from services.cache.store import StoreUnavailable

# How often leases are looked at, and how often one is renewed: three times before it would run out.
BEAT_S: Final = 0.5
RENEW_EVERY_S: Final = RENEWAL_S / 3
# Chunks that come within this time are sent together.
SEND_INTERVAL_S: Final = 0.02
# Leases that are looked at together: fewer than there are connections, so that lookups find one.
BEAT_COUNT: Final = 16
# Longest that closing waits for leases that are being ended.
CLOSE_S: Final = 1.0


@dataclass(eq=False, slots=True)
class _Held:
    """A flight led here, under a lease that this replica renews.

    `sent_count` of its chunks have been sent.
    """

    flight: Flight
    renew_at: float
    followed: bool = False
    sent_count: int = 0
    sending: asyncio.Task[None] | None = None


@dataclass(eq=False, slots=True)
class _Followed:
    """A flight led elsewhere, read up to a position. `stale` means that there may be more."""

    flight: Flight
    check_at: float
    position: str = "0-0"
    stale: bool = True
    reading: asyncio.Task[None] | None = None


class SharedFlightTable(FlightTable):
    """The flights of this process, and those that other replicas lead and someone here waits for.

    Args:
        leases: The leases on Redis.
        read: Finds the entry at an address, to end flights whose answer was stored elsewhere.
    """

    def __init__(
        self, leases: RedisLeases, read: Callable[[Address], Awaitable[Entry | None]], flights_max: int = 100_000
    ) -> None:
        super().__init__(flights_max)
        self._leases, self._read = leases, read
        self._held: dict[str, _Held] = {}
        self._followed: dict[str, _Followed] = {}
        self._claiming: set[Flight] = set()
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        leases.on_loss(self._let_go)

    def start(self) -> None:
        """Begins to listen and to renew."""
        self._spawn(self._listen())
        self._spawn(self._beat())

    async def close(self) -> None:
        """Stops, once what is being ended has ended; leases still held run out, or are ended at another replica."""
        if self._ending:
            await asyncio.wait(self._ending.values(), timeout=CLOSE_S)
        await cancel_all(self._tasks)

    async def join(self, address: Address, ttl_s: float, since: float) -> Joined:
        """Joins the flight to an address, wherever it is led, or begins one."""
        joined = self._join(address, ttl_s)
        flight = joined.flight
        if flight is None or not joined.leads:
            return joined
        lease_id, claim = flight.lease_id, None
        self._claiming.add(flight)
        try:
            claim = await self._claim(flight, ttl_s, since)
        except StoreUnavailable:
            if self._leases.available:
                self._spawn(self._find_out(flight, lease_id))
        except asyncio.CancelledError:
            if flight.lease_id == lease_id:  # Else it is streamed here meanwhile.
                self.abandon(flight)
            self._give_back(flight, lease_id)
            raise
        finally:
            self._claiming.discard(flight)
        if flight.settled or flight.lease_id != lease_id:  # Meanwhile its answer was stored here, or is streamed here.
            if claim is not None and claim.lease_id == lease_id:
                self._give_back(flight, lease_id)
            return Joined(flight)
        if claim is None:
            return joined
        if claim.lease_id != lease_id:
            self._follow(flight, claim.lease_id, claim.lasts_s)
            return Joined(flight)
        self._hold(flight, followed=False)
        return Joined(flight, leads=True, entry=claim.entry)

    async def _claim(self, flight: Flight, ttl_s: float, since: float) -> Claim:
        """Claims the lease to a flight that begins; one that is just being ended from here is not worth following."""
        claim = await self._leases.claim(flight.address, flight.lease_id, ttl_s, since)
        while claim.lease_id in self._ending:
            await asyncio.wait([self._ending[claim.lease_id]], timeout=self._leases.left_s(since))
            claim = await self._leases.claim(flight.address, flight.lease_id, ttl_s, since)
        return claim

    async def _find_out(self, flight: Flight, lease_id: str) -> None:
        """Cares for a lease that was claimed in vain, as it seemed, and was given: others wait for it."""
        tenure, followed = await self._leases.renew(lease_id, flight.ends_at - _now())
        leads = not flight.settled and flight.lease_id == lease_id
        if tenure is Tenure.OURS and leads:
            self._hold(flight, followed=followed)
        elif tenure is Tenure.OURS:
            self._give_back(flight, lease_id)
        elif tenure is Tenure.ADOPTED and leads and flight.schema_tag is None:
            self._follow(flight, lease_id, lasts_s=0.0)

    async def lead(self, lease_id: str, address: Address) -> Flight | None:
        """The flight that a lease leads; a lease that another replica gave is cared for here from now on."""
        flight = await super().lead(lease_id, address)
        if flight is not None or parse_lease_id(lease_id) != (address.tenant, address.entry):
            return flight
        try:
            ttl_s = await self._leases.adopt(lease_id)
        except StoreUnavailable:
            return None
        return None if ttl_s is None else self._adopt(address, lease_id, ttl_s)

    async def release(self, lease_id: str) -> bool:
        """Ends the flight that a lease leads without an answer, whichever replica gave it."""
        if await super().release(lease_id):
            return True
        if parse_lease_id(lease_id) is None:
            return False
        try:
            released = await self._leases.release(lease_id)
        except StoreUnavailable:
            return False
        if lease_id in self._followed:
            self._look(self._followed[lease_id])
        return released

    def append(self, flight: Flight, chunk: bytes) -> None:
        """Adds a chunk, here and where it is followed."""
        super().append(flight, chunk)
        held = self._held.get(flight.lease_id)
        if held is not None and held.followed:
            self._send(held)

    def land(self, entry: Entry, kept: asyncio.Future[None] | None, streamed: Flight | None = None) -> None:
        """Gives an answer to those who wait for it: here at once, elsewhere when the store has it.

        Until then the lease stands, so that nobody elsewhere misses the answer and produces it again.
        """
        flight = self._by_key.get(entry.address.entry)
        held = flight is not None and flight.lease_id in self._held
        super().land(entry, kept, streamed)
        if not held:
            self._spawn(self._end_any(entry, kept))

    def _settle(self, flight: Flight, entry: Entry | None) -> None:
        held = self._held.pop(flight.lease_id, None)
        self._followed.pop(flight.lease_id, None)
        super()._settle(flight, entry)
        if held is not None:
            self._end(flight.lease_id, self._end_behind(held))

    def _follow(self, flight: Flight, lease_id: str, lasts_s: float) -> None:
        """Makes a flight one that is led elsewhere."""
        self._by_lease.pop(flight.lease_id, None)
        flight.lease_id, flight.foreign = lease_id, True
        flight.ttl_s = flight.ends_at = inf
        followed = self._followed[lease_id] = _Followed(flight, _now() + lasts_s)
        self._look(followed)

    def _adopt(self, address: Address, lease_id: str, ttl_s: float) -> Flight | None:
        """Makes a flight one that is led here; None if another one has begun meanwhile."""
        flight = self._by_key.get(address.entry)
        if flight is None:
            flight = self._begin(address, lease_id, ttl_s)
        elif flight.lease_id == lease_id or flight in self._claiming:
            self._followed.pop(lease_id, None)
            self._by_lease.pop(flight.lease_id, None)
            self._by_lease[lease_id] = flight
            flight.lease_id, flight.foreign = lease_id, False
            flight.ttl_s, flight.ends_at = ttl_s, _now() + ttl_s
        else:
            return None
        self._hold(flight, followed=True)
        return flight

    def _hold(self, flight: Flight, *, followed: bool) -> None:
        """Cares for the lease of a flight that is led here from now on."""
        held = self._held[flight.lease_id] = _Held(flight, _now() + RENEW_EVERY_S)
        if followed:
            self._share(held)

    def _share(self, held: _Held) -> None:
        """Sends what there is of an answer, and what comes, for another replica waits for it."""
        held.followed = True
        held.flight.followed.set()
        self._send(held)

    def _let_go(self) -> None:
        """Ends all that is led elsewhere: without Redis nothing more is heard of it, and one here may lead."""
        for followed in list(self._followed.values()):
            self.abandon(followed.flight)

    async def _listen(self) -> None:
        async with contextlib.aclosing(self._leases.notices()) as notices:
            async for notice in notices:
                if notice is None:
                    for followed in self._followed.values():
                        self._look(followed)
                elif notice.lease_id in self._followed:
                    self._look(self._followed[notice.lease_id])
                elif notice.lease_id in self._held and not notice.own:
                    self._spawn(self._renew(self._held[notice.lease_id]))

    async def _beat(self) -> None:
        """Renews what is held and checks what is followed, a few at a time."""
        while True:
            await asyncio.sleep(BEAT_S)
            now = _now()
            due: list[Coroutine[Any, Any, None]] = []
            for held in list(self._held.values()):
                if not self._expire(held.flight) and held.renew_at <= now:
                    due.append(self._renew(held))
            due += [self._check(followed) for followed in self._followed.values() if followed.check_at <= now]
            while due:
                await asyncio.wait([self._spawn(step) for step in due[:BEAT_COUNT]])
                del due[:BEAT_COUNT]

    async def _renew(self, held: _Held) -> None:
        flight = held.flight
        held.renew_at = _now() + RENEW_EVERY_S
        tenure, followed = await self._leases.renew(flight.lease_id, flight.ends_at - _now())
        if self._held.get(flight.lease_id) is not held:
            return
        if tenure is Tenure.OURS:
            if followed:
                self._share(held)
            return
        del self._held[flight.lease_id]
        if flight.schema_tag is None:  # Else it is streamed here; those who follow it here shall see its end.
            self._follow(flight, flight.lease_id, lasts_s=0.0)  # the next beat asks how long

    async def _check(self, followed: _Followed) -> None:
        """Ends a foreign flight whose lease is gone, unless its end is still to be read."""
        lasts_s = await self._leases.check(followed.flight.lease_id)
        if lasts_s is not None:
            followed.check_at = _now() + lasts_s
            return
        await self._look(followed)
        self.abandon(followed.flight)

    def _look(self, followed: _Followed) -> asyncio.Task[None]:
        """Reads what is new of a foreign flight; one at a time."""
        followed.stale = True
        if followed.reading is None or followed.reading.done():
            followed.reading = self._spawn(self._catch_up(followed))
        return followed.reading

    async def _catch_up(self, followed: _Followed) -> None:
        flight = followed.flight
        while followed.stale and not flight.settled and flight.foreign:
            followed.stale = False
            news = await self._leases.read(flight.lease_id, followed.position)
            followed.position = news.position
            for record in news.records:
                await self._apply(flight, record)
            if not news.goes_on:
                self.abandon(flight)

    async def _apply(self, flight: Flight, record: Record) -> None:
        """Does here what was done elsewhere."""
        if record.chunks:
            flight.schema_tag = record.schema_tag
            for chunk in record.chunks:
                super().append(flight, chunk)
        if record.ending is Ending.LANDED and record.entry is not None:
            super().land(msgspec.structs.replace(record.entry, chunks=tuple(flight.chunks)), None, flight)
        elif record.ending is Ending.STORED:
            entry = await self._read(flight.address)
            if entry is not None:
                super().land(entry, None)
        if record.ending is not None:
            self.abandon(flight)

    def _send(self, held: _Held) -> None:
        """Sends what was not sent yet; one at a time, so that what comes meanwhile goes together."""
        if held.sending is None or held.sending.done():
            held.sending = self._spawn(self._send_all(held))

    async def _send_all(self, held: _Held) -> None:
        flight = held.flight
        while held.sent_count < len(flight.chunks) and not flight.settled:
            chunks = tuple(flight.chunks[held.sent_count :])
            if not await self._leases.append(
                flight.lease_id, Record(flight.schema_tag, chunks), flight.ends_at - _now()
            ):
                return
            held.sent_count += len(chunks)
            await asyncio.sleep(SEND_INTERVAL_S)

    def _give_back(self, flight: Flight, lease_id: str) -> None:
        """Ends a lease that nobody here needs any more."""
        self._end(lease_id, self._end_unused(flight, lease_id))

    async def _end_unused(self, flight: Flight, lease_id: str) -> None:
        """Ends a lease that its flight did without; behind the store, for elsewhere the answer may be waited for."""
        landed = flight.entry is not None and await _stored(flight.kept)
        await self._leases.end(lease_id, Record(ending=Ending.STORED if landed else Ending.FAILED), told=False)

    def _end(self, lease_id: str, step: Coroutine[Any, Any, object]) -> None:
        """Ends a lease of this replica; until that is done, nobody here follows it."""
        self._ending[lease_id] = task = self._spawn(step)
        task.add_done_callback(lambda _: self._ending.pop(lease_id))

    async def _end_behind(self, held: _Held) -> None:
        """Ends a lease behind all that was sent under it, and behind the store.

        If it had ended before, unheard, a stored answer ends the one that came after it: others may wait under that.
        """
        flight = held.flight
        if held.sending is not None:
            await asyncio.wait([held.sending])
        stored = await _stored(flight.kept)
        ended = await self._leases.end(flight.lease_id, _last_record(held), told=held.followed)
        if stored and not ended and flight.entry is not None:
            await self._leases.end_any(flight.entry)

    async def _end_any(self, entry: Entry, kept: asyncio.Future[None] | None) -> None:
        """Ends whatever lease there is to an answer that was stored here without one of ours."""
        if await _stored(kept):
            await self._leases.end_any(entry)

    def _spawn(self, step: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        task = asyncio.create_task(_attempt(step))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _stored(kept: asyncio.Future[None] | None) -> bool:
    """Waits for the store, where it is to get an answer; false if it did not."""
    if kept is None:
        return True
    await asyncio.wait([kept])
    return not kept.cancelled() and kept.exception() is None


def _last_record(held: _Held) -> Record:
    flight = held.flight
    if flight.entry is None:
        return Record(ending=Ending.FAILED)
    if flight.schema_tag is None:
        return Record(ending=Ending.STORED)
    rest = tuple(flight.chunks[held.sent_count :])
    header = msgspec.structs.replace(outline_of(flight.entry), embedding=b"", savings=flight.entry.savings)
    return Record(flight.schema_tag, rest, Ending.LANDED, header)


async def _attempt(step: Coroutine[Any, Any, object]) -> None:
    """Takes a step on Redis that may be left undone: leases run out by themselves."""
    with contextlib.suppress(StoreUnavailable):
        await step


def _now() -> float:
    return asyncio.get_running_loop().time()
