"""Both queues tell workers of news; the one on Redis tells other processes, and is done without while Redis is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from services.inference.jobs.queue import LocalQueue, Queue, Work
from services.inference.jobs.taskiq_queue import TaskiqQueue
from tests.fakes.redis_server import RedisServer
from tests.inference.jobs.parts import DEADLINE_S, Shop, eventually, open_database


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of one's own."""
    server = RedisServer(tmp_path)
    yield server
    server.kill()


@pytest.fixture(params=["local", "taskiq"])
async def queue(request: pytest.FixtureRequest) -> AsyncIterator[Queue]:
    """A queue of either kind."""
    if request.param == "local":
        made: Queue = LocalQueue()
    else:
        made = TaskiqQueue(request.getfixturevalue("redis").url)
    yield made
    await made.close()


class Worker:
    """Counts the calls to look, once its queue runs."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[None] = asyncio.Queue()

    async def work(self) -> None:
        self.looks.put_nowait(None)

    async def looked(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self.looks.get()


async def test_news_wakes_a_worker(queue: Queue) -> None:
    """Each time something has come somebody looks, not only at the start."""
    worker = Worker()
    running = asyncio.create_task(queue.run(worker.work, 1))
    for _ in range(3):
        while worker.looks.empty():  # a group's first listener may come after the first news
            await queue.announce(1)
            await asyncio.sleep(0.02)
        await worker.looked()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert running.cancelled()


async def test_replicas_share_the_work(redis: RedisServer, tmp_path: Path) -> None:
    """A job accepted by a process that does none of it is done by two others, before they would have looked."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/jobs.sqlite3") as database:
        queues = [TaskiqQueue(redis.url) for _ in range(3)]
        door, *shops = [Shop(database, queue, poll_s=60.0, lease_s=600.0) for queue in queues]
        async with shops[0].working(), shops[1].working():
            await listening(redis, 2)
            job = await door.job(*[b"a", b"b"] * 20)
            await door.ended(job)
        for queue in queues:
            await queue.close()

        assert sorted(shops[0].runner.works + shops[1].runner.works) == [b"a"] * 20 + [b"b"] * 20


async def listening(redis: RedisServer, count: int) -> None:
    """Waits until so many processes wait for news."""
    async with Redis.from_url(redis.url) as client:

        async def are_there() -> bool:
            return sum(one["cmd"] == "xreadgroup" for one in await client.client_list()) >= count

        await eventually(are_there)


async def test_without_redis_jobs_are_found_by_looking(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A frozen Redis delays acceptance by its bound and no more; the items are done, and it is logged once."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/jobs.sqlite3") as database:
        queue = TaskiqQueue(redis.url)
        shop = Shop(database, queue)
        async with shop.working():
            await listening(redis, 1)
            redis.freeze()
            with caplog.at_level(logging.WARNING):
                for number in range(3):
                    async with asyncio.timeout(DEADLINE_S):
                        await shop.job(b"a", request_id=f"r{number}")
            redis.thaw()

            async def are_done() -> bool:
                return len(shop.runner.works) == 3

            await eventually(are_done)
        await queue.close()

    assert sum("Redis is away" in record.message for record in caplog.records) == 1


async def test_jobs_are_accepted_and_done_while_redis_is_gone_and_after(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Redis is killed jobs go on, found by looking; when it is back, empty, its news is heard again."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/jobs.sqlite3") as database:
        queue = TaskiqQueue(redis.url)
        shop = Shop(database, queue, lease_s=600.0)
        async with shop.working() as workers:
            await listening(redis, 1)
            redis.kill()
            with caplog.at_level(logging.INFO):
                for number in range(3):
                    await shop.ended(await shop.job(b"a", request_id=f"r{number}"))
                back = RedisServer(tmp_path, port=redis.port)
                await listening(back, 1)

            assert not workers.done()
            back.kill()
        await queue.close()

    told = [record.message.partition(" (")[0] for record in caplog.records if "Redis is" in record.message]
    assert told == ["Redis is away", "Redis is back: replicas learn of new jobs at once"]


class Deaf(LocalQueue):
    """A queue that cannot hear, for a reason of its own."""

    async def run(self, work: Work, concurrency: int) -> None:
        raise RuntimeError("no ears")


async def test_workers_look_for_work_whatever_their_queue_does(tmp_path: Path) -> None:
    """A queue that fails as nobody foresaw delays a job; the workers find it all the same."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/jobs.sqlite3") as database:
        shop = Shop(database, Deaf())
        async with shop.working() as workers:
            await shop.ended(await shop.job(b"a"))

            assert not workers.done()
