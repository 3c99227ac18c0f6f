"""Entries in Redis, shared by every replica of the service.

Needs Redis 7.0 and no module; a cluster will do. Redis may be slow, frozen or gone: a lookup then costs at most its
deadline, and nothing once the breaker is open. How far an acknowledged entry survives is Redis's setting (appendonly).
This module never waits for Redis without a deadline.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from services.cache.breaker import Breaker
from services.cache.entry import Entry, decode, encode
from services.cache.key import Address
from services.cache.redis_scripts import PUT, REMOVE
from services.cache.store import Clock, Selector, Size, StoreUnavailable

PREFIX: Final = "millrace:cache"
# Entries handled by one script: Redis does nothing else meanwhile.
PAGE_COUNT: Final = 256
# Calls to Redis under way at once, each on a connection of its own; redis-py refuses what its pool (100) cannot hold.
CONNECTIONS_MAX: Final = 64
# Timeouts or failures in a row that open the breaker, and the time between trials to close it.
FAILURES_MAX: Final = 3
PROBE_INTERVAL_S: Final = 0.5

# A member of the index and the nonce it must have; '' is any.
Member = tuple[str, str]


class RedisStore:
    """Entries in Redis. The bounds hold for each tenant; the entries that would be gone first leave when it is full."""

    name = "redis"

    def __init__(
        self,
        client: Redis | RedisCluster,
        *,
        entries_max: int,
        bytes_max: int,
        read_timeout_s: float,
        write_timeout_s: float,
        clock: Clock,
    ) -> None:
        self._client: Any = client  # redis-py types its commands as sync or async.
        self._entries_max, self._bytes_max, self._clock = entries_max, bytes_max, clock
        self._read_timeout_s, self._write_timeout_s = read_timeout_s, write_timeout_s
        # Told whether Redis is being asked, whenever that changes.
        self.on_change: Callable[[bool], None] = lambda available: None
        self._breaker = Breaker(
            self._ping,
            failures_max=FAILURES_MAX,
            interval_s=PROBE_INTERVAL_S,
            on_change=lambda available: self.on_change(available),
        )
        self._connections = asyncio.Semaphore(CONNECTIONS_MAX)
        self._known_tenants: set[bytes] = set()
        self.eviction_count = 0

    @property
    def available(self) -> bool:
        """Whether Redis is being asked."""
        return self._breaker.closed

    async def open(self) -> None:
        """Tries Redis once; where it does not answer, the store is opened all the same, and recovers by itself."""
        try:
            await self._ping()
        except StoreUnavailable:
            self._breaker.trip()

    async def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, in one round trip."""
        async with self._asking(self._read_timeout_s):
            body = await self._client.get(_entry_key(address.tenant, address.entry.hex()))
        entry = None if body is None else decode(body, address)
        return None if entry is None or entry.gone_ms <= self._clock() else entry

    async def put(self, entry: Entry) -> None:
        """Keeps an entry, and makes room if there is too much."""
        address, body = entry.address, encode(entry)
        keys = [
            _entry_key(address.tenant, address.entry.hex()),
            *_index_keys(address.tenant),
            *(_tag_key(address.tenant, tag) for tag in sorted(set(entry.tags))),
        ]
        member = f"{address.namespace.hex()}.{address.entry.hex()}"
        async with self._asking(self._write_timeout_s):
            await self._note_tenant(address.tenant)
            held = await self._run(PUT, keys, [body, member, entry.nonce, len(body), entry.gone_ms, self._clock()])
            await self._make_room(address.tenant, *held)

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them, page by page."""
        count = 0
        async with contextlib.aclosing(self._select(selector)) as pages:
            async for page in pages:
                async with self._asking(self._write_timeout_s):
                    count += await self._remove(selector.tenant, page, dry_run=dry_run)
        return count

    async def size(self, tenant: bytes | None) -> Size:
        """Counts what is kept for one tenant, or for all that were ever seen."""
        async with self._asking(self._write_timeout_s):
            tenants = [tenant] if tenant is not None else await self._client.smembers(f"{PREFIX}:tenants")
            entry_count = size_bytes = 0
            for each in tenants:
                gone, _, bytes_key = _index_keys(each)
                entry_count += await self._client.zcount(gone, self._clock(), "+inf")
                size_bytes += int(await self._client.get(bytes_key) or 0)
        return Size(entry_count, size_bytes)

    async def close(self) -> None:
        """Stops trying, and closes the connections."""
        await self._breaker.close()
        await self._client.aclose()

    @contextlib.asynccontextmanager
    async def _asking(self, timeout_s: float) -> AsyncIterator[None]:
        """Bounds what is asked of Redis within, and tells the breaker how it went."""
        if not self._breaker.closed:
            raise StoreUnavailable("Redis does not answer; retry.", int(PROBE_INTERVAL_S * 1000))
        try:
            async with asyncio.timeout(timeout_s), self._connections:
                yield
        except (RedisError, OSError, TimeoutError) as error:
            self._breaker.fail()
            raise StoreUnavailable("Redis did not answer in time; retry.", int(PROBE_INTERVAL_S * 1000)) from error
        self._breaker.succeed()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable("Redis did not answer in time; retry.") from error

    async def _run(self, script: str, keys: Sequence[str], arguments: Iterable[Any]) -> Any:
        """Runs a script, by its digest where Redis knows it already."""
        values = list(arguments)
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self._client.evalsha(digest, len(keys), *keys, *values)
        except NoScriptError:
            return await self._client.eval(script, len(keys), *keys, *values)

    async def _note_tenant(self, tenant: bytes) -> None:
        """Lists a tenant for `size`, once per process; the list is in a slot of its own, so no script can do it."""
        if tenant not in self._known_tenants:
            await self._client.sadd(f"{PREFIX}:tenants", tenant)
            self._known_tenants.add(tenant)

    async def _make_room(self, tenant: bytes, entry_count: int, size_bytes: int) -> None:
        gone, _, bytes_key = _index_keys(tenant)
        while entry_count > self._entries_max or size_bytes > self._bytes_max:
            share = 1 if size_bytes > self._bytes_max else min(entry_count - self._entries_max, PAGE_COUNT)
            oldest = await self._client.zrange(gone, 0, share - 1)
            if not oldest:
                return
            await self._remove(tenant, [(member.decode(), "") for member in oldest])
            self.eviction_count += len(oldest)
            entry_count = await self._client.zcard(gone)
            size_bytes = int(await self._client.get(bytes_key) or 0)

    async def _remove(self, tenant: bytes, members: Sequence[Member], *, dry_run: bool = False) -> int:
        entries = [_entry_key(tenant, member.rpartition(".")[2]) for member, _ in members]
        flat = [part for pair in members for part in pair]
        count = await self._run(REMOVE, [*_index_keys(tenant), *entries], [*flat, "1" if dry_run else "0"])
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
            async with self._asking(self._write_timeout_s):
                cursor, page = await self._client.zscan(key, cursor, count=PAGE_COUNT)
            names = [name.decode() for name, _ in page]
            yield [(name.rpartition(".")[0], name.rpartition(".")[2]) if split_nonce else (name, "") for name in names]
            if int(cursor) == 0:
                return


def _entry_key(tenant: bytes, entry: str) -> str:
    return f"{PREFIX}:{{{tenant.hex()}}}:entry:{entry}"


def _index_keys(tenant: bytes) -> tuple[str, str, str]:
    slot = f"{PREFIX}:{{{tenant.hex()}}}"
    return f"{slot}:gone", f"{slot}:meta", f"{slot}:bytes"


def _tag_key(tenant: bytes, tag: str) -> str:
    return f"{PREFIX}:{{{tenant.hex()}}}:tag:{hashlib.sha256(tag.encode()).hexdigest()}"
