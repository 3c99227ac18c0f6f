"""The queue of many replicas: taskiq's broker on Redis streams tells each piece of news to one of them.

Why taskiq: it is asyncio through and through, so items run beside everything else in the event loop that serves them;
Celery's workers are processes of their own that would need their own models. News is acknowledged when it is received:
what is to be done, and who does it, is in the database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from redis.exceptions import RedisError
from taskiq.acks import AcknowledgeType
from taskiq.exceptions import TaskiqError
from taskiq.receiver import Receiver
from taskiq_redis import RedisStreamBroker

from services.inference.jobs.queue import Work

log = logging.getLogger(__name__)

STREAM = "millrace:jobs"
NEWS_COUNT_MAX = 64  # of one announcement: each piece wakes a worker, which goes on until nothing is left
STREAM_LENGTH_MAX = 10_000
ANNOUNCE_TIMEOUT_S = 0.25  # a job is accepted though Redis is away; workers look for themselves
SOCKET_TIMEOUT_S = 5.0
BLOCK_MS = 2_000
RETRY_S = (0.5, 10.0)  # first and longest pause after Redis has failed


class TaskiqQueue:
    """A queue on Redis.

    Args:
        url: Of Redis.
    """

    def __init__(self, url: str) -> None:
        self._broker = RedisStreamBroker(
            url,
            queue_name=STREAM,
            consumer_group_name=STREAM,
            maxlen=STREAM_LENGTH_MAX,
            xread_block=BLOCK_MS,
            xread_count=1,
            unacknowledged_lock_timeout=SOCKET_TIMEOUT_S,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
        )
        self._work: Work | None = None
        self._look = self._broker.register_task(self._looking(), task_name="look")
        self._is_away = False

    async def announce(self, count: int) -> None:
        """Tells as many replicas' workers as may be needed."""
        try:
            async with asyncio.timeout(ANNOUNCE_TIMEOUT_S):
                await asyncio.gather(*(self._look.kiq() for _ in range(min(count, NEWS_COUNT_MAX))))
        except Exception as error:
            self._note_away(_outage(error))

    async def run(self, work: Work, concurrency: int) -> None:
        """Receives news, so many pieces at once; comes back when Redis does."""
        self._work = work
        pause_s = RETRY_S[0]
        with ThreadPoolExecutor(max_workers=1) as unused:  # the receiver wants one for tasks that are no coroutines
            while True:
                began = asyncio.get_running_loop().time()
                try:
                    await self._listen(concurrency, unused)
                except Exception as error:
                    self._note_away(_outage(error))
                lasted_s = asyncio.get_running_loop().time() - began
                pause_s = RETRY_S[0] if lasted_s > RETRY_S[1] else min(2 * pause_s, RETRY_S[1])
                await asyncio.sleep(pause_s)

    async def _listen(self, concurrency: int, executor: ThreadPoolExecutor) -> None:
        await self._broker.startup()
        if self._is_away:
            log.info("Redis is back: replicas learn of new jobs at once")
            self._is_away = False
        receiver = Receiver(
            self._broker,
            executor,
            max_async_tasks=concurrency,
            run_startup=False,
            ack_type=AcknowledgeType.WHEN_RECEIVED,
        )
        await receiver.listen(asyncio.Event())

    def _looking(self) -> Callable[[], Awaitable[None]]:
        async def look() -> None:  # taskiq names and renames what it is given, which a method cannot bear
            if self._work:
                await self._work()

        return look

    def _note_away(self, error: BaseException) -> None:
        if not self._is_away:
            log.warning("Redis is away (%s): jobs are found by looking for them until it is back", type(error).__name__)
        self._is_away = True

    async def close(self) -> None:
        """Closes the connections."""
        await self._broker.shutdown()


def _outage(error: BaseException) -> BaseException:
    """What has become of Redis: taskiq wraps what it hears of it, in groups as well; raises what is none of that."""
    cause: BaseException | None = error
    while isinstance(cause, BaseExceptionGroup | TaskiqError):
        cause = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause.__cause__
    if not isinstance(cause, RedisError | OSError | TimeoutError):
        raise error
    return cause
