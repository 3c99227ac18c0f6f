"""The cache: finds answers, keeps answers, and lets one caller produce what many miss.

This is where a lookup's steps are told. It never reads an answer, and a store that fails only ever makes it miss.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Final

from kit.errors import FailedPrecondition
from kit.identity import remaining_s
from services.cache.entry import Entry, EntryDraft, Savings, parse_entry_id
from services.cache.flight import Flight, FlightTable, Joined
from services.cache.key import Address, KeySpace, Namespace
from services.cache.query import (
    Completed,
    Following,
    Found,
    Hit,
    HitKind,
    Lease,
    LeaseQuery,
    LookupEvent,
    Miss,
    MissReason,
    Query,
    Restarted,
    ShadowVerdict,
    Waiting,
    judge,
)
from services.cache.refresh import RefreshWatch
from services.cache.stats import Stats
from services.cache.store import Clock, EntryStore, Selector, StoreUnavailable

if TYPE_CHECKING:  # its libraries take time and memory that a service without semantic lookups need not spend
    from services.cache.semantic.matcher import Matcher

# Part of a caller's remaining time that a wait leaves, so that the miss still reaches it; and the most that it leaves.
DEADLINE_MARGIN = 0.1
DEADLINE_MARGIN_MAX_S = 0.25

UNAVAILABLE: Final = Miss(MissReason.STORE_UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of an answer that was kept while it was produced: what it saves, and what a comparison came to."""

    savings: Savings | None = None
    verdict: ShadowVerdict | None = None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long entries live where a draft does not say, and by how much each is shortened at random."""

    ttl_ms: int
    ttl_jitter: float
    stale_for_ms: int


class Cache:
    """Finds and keeps answers.

    Args:
        store: Where entries are kept.
        flights: The answers in the making.
        stats: What is counted.
        keys: Where what is kept is.
        lifetime: How long entries live.
        watch: Tells which of them to produce anew.
        matcher: Finds answers to similar questions; None where only the same question will do.
        clock: Milliseconds since the epoch.
        random: Numbers in [0, 1), for the jitter.
    """

    def __init__(
        self,
        store: EntryStore,
        flights: FlightTable,
        stats: Stats,
        keys: KeySpace,
        lifetime: Lifetime,
        watch: RefreshWatch,
        matcher: Matcher | None = None,
        *,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.store, self.flights, self.stats, self.keys = store, flights, stats, keys
        self.matcher = matcher
        self._keeping: dict[bytes, Entry] = {}  # What the store is just being given; found all the same.
        self._lifetime, self._watch, self._clock, self._random = lifetime, watch, clock, random

    async def lookup(self, query: Query) -> Found:
        """Finds an answer, waits for one in the making, or gives a lease, as the query says."""
        address, arrived_ms = self.keys.address(query.key), self._clock()
        found, _ = await self._find_or_join(query, address, arrived_ms, streamed=False)
        self.stats.count_found(address.tenant, found)
        return found

    async def lookup_stream(self, query: Query) -> AsyncGenerator[LookupEvent, None]:
        """Finds an answer as `lookup` does, and tells of one in the making chunk by chunk."""
        address, arrived_ms = self.keys.address(query.key), self._clock()
        while True:
            found, flight = await self._find_or_join(query, address, arrived_ms, streamed=True)
            if flight is None:
                self.stats.count_found(address.tenant, found)
                lease = found.lease if isinstance(found, Miss) else found.refresh
                try:
                    async for event in _replay(found):
                        yield event
                    lease = None
                finally:
                    if lease is not None:  # Its caller left before it got it.
                        await self.flights.release(lease.lease_id)
                return
            yield Following()
            chunk_count = 0
            async with aclosing(self.flights.follow(flight)) as chunks:
                async for chunk in chunks:
                    chunk_count += chunk is not None
                    yield Waiting() if chunk is None else chunk
            if flight.entry is not None:
                self.stats.count_found(address.tenant, _shared(judge(flight.entry, query, arrived_ms)))
                yield Completed(flight.entry, chunk_count)
                return
            yield Restarted()

    async def keep(
        self,
        draft: EntryDraft,
        chunks: Sequence[bytes],
        savings: Savings | None,
        verdict: ShadowVerdict | None = None,
        streamed: Flight | None = None,
    ) -> Entry:
        """Gives a complete answer to those who wait, and to those who followed it as `streamed`, and keeps it.

        Raises:
            StoreUnavailable: It was given to those who wait, and not kept.
        """
        entry = self._entry(draft, chunks, savings)
        digest = entry.address.entry
        kept = asyncio.ensure_future(self._put(entry, verdict))
        self._keeping[digest] = entry
        self.flights.land(entry, kept, streamed)
        try:
            await kept
        finally:
            if self._keeping.get(digest) is entry:
                del self._keeping[digest]
        self.stats.count_store(entry.address.tenant)
        return entry

    async def keep_stream(
        self,
        draft: EntryDraft,
        chunks: AsyncIterator[bytes | Finish],
        lease_id: str,
        on_followed: Callable[[], Awaitable[None]] | None = None,
    ) -> Entry:
        """Keeps an answer while it is produced; what is not bytes ends it.

        `on_followed` is called once, when somebody waits for the answer.

        Raises:
            FailedPrecondition: The chunks ended before the answer did; STREAM_INCOMPLETE.
        """
        flight = await self._flight_of(draft, lease_id)
        telling = asyncio.create_task(_tell_followed(flight, on_followed)) if flight and on_followed else None
        kept: list[bytes] = []
        try:
            async for chunk in chunks:
                if not isinstance(chunk, bytes):
                    return await self.keep(draft, kept, chunk.savings, chunk.verdict, flight)
                kept.append(chunk)
                if flight is not None and not flight.settled:
                    self.flights.append(flight, chunk)
        finally:
            if telling is not None:
                telling.cancel()
            if flight is not None:
                self.flights.abandon(flight)
        raise FailedPrecondition("STREAM_INCOMPLETE", "The stream ended without `finish`; nothing was kept.")

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them; once it returns, none of them is found."""
        count = await self.store.delete(selector, dry_run=dry_run)
        if not dry_run:
            for digest, entry in list(self._keeping.items()):
                if selector.means(entry):
                    del self._keeping[digest]
        return count

    async def report_false_hit(self, namespace: Namespace, entry_id: str, compare_text: str | None = None) -> bool:
        """Removes an entry that did not fit the text that was looked up; false if it was gone."""
        entry = parse_entry_id(entry_id)
        if entry is None:
            return False
        tenant = self.keys.tenant(namespace.tenant)
        if self.matcher is not None:
            await self.matcher.report(tenant, entry_id, compare_text)
        removed = await self.delete(Selector(tenant, self.keys.namespace(namespace), entry))
        if removed:
            self.stats.count_false_hit(tenant)
        return removed > 0

    async def _find_or_join(
        self, query: Query, address: Address, arrived_ms: int, *, streamed: bool
    ) -> tuple[Found, Flight | None]:
        """Looks in the store, then among the flights, until there is an answer, a lease, or no time left.

        Returns:
            What was found; and if `streamed`, a flight whose chunks have begun, in which case what was found is a miss.
        """
        mark, since = self.flights.mark(), _now()
        found = await self._find(query, address, arrived_ms)
        asked_s = _now() - since
        found = await self._similar(query, address, found, arrived_ms)
        since = _now() - asked_s  # Looking for similar questions has a time of its own.
        if query.lease is None:
            return found, None
        if isinstance(found, Hit):
            return await self._refreshed(found, query.lease, since), None
        until = _until(query.lease)
        while True:
            if found != UNAVAILABLE and self.flights.landed_since(address, mark):  # Meanwhile: do not produce it twice.
                mark = self.flights.mark()
                found = await self._find(query, address, arrived_ms)
                if isinstance(found, Hit):
                    return found, None
                continue
            joined = await self.flights.join(address, query.lease.ttl_s, since)
            if joined.flight is None:
                return found, None
            if joined.leads:
                return self._lead(joined, found, query, arrived_ms), None
            if not await self._wait(joined.flight, query, until, streamed=streamed):
                return Miss(MissReason.LEASED), None
            if not joined.flight.settled:
                return found, joined.flight
            answer = _shared(judge(joined.flight.entry, query, arrived_ms))
            if isinstance(answer, Hit):
                return answer, None
            since = _now()

    async def _refreshed(self, hit: Hit, lease: LeaseQuery, since: float) -> Hit:
        """Adds to a hit, where it is due and its caller can, the lease to produce the answer anew."""
        entry = hit.entry
        if not lease.refresh or hit.kind is not HitKind.EXACT or not self._watch.due(entry, self._clock()):
            return hit
        joined = await self.flights.join(entry.address, lease.ttl_s, since)
        if joined.flight is None or not joined.leads:
            return hit
        if joined.entry is not None and joined.entry.created_ms > entry.created_ms:  # Another replica was first.
            self.flights.land(joined.entry, None)
            return hit
        return replace(hit, refresh=Lease(joined.flight.lease_id, lease.ttl_s))

    def _lead(self, joined: Joined, found: Miss, query: Query, arrived_ms: int) -> Found:
        """Gives the lease that was got, unless the answer is there by now: then nobody needs to produce it."""
        assert joined.flight is not None, "a leader has a flight"
        assert query.lease is not None, "a leader asked for a lease"
        answer = judge(joined.entry, query, arrived_ms)
        if isinstance(answer, Hit):
            self.flights.land(answer.entry, None)
            return answer
        return replace(found, lease=Lease(joined.flight.lease_id, query.lease.ttl_s))

    async def _wait(self, flight: Flight, query: Query, until: float, *, streamed: bool) -> bool:
        """Waits for the end of a flight, or if `streamed` for a first chunk that fits; false if none came in time."""
        if streamed:
            if not await self.flights.progress(flight, until):
                return False
            if flight.settled or flight.schema_tag == query.schema_tag:
                return True
        return await self.flights.settlement(flight, until)

    async def _find(self, query: Query, address: Address, arrived_ms: int) -> Found:
        entry = self._keeping.get(address.entry)
        if entry is None:
            try:
                entry = await self.store.get(address)
            except StoreUnavailable:
                return UNAVAILABLE
        return judge(entry, query, arrived_ms)

    async def _similar(self, query: Query, address: Address, found: Found, arrived_ms: int) -> Found:
        """Where the same question was missed, looks for the answer to a similar one."""
        if self.matcher is None or isinstance(found, Hit) or found == UNAVAILABLE:
            return found
        return await self.matcher.find(query, address, found, arrived_ms)

    async def _put(self, entry: Entry, verdict: ShadowVerdict | None) -> None:
        """Stores an entry, with what semantic lookups need of it; not one that is deleted meanwhile."""
        complete = entry if self.matcher is None else await self.matcher.complete(entry, verdict)
        if not self._is_kept(entry):
            return
        await self.store.put(complete)
        if not self._is_kept(entry):
            address = entry.address
            await self.store.delete(Selector(address.tenant, address.namespace, (address.entry, entry.nonce)))
        elif self.matcher is not None:
            await self.matcher.note(complete)

    def _is_kept(self, entry: Entry) -> bool:
        """Whether an entry that the store is being given is wanted still: not deleted, and not replaced."""
        return self._keeping.get(entry.address.entry) is entry

    async def _flight_of(self, draft: EntryDraft, lease_id: str) -> Flight | None:
        """The flight that a stream leads: of its own key and not streamed yet, so that chunks are of one answer."""
        flight = await self.flights.lead(lease_id, self.keys.address(draft.key))
        if flight is None or flight.schema_tag is not None:
            return None
        flight.schema_tag = draft.schema_tag
        return flight

    def _entry(self, draft: EntryDraft, chunks: Sequence[bytes], savings: Savings | None) -> Entry:
        ttl_ms = self._lifetime.ttl_ms if draft.ttl_ms is None else draft.ttl_ms
        ttl_ms -= int(ttl_ms * self._lifetime.ttl_jitter * self._random())
        stale_for_ms = self._lifetime.stale_for_ms if draft.stale_for_ms is None else draft.stale_for_ms
        created_ms = self._clock()
        return Entry(
            address=self.keys.address(draft.key),
            nonce=secrets.token_hex(8),
            schema_tag=draft.schema_tag,
            model=draft.key.model,
            chunks=tuple(chunks),
            created_ms=created_ms,
            expires_ms=created_ms + ttl_ms,
            gone_ms=created_ms + ttl_ms + stale_for_ms,
            tags=draft.tags,
            savings=savings,
            compare_text=draft.compare_text,
            context_digest=draft.key.context_digest,
            canonical_version=draft.key.canonical_version,
        )


async def _tell_followed(flight: Flight, tell: Callable[[], Awaitable[None]]) -> None:
    await flight.followed.wait()
    await tell()


async def _replay(found: Found) -> AsyncGenerator[LookupEvent, None]:
    yield found
    if isinstance(found, Hit):
        for chunk in found.entry.chunks:
            yield chunk
        yield Completed(found.entry, len(found.entry.chunks))


def _shared(found: Found) -> Found:
    """Marks a hit as one whose answer was in the making."""
    return replace(found, shared=True) if isinstance(found, Hit) else found


def _until(lease: LeaseQuery) -> float:
    """The instant of the event loop's clock at which a wait ends."""
    left_s = remaining_s(inf)
    left_s -= min(left_s * DEADLINE_MARGIN, DEADLINE_MARGIN_MAX_S)
    return _now() + min(lease.wait_s, left_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
