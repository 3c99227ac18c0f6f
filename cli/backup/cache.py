"""The cache's entries, whichever store has them.

Entries are read and put back whole, not the store's own bookkeeping: what a file kept can go to Redis and back, and
indexes, tags and bounds are right by construction. How often an entry was used is not kept. An embedded store is read
beside the service that owns it; it is restored only where no service has it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from cli.backup.archive import CachePart, PartWriter, reading
from cli.backup.database import Told
from cli.errors import CommandError
from kit.errors import ConfigError
from services.cache.config import CacheSettings
from services.cache.entry import Entry, decode_outline
from services.cache.redis_link import PREFIX
from services.cache.sqlite_table import APPLICATION_ID
from services.cache.store import EntryStore, StoreUnavailable
from services.cache.wiring import build_store, now_ms, redis_link

# Lengths of an entry's body and outline, which follow.
HEAD: Final = struct.Struct("<II")
ENTRIES_AT_ONCE: Final = 64
BYTES_AT_ONCE: Final = 16 << 20
# The file's deadline is a lookup's; a copy may wait for a commit.
BUSY_S: Final = 10.0

Kept = tuple[bytes, bytes]
"""An entry's body and outline as a store has them; the outline is empty where there is none."""


async def dump_entries(settings: CacheSettings, folder: Path, told: Told) -> CachePart:
    """Writes every entry.

    Raises:
        CommandError: The store cannot be read.
    """
    writer = PartWriter(folder / "cache.gz")
    kept = _file_entries(settings.path) if settings.store == "embedded" else _redis_entries(settings)
    try:
        async for body, outline in kept:
            writer.write(HEAD.pack(len(body), len(outline)) + body + outline)
            writer.count += 1
            told("cache", writer.count)
    except (sqlite3.Error, RedisError, OSError) as error:
        raise CommandError(f"the cache's entries cannot be read: {error}") from error
    return CachePart(settings.store, settings.key_secret is not None, writer.close())


async def is_empty(settings: CacheSettings) -> bool:
    """Whether the store has no entries.

    Raises:
        CommandError: The store cannot be used.
    """
    if settings.store == "embedded" and not settings.path.exists():
        return True
    async with _opened(settings) as store:
        return not (await store.size(None)).entry_count


async def load_entries(settings: CacheSettings, folder: Path, part: CachePart, told: Told) -> int:
    """Puts a backup's entries in place of those that are there; returns how many had expired and were left out.

    Raises:
        CommandError: The store cannot be used, or its keys are under another secret than the backup's.
    """
    if part.is_keyed and settings.key_secret is None:
        raise CommandError("the backup's entries are under a secret: set MILLRACE_CACHE_KEY_SECRET to the same")
    await _clear(settings)
    expired_count = count = 0
    async with _opened(settings) as store:
        with reading(folder, part.entries) as file:
            for page in _pages(file):
                fresh = [entry for entry in page if entry.gone_ms > now_ms()]
                await asyncio.gather(*(store.put(entry) for entry in fresh))
                count, expired_count = count + len(fresh), expired_count + len(page) - len(fresh)
                told("cache", count)
    told("cache", count)
    return expired_count


async def _file_entries(path: Path) -> AsyncIterator[Kept]:
    """The entries of an embedded store as they are at one moment; none where there is no file."""
    if (connection := _open_file(path)) is None:
        return
    with closing(connection) as file:
        (application_id,) = file.execute("PRAGMA application_id").fetchone()
        if application_id != APPLICATION_ID:
            raise sqlite3.DatabaseError(f"{path} is no store of the cache")
        for row in file.execute(
            "SELECT body, coalesce(outline, x'') FROM entries LEFT JOIN outlines USING (entry) ORDER BY entries.rowid"
        ):
            yield row


def _open_file(path: Path) -> sqlite3.Connection | None:
    if not path.exists():
        return None
    uri = f"{path.resolve().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)


async def _redis_entries(settings: CacheSettings) -> AsyncIterator[Kept]:
    """The entries that Redis has; one that is there throughout is seen once."""
    link = redis_link(settings)
    seen: set[bytes] = set()  # a scan may come by a key twice
    keys: list[bytes] = []
    try:
        await link.client.ping()
        async for key in link.client.scan_iter(match=f"{PREFIX}:*", count=ENTRIES_AT_ONCE, _type="HASH"):
            if key not in seen:
                seen.add(key)
                keys.append(key)
            if len(keys) == ENTRIES_AT_ONCE:
                for kept in await _fetch(link.client, keys):
                    yield kept
                keys = []
        for kept in await _fetch(link.client, keys):
            yield kept
    finally:
        await link.close()


async def _fetch(client: Any, keys: list[bytes]) -> list[Kept]:
    """What stands under some keys, in one round trip; those that are no entries, or have gone, are passed over."""
    pipeline = client.pipeline(transaction=False) if not isinstance(client, RedisCluster) else client.pipeline()
    async with pipeline:
        for key in keys:
            pipeline.hmget(key, ["body", "outline"])
        found = await pipeline.execute()
    return [(body, outline or b"") for body, outline in found if body]


def _pages(file: BinaryIO) -> Iterator[list[Entry]]:
    """The entries of a part, some at a time."""
    page: list[Entry] = []
    page_bytes = 0
    while head := file.read(HEAD.size):
        body_bytes, outline_bytes = HEAD.unpack(head)
        page_bytes += body_bytes + outline_bytes
        body, outline = file.read(body_bytes), file.read(outline_bytes)
        # An entry of an older format is a miss in its store, too.
        if (entry := _entry(body, outline)) is not None:
            page.append(entry)
        if len(page) == ENTRIES_AT_ONCE or page_bytes > BYTES_AT_ONCE:
            yield page
            page, page_bytes = [], 0
    yield page


def _entry(body: bytes, outline: bytes) -> Entry | None:
    """The entry of a body, which tells its own address, with the vector that its outline has."""
    entry = decode_outline(body)
    outlined = decode_outline(outline) if outline else None
    if entry is None or outlined is None:
        return entry
    return msgspec.structs.replace(entry, embedding=outlined.embedding)


@asynccontextmanager
async def _opened(settings: CacheSettings) -> AsyncIterator[EntryStore]:
    link = redis_link(settings) if settings.store == "redis" else None
    store = build_store(settings, link)
    try:
        await store.open()
        if not store.available:
            raise CommandError("Redis does not answer at MILLRACE_CACHE_REDIS_URL")
        yield store
    except ConfigError as error:
        raise CommandError(f"{error.message}: stop the cache service, then restore") from error
    except StoreUnavailable as error:
        raise CommandError(f"the cache's store failed: {error.message}") from error
    finally:
        await store.close()


async def _clear(settings: CacheSettings) -> None:
    """Empties the store; an embedded one only where no service has it."""
    async with _opened(settings):
        pass
    if settings.store == "embedded":
        for suffix in ("", "-wal", "-shm"):
            settings.path.with_name(settings.path.name + suffix).unlink(missing_ok=True)
        return
    link = redis_link(settings)
    try:
        async for key in link.client.scan_iter(match=f"{PREFIX}:*", count=ENTRIES_AT_ONCE):
            await link.client.unlink(key)
    finally:
        await link.close()
