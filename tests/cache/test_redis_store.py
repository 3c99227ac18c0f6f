import asyncio
import time

import pytest

from services.cache.redis_link import PREFIX
from services.cache.store import StoreUnavailable
from tests.cache.conftest import ManualClock, RedisServer, make_entry, make_key, redis_store

# A lookup's deadline, and how late a busy machine may be: far below the 5 s that Redis itself would be waited for.
DEADLINE_S = 0.2
LATE_S = 1.0


async def test_frozen_redis_costs_the_deadline_then_nothing(own_redis: RedisServer, clock: ManualClock):
    """Lookups on a frozen Redis take their deadline, then nothing; when it thaws the store recovers by itself."""
    store = redis_store(own_redis.url, clock, read_timeout_s=DEADLINE_S)
    changes: asyncio.Queue[bool] = asyncio.Queue()
    store._link.on_change(changes.put_nowait)
    await store.open()
    try:
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        own_redis.freeze()
        while store.available:
            started = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.get(entry.address)
            assert time.monotonic() - started < DEADLINE_S + LATE_S
        started = time.monotonic()
        for _ in range(100):
            with pytest.raises(StoreUnavailable):
                await store.get(entry.address)
        assert time.monotonic() - started < DEADLINE_S + LATE_S  # All hundred together.
        assert await changes.get() is False

        own_redis.thaw()
        assert await asyncio.wait_for(changes.get(), 10) is True
        await store.put(entry)
    finally:
        await store.close()


async def test_store_opens_without_redis_and_recovers(
    own_redis: RedisServer, clock: ManualClock, tmp_path, caplog: pytest.LogCaptureFixture
):
    """A store whose Redis is down opens, says so once and why, and works as soon as Redis is there."""
    caplog.set_level("INFO")
    own_redis.kill()
    store = redis_store(own_redis.url, clock)
    changes: asyncio.Queue[bool] = asyncio.Queue()
    store._link.on_change(changes.put_nowait)
    await store.open()
    assert not store.available
    with pytest.raises(StoreUnavailable) as caught:
        await store.put(make_entry(make_key(), clock))
    assert caught.value.retry_after_ms

    server = RedisServer(tmp_path, port=own_redis.port)
    try:
        while not await asyncio.wait_for(changes.get(), 10):
            pass
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        assert await store.get(entry.address) == entry
    finally:
        await store.close()
        server.kill()
    lost, back = [record for record in caplog.records if record.name == "services.cache.redis_link"]
    assert "ConnectionError" in vars(lost)["reason"]
    assert back.getMessage() == "Redis answers again"


async def test_full_redis_refuses_stores_only(
    own_redis: RedisServer, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """A Redis whose memory is full fails stores, and goes on answering lookups: the breaker stays closed.

    The log says so once.
    """
    store = redis_store(own_redis.url, clock)
    await store.open()
    try:
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        own_redis.command("config", "set", "maxmemory", "1")
        for number in range(5):
            with pytest.raises(StoreUnavailable, match="refused"):
                await store.put(make_entry(make_key(request=bytes([number])), clock))

        assert await store.get(entry.address) == entry
        own_redis.command("config", "set", "maxmemory", "0")
        await store.put(make_entry(make_key(request=b"fits"), clock))
    finally:
        await store.close()
    [said] = [record for record in caplog.records if record.name == "services.cache.redis_link"]
    assert "maxmemory" in vars(said)["reason"]


async def test_own_delay_is_not_blamed_on_redis(shared_redis: RedisServer, clock: ManualClock):
    """An answer that has come while this process was held up past the deadline is read, and counts as in time."""
    store = redis_store(shared_redis.url, clock, read_timeout_s=DEADLINE_S)
    await store.open()
    try:
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        for step_count in range(6):  # Wherever in the lookup it is held up.
            lookup = asyncio.create_task(store.get(entry.address))
            for _ in range(step_count):
                await asyncio.sleep(0)
            time.sleep(DEADLINE_S * 1.5)  # noqa: ASYNC251 - nobody else runs, that is the point
            assert await lookup == entry
    finally:
        await store.close()


async def test_restart_of_redis_is_over_once_it_is_seen(own_redis: RedisServer, clock: ManualClock, tmp_path):
    """Once the store is available after a restart it stays so: no connection of before fails a lookup later."""
    store = redis_store(own_redis.url, clock)
    changes: asyncio.Queue[bool] = asyncio.Queue()
    store._link.on_change(changes.put_nowait)
    await store.open()
    entry = make_entry(make_key(), clock)
    await asyncio.gather(*(store.get(entry.address) for _ in range(64)))  # Each on a connection of its own.
    own_redis.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.get(entry.address)
    server = RedisServer(tmp_path, port=own_redis.port)
    try:
        while not await asyncio.wait_for(changes.get(), 10):
            pass
        await asyncio.gather(*(store.get(entry.address) for _ in range(64)))
        assert store.available
    finally:
        await store.close()
        server.kill()


async def test_keys_expire_by_themselves(shared_redis: RedisServer, clock: ManualClock):
    """Every key that the store makes has an expiry, so that nothing is left behind for good."""
    store = redis_store(shared_redis.url, clock)
    await store.open()
    try:
        entry = make_entry(make_key("expiring"), clock, tags=("kb",))
        await store.put(entry)
        tenant = entry.address.tenant.hex()
        keys = [key async for key in store._link.client.scan_iter(match=f"*{tenant}*")]
        lifetimes = [await store._link.client.pexpiretime(key) for key in keys]

        assert len(keys) == 7
        assert set(lifetimes) == {entry.gone_ms}
    finally:
        await store.close()


async def test_flushed_redis_is_an_empty_cache(shared_redis: RedisServer, clock: ManualClock):
    """Redis may forget everything, scripts included: then nothing is found, and storing works on."""
    store = redis_store(shared_redis.url, clock)
    await store.open()
    try:
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        await store._link.client.flushall()
        await store._link.client.script_flush()

        assert await store.get(entry.address) is None
        await store.put(entry)
        assert await store.get(entry.address) == entry
        assert (await store.size(entry.address.tenant)).entry_count == 1
    finally:
        await store.close()


async def test_damaged_entry_is_a_miss(shared_redis: RedisServer, clock: ManualClock):
    """Bytes that are no entry, or another's, are never served."""
    store = redis_store(shared_redis.url, clock)
    await store.open()
    try:
        mine, other = make_entry(make_key("mine"), clock), make_entry(make_key("other"), clock)
        await store.put(mine)
        await store.put(other)
        names = {
            entry: f"{PREFIX}:{{{entry.tenant.hex()}}}:entry:{entry.entry.hex()}"
            for entry in (mine.address, other.address)
        }
        whole = await store._link.client.hget(names[other.address], "body")
        for damaged in (b"", b"\x01", b"\x03" + whole[1:], whole[:-1], whole):
            await store._link.client.hset(names[mine.address], "body", damaged)
            assert await store.get(mine.address) is None
    finally:
        await store.close()
