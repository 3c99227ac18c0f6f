"""What the cache's tests share: a clock to turn by hand, a real Redis, and each kind of store."""

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.cache.entry import Entry, Savings
from services.cache.key import Address, EntryKey, KeySpace, Namespace
from services.cache.redis_link import RedisLink
from services.cache.redis_store import RedisStore
from services.cache.sqlite_store import SqliteStore
from services.cache.store import EntryStore
from tests.fakes.redis_server import RedisServer

DIGEST = bytes(range(32))
KEYS = KeySpace()
MakeStore = Callable[..., Awaitable[EntryStore]]


class ManualClock:
    """A clock that starts at the real time, for Redis has its own, and then stands until it is turned."""

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it as it is."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one node, which refuses scripts and commands whose keys are in different slots."""
    server = RedisServer(tmp_path_factory.mktemp("cluster"), cluster=True)
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, to freeze or kill."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def redis_link(
    url: str, *, cluster: bool = False, read_timeout_s: float = 5.0, write_timeout_s: float = 5.0
) -> RedisLink:
    """A way to a Redis."""
    client = (RedisCluster if cluster else Redis).from_url(url, retry=Retry(NoBackoff(), 0))
    return RedisLink(client, read_timeout_s=read_timeout_s, write_timeout_s=write_timeout_s)


def redis_store(url: str, clock: Callable[[], int], *, cluster: bool = False, **settings: float) -> RedisStore:
    """A store on a Redis."""
    bounds = {"entries_max": 1000, "bytes_max": 1 << 30} | settings
    link = redis_link(url, cluster=cluster, **{name: bounds.pop(name) for name in settings if "timeout" in name})
    return RedisStore(link, clock=clock, **bounds)  # type: ignore[arg-type]


def sqlite_store(path: Path, clock: Callable[[], int], **settings: float) -> SqliteStore:
    """A store on a file."""
    bounds = {"entries_max": 1000, "bytes_max": 1 << 30, "hot_bytes_max": 1 << 20} | settings
    return SqliteStore(path, clock=clock, **bounds)  # type: ignore[arg-type]


@pytest.fixture(params=["embedded", "embedded_cold", "redis", "redis_cluster"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[MakeStore]:
    """Makes opened, empty stores of each kind; `embedded_cold` holds nothing in memory."""
    async with AsyncExitStack() as stack:

        async def make(**settings: float) -> EntryStore:
            if request.param.startswith("redis"):
                cluster = request.param == "redis_cluster"
                server: RedisServer = request.getfixturevalue("shared_cluster" if cluster else "shared_redis")
                server.command("flushall")
                store: EntryStore = redis_store(server.url, clock, cluster=cluster, **settings)
            else:
                cold = {"hot_bytes_max": 0} if request.param == "embedded_cold" else {}
                store = sqlite_store(tmp_path / "entries.sqlite3", clock, **cold, **settings)
            stack.push_async_callback(store.close)
            await store.open()
            return store

        yield make


def make_key(tenant: str = "acme", user: str | None = None, request: bytes = DIGEST, model: str = "m") -> EntryKey:
    """A key that differs in what is given."""
    return EntryKey(Namespace(tenant, user), model, request.ljust(32, b"\0"), 1)


def address_of(key: EntryKey) -> Address:
    """Where a key's entry is, in the tests' stores."""
    return KEYS.address(key)


def make_entry(
    key: EntryKey,
    clock: Callable[[], int],
    *,
    chunks: tuple[bytes, ...] = (b"answer",),
    tags: tuple[str, ...] = (),
    savings: Savings | None = None,
) -> Entry:
    """An entry that is fresh for a minute and stale for another."""
    now_ms = clock()
    return Entry(
        address=address_of(key),
        nonce=os.urandom(8).hex(),
        schema_tag="test.v1",
        model=key.model,
        chunks=chunks,
        created_ms=now_ms,
        expires_ms=now_ms + 60_000,
        gone_ms=now_ms + 120_000,
        tags=tags,
        savings=savings,
    )
