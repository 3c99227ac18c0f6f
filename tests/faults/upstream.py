"""A server on a real socket that answers requests by a script: raw bytes, pauses, and ways to end.

It knows HTTP only as far as it must to tell one request from the next; what it says is up to the script, right or
wrong. It has no task and no thread of its own, so that whatever is left after a test is not the server's.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

Server = asyncio.Server


class End(Enum):
    """How a script ends a connection, or does not."""

    CLOSE = "close"
    RESET = "reset"  # RST instead of FIN, and what was not sent yet is lost
    SILENCE = "silence"  # for ever, or until the other side hangs up


@dataclass(frozen=True)
class Pause:
    """A wait in the middle of a script, in seconds."""

    seconds: float


Step = bytes | Pause | End
Script = Iterable[Step]


@dataclass(frozen=True)
class Asked:
    """A request as it came.

    Attributes:
        model: What the body asks for.
        number: Which request of its connection it is, from 1.
    """

    model: str
    body: dict[str, object]
    headers: dict[str, str]
    number: int


class ScriptedUpstream:
    """The server.

    Args:
        script: Says what is answered to a request. After it, unless it says otherwise, the connection waits for the
            next one.

    Attributes:
        asked: Every request so far.
        connection_count: Connections so far.
    """

    def __init__(self, script: Callable[[Asked], Script], tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.url = ""
        self.asked: list[Asked] = []
        self.connection_count = 0
        self._tls = tls
        self._connections: set[_Connection] = set()
        self._changed = asyncio.Condition()
        self._server: Server | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def busy_count(self) -> int:
        """Connections on which an answer is under way."""
        return sum(connection.is_busy for connection in self._connections)

    @property
    def open_count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    async def start(self) -> None:
        """Listens on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, ssl=self._tls)
        scheme, host = ("https", "localhost") if self._tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.port}/v1"

    async def stop(self) -> None:
        """Closes every connection and stops listening."""
        self.hang_up()
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    def hang_up(self) -> None:
        """Closes every connection."""
        for connection in list(self._connections):
            connection.hang_up()

    def count_of(self, model: str) -> int:
        """How often a model was asked for."""
        return sum(asked.model == model for asked in self.asked)

    def opened(self, connection: _Connection) -> None:
        """Notes a connection."""
        self.connection_count += 1
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """One connection: each request is answered by the steps of a script, one after the other."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self._upstream = upstream
        self._data = b""
        self._number = 0
        self._steps: Iterator[Step] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_busy(self) -> bool:
        """Whether an answer is under way."""
        return self._steps is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.closed(self)
        self._steps = None
        if self._timer:
            self._timer.cancel()

    def eof_received(self) -> None:
        """Closes as soon as the other side does, also in the middle of an answer."""

    def hang_up(self) -> None:
        """Closes the connection politely, whatever is under way."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, rest = self._data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = int(headers.get("content-length", 0))
        if not separator or len(rest) < size:
            return
        body, self._data = json.loads(rest[:size]), rest[size:]
        self._number += 1
        asked = Asked(body["model"], body, headers, self._number)
        self._upstream.asked.append(asked)
        self._steps = iter(self._upstream.script(asked))
        self._go_on()

    def _go_on(self) -> None:
        """Takes the next step; between two there is a turn of the loop, so that each is a segment of its own."""
        if self._steps is None or self._transport.is_closing():
            return
        loop = asyncio.get_running_loop()
        match next(self._steps, None):
            case bytes() as data:
                self._transport.write(data)
                self._timer = loop.call_later(0, self._go_on)
            case Pause(seconds):
                self._timer = loop.call_later(seconds, self._go_on)
            case End.CLOSE:
                self._transport.close()
            case End.RESET:
                _reset(self._transport)
            case End.SILENCE:
                pass
            case None:
                self._steps = None


def _reset(transport: asyncio.Transport) -> None:
    """Ends a connection with RST: a linger time of zero throws away what is unsent and skips the farewell."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
