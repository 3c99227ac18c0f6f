"""One Redis, asked within deadlines and through a breaker: what the store and the flights on Redis share.

Redis may be slow, frozen or gone. A request then costs at most its deadline, and nothing once the breaker is open. This
module knows no key; it never waits for Redis without a deadline.
"""

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from kit.breaker import Breaker
from services.cache.store import StoreUnavailable

log = logging.getLogger(__name__)

# Raise it when what is kept under the keys changes: what older releases kept is then not found, and expires by itself.
PREFIX: Final = "millrace:cache:2"
# Calls to Redis under way at once, each on a connection of its own; redis-py refuses what its pool (100) cannot hold.
CONNECTIONS_MAX: Final = 64
# Timeouts or failures in a row that open the breaker, and the time between trials to close it.
FAILURES_MAX: Final = 3
PROBE_INTERVAL_S: Final = 0.5
# Between looks at a Redis of which nobody asks anything; one that died would be called healthy until somebody does.
WATCH_INTERVAL_S: Final = 2.0
# Added to a deadline that has passed, to read what has come: when this process itself was held up, its timers are due
# before it has looked at its sockets, and Redis would be blamed for it. What leaves only then needs a moment as well.
LAST_LOOK_S: Final = 0.01
# A Redis that is full or may only be read refuses every write: that is said so often.
REFUSAL_INTERVAL_S: Final = 60.0


class RedisLink:
    """A client with deadlines and a breaker.

    Args:
        client: Must not retry by itself: a retry would outlive the deadline of who asks.
        read_timeout_s: Longest that a lookup asks.
        write_timeout_s: Longest that anything else asks.
    """

    def __init__(self, client: Redis | RedisCluster, *, read_timeout_s: float, write_timeout_s: float) -> None:
        self.client: Any = client  # redis-py types its commands as sync or async.
        self.read_timeout_s, self.write_timeout_s = read_timeout_s, write_timeout_s
        self._listeners: list[Callable[[bool], None]] = []
        self._trouble = ""
        self._say_refusal_at = 0.0
        self._breaker = Breaker(
            self._try_anew, failures_max=FAILURES_MAX, interval_s=PROBE_INTERVAL_S, on_change=self._announce
        )
        self._connections = asyncio.Semaphore(CONNECTIONS_MAX)

    @property
    def available(self) -> bool:
        """Whether Redis is being asked."""
        return self._breaker.closed

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Tells a listener whether Redis is being asked, whenever that changes."""
        self._listeners.append(listener)

    async def open(self) -> None:
        """Tries Redis once; where it does not answer, the breaker opens, and closes by itself."""
        try:
            await self._ping()
        except StoreUnavailable:
            self.trip()

    async def watch(self, interval_s: float = WATCH_INTERVAL_S) -> None:
        """Goes on trying Redis, so that its loss is known while nobody asks; until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                if self._breaker.closed:
                    await self.open()
            except Exception:  # what redis-py should never raise must not end the watch
                log.exception("Redis could not be tried")

    def trip(self) -> None:
        """Asks Redis no more until it is known to answer."""
        self._breaker.trip()

    @contextlib.asynccontextmanager
    async def asking(self, timeout_s: float) -> AsyncIterator[None]:
        """Bounds what is asked of Redis within, and tells the breaker how it went.

        Raises:
            StoreUnavailable: Redis did not answer in time, or is known not to.
        """
        if not self._breaker.closed:
            raise StoreUnavailable("Redis does not answer; retry.", int(PROBE_INTERVAL_S * 1000))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as limit:
                timer = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + LAST_LOOK_S))
                try:
                    async with self._connections:
                        yield
                finally:
                    timer.cancel()
        except ResponseError as error:  # Redis is there, and does not do it: its memory is full, for one.
            self._breaker.succeed()
            self._say_refusal(error)
            raise StoreUnavailable(f"Redis refused ({error}); see to it, then retry.") from error
        except (RedisError, OSError, TimeoutError) as error:
            self._trouble = _words(error)
            self._breaker.fail()
            raise StoreUnavailable("Redis did not answer in time; retry.", int(PROBE_INTERVAL_S * 1000)) from error
        self._breaker.succeed()

    async def run(self, script: str, keys: Sequence[str], arguments: Iterable[Any]) -> Any:
        """Runs a script, by its digest where Redis knows it already; to be called while `asking`."""
        values = list(arguments)
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return await self.client.evalsha(digest, len(keys), *keys, *values)
        except NoScriptError:
            return await self.client.eval(script, len(keys), *keys, *values)

    async def close(self) -> None:
        """Stops trying, and closes the connections."""
        await self._breaker.close()
        await self.client.aclose()

    def _announce(self, available: bool) -> None:
        if available:
            log.info("Redis answers again")
        else:
            log.warning("Redis does not answer: lookups miss, nothing is kept", extra={"reason": self._trouble})
        for listener in self._listeners:
            listener(available)

    def _say_refusal(self, error: ResponseError) -> None:
        if (now := time.monotonic()) >= self._say_refusal_at:
            self._say_refusal_at = now + REFUSAL_INTERVAL_S
            log.warning("Redis refuses what it is asked: see to it", extra={"reason": _words(error)})

    async def _try_anew(self) -> None:
        """Drops the connections that lie idle, for they may lead nowhere any more, and tries Redis once."""
        client = self.client
        if isinstance(client, RedisCluster):
            await asyncio.gather(*(node.disconnect_free_connections() for node in client.get_nodes()))
        else:
            await client.connection_pool.disconnect(inuse_connections=False)
        await self._ping()

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(self.write_timeout_s):
                await self.client.ping()
        except (RedisError, OSError, TimeoutError) as error:
            self._trouble = _words(error)
            raise StoreUnavailable("Redis did not answer in time; retry.") from error


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def slot(tenant: bytes) -> str:
    """The beginning of a tenant's keys: one hash tag, so that all of them share a slot of a cluster."""
    return f"{PREFIX}:{{{tenant.hex()}}}"


def entry_key(tenant: bytes, entry: str) -> str:
    """The key of an entry."""
    return f"{slot(tenant)}:entry:{entry}"
