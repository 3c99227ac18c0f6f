"""Entries in Redis, shared by every replica of the service.

Needs Redis 7.0 and no module; a cluster will do. How far an acknowledged entry survives is Redis's setting
(appendonly). Redis should not evict by itself: the index would go on counting what it dropped. This module never waits
for Redis without a deadline.
"""

import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from services.cache.changes import Change, Version
from services.cache.entry import Entry, decode, decode_outline, encode, encode_outline
from services.cache.key import Address
from services.cache.redis_changes import RedisChanges
from services.cache.redis_link import PREFIX, RedisLink, entry_key, slot
from services.cache.redis_scripts import OUTLINES, PUT, REMOVE, SIZE, SWEEP_COUNT
from services.cache.store import Clock, Selector, Size
from services.cache.uses import UseCounts
from services.cache.worth import EvictionReason, Evictions, bound_passed, worth

# Entries handled by one script: Redis does nothing else meanwhile.
PAGE_COUNT: Final = 256
# Entries whose uses are written down with each put: a hit itself writes nothing.
USED_COUNT: Final = 64
# How often a process lists a tenant anew; Redis may have forgotten everything in between.
TENANT_NOTE_MS: Final = 60_000
TENANTS: Final = f"{PREFIX}:tenants"
# Tenants of which something is remembered in this process; with more, all is forgotten and noted again.
TENANTS_MAX: Final = 10_000

# A member of the index and the nonce it must have; '' is any.
Member = tuple[str, str]


