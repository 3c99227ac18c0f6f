"""Followers within one process, and on Redis where the stream loses what was not read in time."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.cache.changes import Behind, Change, ChangeFeed, Removed
from services.cache.entry import encode_outline, outline_of
from services.cache.redis_changes import STREAM, RedisChanges
from tests.cache.conftest import ManualClock, RedisServer, address_of, make_entry, make_key, redis_link
from tests.cache.test_store import embedded

SOON_S = 10


def removal(number: int) -> Removed:
    return Removed(((address_of(make_key()), str(number)),))


async def following(changes: AsyncGenerator[Change, None]) -> AsyncGenerator[Change, None]:
    """A follower that has been told that it is behind."""
    assert await soon(changes) == Behind()
    return changes


async def soon(changes: AsyncGenerator[Change, None]) -> Change:
    async with asyncio.timeout(SOON_S):
        return await anext(changes)


async def test_all_followers_hear_all():
    """Every follower hears of each change from when it began, in order, and the feed knows whether anyone listens."""
    feed = ChangeFeed()
    feed.publish([removal(0)])
    assert not feed.followed
    followers = [await following(feed.follow()) for _ in range(3)]
    assert feed.followed
    feed.publish([removal(1), removal(2)])

    for follower in followers:
        assert [await soon(follower), await soon(follower)] == [removal(1), removal(2)]
        await follower.aclose()
    assert not feed.followed


async def test_slow_follower_is_behind_again():
    """A follower for whom too much waits is told to read everything, and only then of what came later."""
    feed = ChangeFeed(pending_max=3)
    follower = await following(feed.follow())
    feed.publish([removal(number) for number in range(5)])

    assert [await soon(follower) for _ in range(3)] == [Behind(), removal(3), removal(4)]


@pytest.fixture
def entry(clock: ManualClock):
    return embedded(make_entry(make_key(), clock), "text")


async def test_trimmed_stream_leaves_followers_behind(shared_redis: RedisServer, entry):
    """When the stream lost records that were not read, the follower is told to read everything, then goes on."""
    link = redis_link(shared_redis.url, write_timeout_s=0.4)
    changes = RedisChanges(link)
    follower = await following(changes.follow())
    outline = encode_outline(entry)
    assert outline is not None
    await changes.stored(outline)
    assert (await soon(follower)).entry == outline_of(entry)  # type: ignore[union-attr]

    await changes.removed(removal(1).versions)
    await changes.removed(removal(2).versions)
    await link.client.xtrim(STREAM, maxlen=1, approximate=False)
    assert await soon(follower) == Behind()
    await changes.removed(removal(3).versions)
    assert await soon(follower) == removal(3)
    changes.close()
    await link.close()


async def test_restarted_redis_leaves_followers_behind(own_redis: RedisServer, tmp_path, entry):
    """A follower outlives Redis: when an empty one comes back it is told to read everything, and hears on."""
    link = redis_link(own_redis.url, write_timeout_s=0.4)
    await link.open()
    changes = RedisChanges(link)
    follower = await following(changes.follow())
    waiting = asyncio.ensure_future(soon(follower))
    own_redis.kill()
    server = RedisServer(tmp_path, port=own_redis.port)
    try:
        assert await waiting == Behind()
        await changes.removed(removal(1).versions)
        assert await soon(follower) == removal(1)
    finally:
        changes.close()
        await link.close()
        server.kill()


async def test_records_of_later_releases_are_passed_over(shared_redis: RedisServer):
    """What this release does not understand in the stream is no change, and does not end it."""
    link = redis_link(shared_redis.url, write_timeout_s=0.4)
    changes = RedisChanges(link)
    follower = await following(changes.follow())
    for fields in ({"renamed": b"x"}, {"stored": b"no entry"}, {"removed": b"\xff"}):
        await link.client.xadd(STREAM, fields)
    await changes.removed(removal(1).versions)

    assert await soon(follower) == removal(1)
    changes.close()
    await link.close()
