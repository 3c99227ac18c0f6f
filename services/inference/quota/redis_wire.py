"""The wire to Redis: takes the commands of one trip there and brings what Redis says to each.

redis-py makes the connections, for it knows about passwords, databases, TLS and clusters. One Redis is then spoken to
past it: what it does around a trip (its pool and lock, its events, a task, a stream, a coroutine for each answer) takes
longer than the trip. A wire has no deadline of its own and repeats nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError, ResponseError

from kit.cancelling import cancel_all

Command = tuple[Any, ...]
# Told once what Redis says to each command, complaints included; None where the connection was lost.
Arrived = Callable[[list[Any] | None], None]
_NOTHING: Final = object()


class Wire(Protocol):
    """The way to one Redis or to a cluster; it carries one trip at a time."""

    def send(self, commands: Sequence[Command], arrived: Arrived) -> None:
        """Sends commands."""

    def drop(self) -> None:
        """Gives up what is under way, and its connection with it; the next trip goes by a fresh one."""

    async def renew(self) -> None:
        """Drops connections that lie idle: they may lead nowhere any more."""

    async def close(self) -> None:
        """Closes every connection."""


class SingleWire:
    """The way to one Redis: one connection, made when it is needed."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._link: _Link | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, commands: Sequence[Command], arrived: Arrived) -> None:
        """Sends commands."""
        data = b"".join(map(hiredis.pack_command, commands))
        if self._link is not None and self._link.is_up:
            self._link.send(data, len(commands), arrived)
        else:
            self._connecting = _begin(self._tasks, self._connect_and_send(data, len(commands), arrived))

    def drop(self) -> None:
        """Gives up what is under way, and the connection with it."""
        self._connecting = None
        if self._link is not None:
            self._link.abort()
        _cancel(self._tasks)

    async def renew(self) -> None:
        """Drops connections that lie idle."""
        await self._client.connection_pool.disconnect(inuse_connections=False)

    async def close(self) -> None:
        """Closes the connection."""
        await cancel_all(self._tasks)
        if self._link is not None:
            await self._link.connection.disconnect()
        await self._client.aclose()

    async def _connect_and_send(self, data: bytes, count: int, arrived: Arrived) -> None:
        if self._link is not None:
            await self._link.connection.disconnect(nowait=True)  # it has ended; now redis-py knows, too
        pool: Any = self._client.connection_pool  # partly typed
        connection = pool.make_connection()
        try:
            await connection.connect()
            if self._connecting is not asyncio.current_task():  # dropped: redis-py may go on though it is cancelled
                raise ConnectionAbortedError
        except BaseException as error:
            arrived(None)
            await connection.disconnect(nowait=True)
            if not isinstance(error, RedisError | OSError):
                raise
        else:
            self._link = _Link(connection)
            self._link.send(data, count, arrived)


class ClusterWire:
    """The way to a cluster of Redis, which redis-py finds for each key."""

    def __init__(self, client: RedisCluster) -> None:
        self._client: Any = client  # redis-py types its commands as sync or async
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, commands: Sequence[Command], arrived: Arrived) -> None:
        """Sends commands."""
        _begin(self._tasks, self._carry(commands, arrived))

    def drop(self) -> None:
        """Gives up what is under way."""
        _cancel(self._tasks)

    async def renew(self) -> None:
        """Drops connections that lie idle."""
        await asyncio.gather(*(node.disconnect_free_connections() for node in self._client.get_nodes()))

    async def close(self) -> None:
        """Closes every connection."""
        await cancel_all(self._tasks)
        await self._client.aclose()

    async def _carry(self, commands: Sequence[Command], arrived: Arrived) -> None:
        answers: list[Any] | None = None
        try:
            async with self._client.pipeline() as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                answers = await pipeline.execute(raise_on_error=False)
        except (RedisError, OSError):
            pass
        finally:
            arrived(answers)


class _Link(asyncio.Protocol):
    """A connection that redis-py has made, and what it reads from now on."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.is_up = True
        # redis-py does not lend its transport; it hears of the end all the same, for which it waits where it closes.
        self._transport: asyncio.Transport = connection._writer.transport
        self._before: Any = self._transport.get_protocol()
        self._reader = hiredis.Reader(replyError=_complaint, notEnoughData=_NOTHING)
        self._count, self._answers = 0, list[Any]()
        self._arrived: Arrived = _unasked
        self._transport.set_protocol(self)

    def send(self, data: bytes, count: int, arrived: Arrived) -> None:
        """Sends so many commands."""
        self._count, self._answers, self._arrived = count, [], arrived
        self._transport.write(data)

    def abort(self) -> None:
        """Ends the connection at once."""
        self.is_up = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Reads what Redis says."""
        try:
            self._reader.feed(data)
            while (said := self._reader.gets()) is not _NOTHING:
                if not isinstance(said, hiredis.PushNotification):  # of what it was not asked
                    self._answers.append(said)
        except hiredis.HiredisError:
            self.abort()
            return
        if len(self._answers) > self._count:
            self.abort()
        elif self._answers and len(self._answers) == self._count:
            answers, arrived = self._answers, self._arrived
            self._count, self._answers, self._arrived = 0, [], _unasked
            arrived(answers)

    def eof_received(self) -> None:
        """Redis closes the connection; the transport does the same."""
        self.is_up = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells who waits."""
        self.is_up = False
        self._before.connection_lost(exc)
        arrived, self._arrived = self._arrived, _unasked
        arrived(None)


def _unasked(answers: list[Any] | None) -> None:
    """Nobody waits."""


def _complaint(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


def _begin(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    """Cancels tasks without waiting: redis-py may go on for a while."""
    if tasks:
        _begin(tasks, cancel_all(set(tasks)))