class RedisStore:
    """Entries in Redis. The bounds hold for each tenant; the entries that are worth least leave when it is full."""

    name = "redis"

    def __init__(self, link: RedisLink, *, entries_max: int, bytes_max: int, clock: Clock) -> None:
        self._link = link
        self._entries_max, self._bytes_max, self._clock = entries_max, bytes_max, clock
        self._changes = RedisChanges(link)
        self._uses: dict[bytes, UseCounts] = {}
        self._noted: dict[bytes, tuple[int, int]] = {}
        self.evictions: Evictions = Counter()

    @property
    def available(self) -> bool:
        """Whether Redis is being asked."""
        return self._link.available

    async def open(self) -> None:
        """Tries Redis once; where it does not answer, the store is opened all the same, and recovers by itself."""
        await self._link.open()

    async def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, in one round trip."""
        async with self._link.asking(self._link.read_timeout_s):
            body = await self._link.client.hget(entry_key(address.tenant, address.entry.hex()), "body")
        entry = None if body is None else decode(body, address)
        if entry is None or entry.gone_ms <= self._clock():
            return None
        self._note_use(address)
        return entry

    async def put(self, entry: Entry) -> None:
        """Keeps an entry, and makes room if there is too much."""
        address, body, outline = entry.address, encode(entry), encode_outline(entry) or b""
        tag_keys = (_tag_key(address.tenant, tag) for tag in sorted(set(entry.tags)))
        keys = [entry_key(address.tenant, address.entry.hex()), *_index_keys(address.tenant), *tag_keys]
        size_bytes = len(body) + len(outline)
        rank = [size_bytes, worth(entry.savings) / size_bytes, entry.gone_ms, self._clock()]
        arguments = [body, outline, _member(address), entry.nonce, *rank, *self._take_uses(address.tenant)]
        async with self._link.asking(self._link.write_timeout_s):
            await self._note_tenant(address.tenant, entry.gone_ms)
            *held, swept_count, outlined = await self._link.run(PUT, keys, arguments)
            self.evictions[EvictionReason.EXPIRED] += swept_count
            if outline:
                await self._changes.stored(outline)
            elif outlined:
                await self._changes.removed([(address, outlined.decode())])
            await self._make_room(address, *held)

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them, page by page."""
        count = 0
        async with contextlib.aclosing(self._select(selector)) as pages:
            async for page in pages:
                async with self._link.asking(self._link.write_timeout_s):
                    count += await self._remove(selector.tenant, page, "count" if dry_run else "delete")
        return count

    async def size(self, tenant: bytes | None) -> Size:
        """Counts what is kept for one tenant, or for all."""
        tenants = [tenant] if tenant is not None else await self._tenants()
        sizes = [await self._size(each) for each in tenants]
        return Size(sum(size.entry_count for size in sizes), sum(size.size_bytes for size in sizes))

    async def outlines(self) -> AsyncGenerator[Entry, None]:
        """Yields the entries that have an embedding, without their chunks, tenant by tenant."""
        for tenant in await self._tenants():
            async with contextlib.aclosing(self._scan(_index_keys(tenant)[0], split_nonce=False)) as pages:
                async for page in pages:
                    for data in await self._read_outlines(tenant, page):
                        entry = None if data is None else decode_outline(data)
                        if entry is not None and entry.gone_ms > self._clock():
                            yield entry

    def changes(self) -> AsyncGenerator[Change, None]:
        """Follows what is stored and removed, by whichever replica, until the store is closed."""
        return self._changes.follow()

    async def close(self) -> None:
        """Stops trying, and closes the connections."""
        self._changes.close()
        await self._link.close()

    async def _note_tenant(self, tenant: bytes, gone_ms: int) -> None:
        """Lists a tenant for as long as it may have entries; the list has a slot of its own, so no script can do it."""
        now_ms = self._clock()
        noted_ms, until_ms = self._noted.get(tenant, (0, 0))
        if gone_ms <= until_ms and now_ms - noted_ms < TENANT_NOTE_MS:
            return
        until_ms = gone_ms + TENANT_NOTE_MS
        await self._link.client.zadd(TENANTS, {tenant: until_ms}, gt=True)
        if len(self._noted) >= TENANTS_MAX:
            self._noted.clear()
        self._noted[tenant] = now_ms, until_ms

    async def _tenants(self) -> list[bytes]:
        async with self._link.asking(self._link.write_timeout_s):
            await self._link.client.zremrangebyscore(TENANTS, "-inf", self._clock())
            return list(await self._link.client.zrange(TENANTS, 0, -1))

    async def _size(self, tenant: bytes) -> Size:
        while True:
            async with self._link.asking(self._link.write_timeout_s):
                entry_count, size_bytes, swept_count = await self._link.run(SIZE, _index_keys(tenant), [self._clock()])
            self.evictions[EvictionReason.EXPIRED] += swept_count
            if swept_count < SWEEP_COUNT:
                return Size(entry_count, size_bytes)

    async def _make_room(self, kept: Address, entry_count: int, size_bytes: int) -> None:
        """Lets entries of a tenant go until the bounds hold; not the one that room is made for."""
        gone, score, _, bytes_key, _ = _index_keys(kept.tenant)
        while reason := bound_passed(entry_count, self._entries_max, size_bytes, self._bytes_max):
            share = min(entry_count - self._entries_max, PAGE_COUNT) if reason is EvictionReason.ENTRIES else 1
            least = [name.decode() for name in await self._link.client.zrange(score, 0, share)]
            chosen = [member for member in least if member != _member(kept)][:share]
            if not chosen:
                return
            await self._remove(kept.tenant, [(member, "") for member in chosen], "evict")
            self.evictions[reason] += len(chosen)
            entry_count = await self._link.client.zcard(gone)
            size_bytes = int(await self._link.client.get(bytes_key) or 0)

    async def _remove(self, tenant: bytes, members: Sequence[Member], mode: str) -> int:
        keys = [*_index_keys(tenant), *(entry_key(tenant, member.rpartition(".")[2]) for member, _ in members)]
        arguments = [*(part for member in members for part in member), mode]
        count, *outlined = await self._link.run(REMOVE, keys, arguments)
        if outlined:
            names = [name.decode() for name in outlined]
            await self._changes.removed([_version(tenant, *pair) for pair in zip(names[::2], names[1::2], strict=True)])
        return int(count)

    async def _select(self, selector: Selector) -> AsyncGenerator[list[Member], None]:
        """Yields pages of the members that a selector means; some may be gone."""
        if selector.tag is not None:
            scan = self._scan(_tag_key(selector.tenant, selector.tag), split_nonce=True)
        elif selector.entry is None:
            scan = self._scan(_index_keys(selector.tenant)[0], split_nonce=False)
        else:
            assert selector.namespace is not None, "an entry is selected within its namespace"
            digest, nonce = selector.entry
            yield [(f"{selector.namespace.hex()}.{digest.hex()}", nonce)]
            return
        namespace = "" if selector.namespace is None else selector.namespace.hex()
        async with contextlib.aclosing(scan) as pages:
            async for page in pages:
                if chosen := [(name, nonce) for name, nonce in page if name.startswith(namespace)]:
                    yield chosen

    async def _scan(self, key: str, *, split_nonce: bool) -> AsyncGenerator[list[Member], None]:
        """Yields the members of a sorted set, page by page; one that is there throughout is seen at least once."""
        cursor = 0
        while True:
            async with self._link.asking(self._link.write_timeout_s):
                cursor, page = await self._link.client.zscan(key, cursor, count=PAGE_COUNT)
            names = [name.decode() for name, _ in page]
            yield [(name.rpartition(".")[0], name.rpartition(".")[2]) if split_nonce else (name, "") for name in names]
            if int(cursor) == 0:
                return

    async def _read_outlines(self, tenant: bytes, page: list[Member]) -> list[bytes | None]:
        if not page:
            return []
        keys = [entry_key(tenant, member.rpartition(".")[2]) for member, _ in page]
        async with self._link.asking(self._link.write_timeout_s):
            return list(await self._link.run(OUTLINES, keys, []))

    def _note_use(self, address: Address) -> None:
        uses = self._uses.get(address.tenant)
        if uses is None:
            if len(self._uses) >= TENANTS_MAX:
                self._uses.clear()
            uses = self._uses[address.tenant] = UseCounts()
        uses.note(address.namespace + address.entry)

    def _take_uses(self, tenant: bytes) -> list[str | int]:
        """Members and how often each was used, one after the other."""
        taken = self._uses[tenant].take(USED_COUNT) if tenant in self._uses else []
        return [part for digests, count in taken for part in (f"{digests[:32].hex()}.{digests[32:].hex()}", count)]


def _index_keys(tenant: bytes) -> tuple[str, str, str, str, str]:
    start = slot(tenant)
    return f"{start}:gone", f"{start}:score", f"{start}:meta", f"{start}:bytes", f"{start}:floor"


def _tag_key(tenant: bytes, tag: str) -> str:
    return f"{slot(tenant)}:tag:{hashlib.sha256(tag.encode()).hexdigest()}"


def _member(address: Address) -> str:
    return f"{address.namespace.hex()}.{address.entry.hex()}"


def _version(tenant: bytes, member: str, nonce: str) -> Version:
    namespace, _, entry = member.partition(".")
    return Address(tenant, bytes.fromhex(namespace), bytes.fromhex(entry)), nonce
