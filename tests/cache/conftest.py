"""What the cache's tests share: a clock to turn by hand, a real Redis, and each kind of store."""

import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
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

START_DEADLINE_S = 20
DIGEST = bytes(range(32))
KEYS = KeySpace()
MakeStore = Callable[..., Awaitable[EntryStore]]


class ManualClock:
    """A clock that starts at the real time, for Redis has its own, and then stands until it is turned."""

    def __init__(self) -> None:
        self.now_ms = time.time_ns() // 1_000_000

    def __call__(self) -> int:
        return self.now_ms


class RedisServer:
    """A real redis-server on a free port, that keeps nothing on the disk."""

    def __init__(self, folder: Path, *, cluster: bool = False, port: int | None = None) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
        self.port = port or _free_port()
        options = ["--port", str(self.port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
        if cluster:
            options += ["--cluster-enabled", "yes", "--cluster-port", str(_free_port())]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, text=True)
        _await_line(self._process, "Ready to accept connections")
        if cluster:
            self.command("cluster", "addslotsrange", "0", "16383")
            _await_line(self._process, "Cluster state changed: ok")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> None:
        """Runs a command and waits for it."""
        command = ["redis-cli", "-p", str(self.port), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=START_DEADLINE_S)

    def freeze(self) -> None:
        """Stops the process where it stands: connections stay open, nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.thaw()
        self._process.kill()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_line(process: subprocess.Popen[str], text: str) -> None:
    """Reads what a process prints until a line holds a text."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
            if text in line:
                return
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + START_DEADLINE_S
    while text not in (line := lines.get(timeout=deadline - time.monotonic())):
        assert line, "redis-server ended before it was ready"


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
