"""What the tests of quotas share: a clock to turn by hand, a real Redis, and each kind of store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.redis_lane import RedisLane, redis_client
from services.inference.quota.redis_store import RedisStore
from services.inference.quota.store import QuotaStore
from tests.fakes.redis_server import RedisServer
from tests.inference.quota.parts import NOON_MS, HandClock

KINDS = ("memory", "redis", "redis_cluster")


@pytest.fixture
def clock() -> HandClock:
    """Noon of a day in the middle of a month."""
    return HandClock(NOON_MS)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for tests that leave it as it is."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A cluster of one node, which refuses scripts whose keys are in different slots."""
    server = RedisServer(tmp_path_factory.mktemp("cluster"), cluster=True)
    yield server
    server.kill()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test, to freeze or kill."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def redis_lane(url: str, *, cluster: bool = False, timeout_s: float = 5.0) -> RedisLane:
    """A way to a Redis."""
    return RedisLane(redis_client(url, cluster), timeout_s)


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, clock: HandClock) -> AsyncIterator[QuotaStore]:
    """An empty store of each kind, by the clock of the test."""
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryStore(clock)
            return
        cluster = request.param == "redis_cluster"
        server: RedisServer = request.getfixturevalue("shared_cluster" if cluster else "shared_redis")
        server.command("flushall")
        lane = redis_lane(server.url, cluster=cluster)
        stack.push_async_callback(lane.close)
        await lane.open()
        yield RedisStore(lane, clock)
