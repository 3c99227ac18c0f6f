"""A lane to Redis: whatever is asked at the same time travels together, within one deadline, through a breaker.

One round trip carries what has come up since the last one began, so that a thousand calls at once are a dozen trips and
not a thousand. Redis may be slow, frozen or gone: then everybody who waits hears so when the trip's deadline has
passed, and nobody waits at all once the breaker is open. It knows no key and retries nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from kit.breaker import Breaker
from kit.cancelling import cancel_all
from kit.errors import Unavailable
from services.inference.quota.store import StoreLost

# Most calls of one trip: Redis answers so many in a few milliseconds.
TRIP_COUNT_MAX: Final = 64
# Failed trips in a row that open the breaker, and the time between trials to close it.
FAILURES_MAX: Final = 3
PROBE_INTERVAL_S: Final = 0.5
# Added to a deadline that has passed, to read what has come: when this process itself was held up, its timers are due
# before it has looked at its sockets, and Redis would be blamed for it.
LAST_LOOK_S: Final = 0.002
SOCKET_TIMEOUT_S: Final = 1.0
# A trip costs far more than one call more on it. So when there is much to carry a trip leaves so long after the last
# one, and what nobody waits for looks out for company for longer.
PACE_S: Final = 0.004
PATIENCE_S: Final = 0.01

Command = tuple[Any, ...]
Passenger = tuple[Command, asyncio.Future[Any]]


class RedisLane:
    """Carries commands.

    Args:
        client: Must not retry by itself: a retry would outlive the deadline.
        timeout_s: Longest that one trip may take.

    Attributes:
        on_change: Told whether Redis is being asked, whenever that changes.
        trouble: Why Redis could not be asked when it last could not.
    """

    def __init__(self, client: Redis | RedisCluster, timeout_s: float) -> None:
        self._client: Any = client  # redis-py types its commands as sync or async
        self._timeout_s = timeout_s
        self.on_change: Callable[[bool], None] = lambda available: None
        self.trouble = ""
        self._breaker = Breaker(
            self._try_anew,
            failures_max=FAILURES_MAX,
            interval_s=PROBE_INTERVAL_S,
            on_change=lambda available: self.on_change(available),
        )
        self._scripts: dict[str, str] = {}
        self._waiting: list[Passenger] = []
        self._riding: asyncio.Task[None] | None = None
        self._aboard: list[Passenger] | None = None
        self._left_at, self._leave_at = -math.inf, math.inf  # when the last trip left and the next one will
        self._rides: set[asyncio.Task[Any]] = set()  # the one that rides, and those that were left behind

    @property
    def available(self) -> bool:
        """Whether Redis is being asked."""
        return self._breaker.closed

    async def open(self) -> None:
        """Tries Redis once; where it does not answer, the breaker opens, and closes by itself."""
        try:
            await self._ping()
        except Unavailable:
            self._breaker.trip()

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[Any], *, patient: bool = False) -> Any:
        """Runs a script.

        Args:
            script: Lua.
            keys: Every key that it touches.
            arguments: Its arguments.
            patient: Whether it may wait a moment for company.
        Raises:
            StoreLost: Redis did not answer in time, refused, or is known not to answer.
        """
        digest = self._scripts.get(script)
        if digest is None:
            digest = self._scripts[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        answer = await self._send(("EVALSHA", digest, len(keys), *keys, *arguments), patient)
        if isinstance(answer, NoScriptError):
            answer = await self._send(("EVAL", script, len(keys), *keys, *arguments))
        return _checked(answer)

    async def ask(self, *command: Any) -> Any:
        """Sends a command; raises as `run` does."""
        return _checked(await self._send(command))

    async def _send(self, command: Command, patient: bool = False) -> Any:
        """Sends a command with the next trip; what Redis complains of is an answer."""
        if not self._breaker.closed:
            raise StoreLost(sent=False)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        self._leave(loop.time() + PATIENCE_S if patient else self._left_at + PACE_S)
        return await answer

    async def close(self) -> None:
        """Stops trying, and closes the connections."""
        await self._breaker.close()
        await cancel_all(self._rides)
        await self._client.aclose()

    def _leave(self, at: float) -> None:
        """Has those who wait leave at an instant, or sooner with others; while a trip is under way, after it."""
        loop = asyncio.get_running_loop()
        if self._riding is not None:
            return
        if at <= loop.time() or len(self._waiting) >= TRIP_COUNT_MAX:
            self._depart()
        elif at < self._leave_at:
            self._leave_at = at
            loop.call_at(at, self._depart)

    def _depart(self) -> None:
        self._leave_at = math.inf
        if self._riding is None and self._waiting:
            self._riding = asyncio.create_task(self._ride())
            self._rides.add(self._riding)
            self._riding.add_done_callback(self._rides.discard)

    async def _ride(self) -> None:
        """Makes one trip, and sees to those who have come meanwhile, unless it is left behind."""
        me = asyncio.current_task()
        aboard, self._waiting = self._waiting[:TRIP_COUNT_MAX], self._waiting[TRIP_COUNT_MAX:]
        await self._carry(aboard)
        if self._riding is me:
            self._riding = None
            if self._waiting:
                self._leave(self._left_at + PACE_S)

    async def _carry(self, aboard: list[Passenger]) -> None:
        loop, commands = asyncio.get_running_loop(), [command for command, _ in aboard]
        self._left_at = loop.time()
        self._aboard = aboard
        timer = loop.call_later(self._timeout_s, loop.call_later, LAST_LOOK_S, self._leave_behind, aboard)
        try:
            answers = await self._exchange(commands)
        except BaseException as error:
            self._lose(aboard, _words(error))
            if not isinstance(error, (RedisError, OSError)):
                raise
            return
        finally:
            timer.cancel()
        if self._aboard is not aboard:
            return  # it was left behind, and they were told
        self._aboard = None
        self._breaker.succeed()
        for (_, answer), said in zip(aboard, answers, strict=True):
            if not answer.done():
                answer.set_result(said)

    def _leave_behind(self, aboard: list[Passenger]) -> None:
        """Goes on without a trip whose time is over; redis-py may not end when it is cancelled, so nobody waits."""
        late = self._riding
        if self._aboard is not aboard or late is None:
            return
        self._lose(aboard, "no answer in time")
        ending = asyncio.create_task(cancel_all({late}))
        self._rides.add(ending)
        ending.add_done_callback(self._rides.discard)

    def _lose(self, aboard: list[Passenger], trouble: str) -> None:
        """Tells those aboard, and those who wait: they have waited as long as they may."""
        if self._aboard is not aboard:
            return  # it was left behind, and they were told
        self.trouble = trouble
        waiting, self._waiting, self._riding, self._aboard = self._waiting, [], None, None
        for sent, passengers in ((True, aboard), (False, waiting)):
            for _, answer in passengers:
                if not answer.done():
                    answer.set_exception(StoreLost(sent=sent))
        self._breaker.fail()

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        """Sends commands and returns what Redis says to each."""
        if isinstance(self._client, RedisCluster):
            async with self._client.pipeline() as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
                return answers
        # As a pipeline does it, for a fifth of the time: 45 us for eight scripts in place of 230.
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(b"".join(map(hiredis.pack_command, commands)), check_health=False)
            return [await _answer(connection) for _ in commands]
        finally:
            await pool.release(connection)

    async def _try_anew(self) -> None:
        """Drops the connections that lie idle, for they may lead nowhere any more, and tries Redis once."""
        client = self._client
        if isinstance(client, RedisCluster):
            await asyncio.gather(*(node.disconnect_free_connections() for node in client.get_nodes()))
        else:
            await client.connection_pool.disconnect(inuse_connections=False)
        await self._ping()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(max(self._timeout_s, 1.0)):
                await self._client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self.trouble = _words(error)
            raise StoreLost(sent=False) from error


def redis_client(url: str, cluster: bool) -> Redis | RedisCluster:
    """A client that never retries. Its own timeouts only bound what nobody waits for any more.

    To one Redis it has none once it is connected: it would begin a task and several timers for each trip, which the
    lane ends as it is.
    """
    retry = Retry(NoBackoff(), 0)
    if cluster:
        return RedisCluster.from_url(
            url, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S, retry=retry
        )
    return Redis.from_url(url, socket_connect_timeout=SOCKET_TIMEOUT_S, socket_timeout=None, retry=retry)


async def _answer(connection: Any) -> Any:
    """The next answer; an error that Redis tells is one. The connection closes itself where it cannot be read on."""
    try:
        return await connection.read_response()
    except ResponseError as error:
        return error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _checked(answer: Any) -> Any:
    if isinstance(answer, RedisError):  # it is there and does not do it: its memory is full, for one
        raise StoreLost(sent=False, refusal=_words(answer)) from answer
    return answer
