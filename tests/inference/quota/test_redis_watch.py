"""Whether limits are counted on Redis is known while nobody asks, and where it answers and refuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr

from services.inference.quota import redis_watch
from services.inference.quota.settings import QuotaSettings
from services.inference.quota.wiring import REDIS_HEALTH, wire
from tests.fakes.redis_server import RedisServer

DEADLINE_S = 10


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks ten times a second, to be done sooner."""
    monkeypatch.setattr(redis_watch.RedisWatch.__init__, "__defaults__", (0.1,))


@asynccontextmanager
async def health(redis: RedisServer) -> AsyncIterator[asyncio.Queue[bool]]:
    """What the health service is told of the Redis, by a service of which nobody asks anything."""
    told: asyncio.Queue[bool] = asyncio.Queue()

    async def nothing(*_: object) -> None: ...

    def report(name: str, is_up: bool) -> None:
        if name == REDIS_HEALTH:
            told.put_nowait(is_up)

    url = SecretStr(redis.url)
    limiting = wire(QuotaSettings(store="redis", redis_url=url, redis_timeout_s=1), nothing)  # type: ignore[arg-type]
    await limiting.start(report)
    try:
        yield told
    finally:
        await limiting.close()


async def next_of(told: asyncio.Queue[bool]) -> bool:
    async with asyncio.timeout(DEADLINE_S):
        return await told.get()


async def test_a_redis_that_is_killed_is_known_though_nobody_asks(own_redis: RedisServer) -> None:
    """Health does not call serving what has been gone since the last request."""
    async with health(own_redis) as told:
        assert await next_of(told) is True
        own_redis.kill()
        assert await next_of(told) is False


@pytest.mark.parametrize(
    ("refuse", "relent", "words"),
    [
        ("config set maxmemory 1", "config set maxmemory 0", "maxmemory"),
        ("replicaof 127.0.0.1 1", "replicaof no one", "read only"),
        ("acl setuser default -evalsha -eval", "acl setuser default +evalsha +eval", "permissions"),
    ],
    ids=["full", "read-only", "no-scripts"],
)
async def test_a_redis_that_refuses_is_not_called_serving(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, refuse: str, relent: str, words: str
) -> None:
    """It answers a ping, and counts nothing: health and log say so once, and when it counts again."""
    with caplog.at_level(logging.INFO):
        async with health(own_redis) as told:
            assert await next_of(told) is True
            own_redis.command(*refuse.split())
            assert await next_of(told) is False
            own_redis.command(*relent.split())
            assert await next_of(told) is True

    lost, again = [record for record in caplog.records if record.name.endswith("quota.wiring")]
    assert lost.getMessage() == "Redis refuses to count: limits go by what is set for its loss"
    assert words in vars(lost)["reason"]
    assert again.getMessage() == "limits are counted on Redis again"


async def test_a_redis_that_refuses_from_the_start_is_told_at_once(own_redis: RedisServer) -> None:
    """Not only after the first look."""
    own_redis.command("replicaof", "127.0.0.1", "1")
    async with health(own_redis) as told:
        assert await next_of(told) is False
        assert await next_of(told) is False
