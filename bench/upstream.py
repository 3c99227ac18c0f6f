"""A scripted OpenAI-compatible upstream in the bench's own process, so that one clock times both ends.

A script is a coroutine function: it is handed each request and does with the connection what it likes. HTTP is spoken
by hand, because no server library breaks the rules on demand, nor tells at once that its client has gone. It never
checks what it is asked.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

PORT_ANY = 0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no seconds: close says RST, not FIN

Script = Callable[["Exchange"], Awaitable[None]]


class Upstream:
    """Answers every request as the script says.

    Args:
        script: What to do with each.
        host: The address to listen on.

    Attributes:
        url: Base URL of the API.
        connection_count: Connections that are open.
        asked_count: Requests that have come so far.
        in_progress: Requests whose script still runs; after the callers have gone each of them is a leak.
    """

    def __init__(self, script: Script, host: str = "127.0.0.1") -> None:
        self.url, self._host = "", host
        self.connection_count = self.asked_count = 0
        self.in_progress: set[Exchange] = set()
        self._script = script
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Upstream:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), self._host, PORT_ANY, backlog=4096)
        self.url = f"http://{self._host}:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await self._server.wait_closed()

    async def run(self, exchange: Exchange) -> None:
        """Plays the script for one request."""
        self.asked_count += 1
        self.in_progress.add(exchange)
        try:
            await self._script(exchange)
        finally:
            self.in_progress.discard(exchange)

    def opened(self, connection: _Connection) -> None:
        """Notes a connection."""
        self.connection_count += 1
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        """Forgets a connection."""
        self.connection_count -= 1
        self._connections.discard(connection)


class Exchange:
    """One request, and the hand that answers it.

    Attributes:
        question: Text of the last message.
        hung_up: Resolves to the `time.monotonic()` instant at which the client closed the connection under it.
    """

    def __init__(self, body: dict[str, Any], transport: asyncio.Transport) -> None:
        self.question: str = body["messages"][-1]["content"]
        self.hung_up: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._model: str = body["model"]
        self._transport = transport
        self._held: bytearray | None = None

    def whole(self, status: int, content_type: str, body: bytes, *headers: str) -> None:
        """Sends a complete answer of known length."""
        lines = (f"HTTP/1.1 {status} Status", f"content-type: {content_type}", f"content-length: {len(body)}", *headers)
        self._write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def head(self) -> None:
        """Begins a stream."""
        self._write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def data(self, payload: str) -> None:
        """Sends one event of a stream."""
        event = f"data: {payload}\n\n".encode()
        self._write(b"%x\r\n%b\r\n" % (len(event), event))

    def token(self, text: str) -> None:
        """Sends a piece of the answer."""
        self.data(self._chunk({"content": text}, None))

    def finish(self, piece_count: int) -> None:
        """Sends the finish reason and the usage."""
        self.data(self._chunk({}, "stop"))
        used = {"prompt_tokens": 7, "completion_tokens": piece_count, "total_tokens": 7 + piece_count}
        self.data(json.dumps({"object": "chat.completion.chunk", "model": self._model, "choices": [], "usage": used}))

    def done(self) -> None:
        """Ends a stream well."""
        self.data("[DONE]")
        self.end()

    def end(self) -> None:
        """Ends the body, whatever is missing in it."""
        self._write(b"0\r\n\r\n")

    def answer(self, pieces: list[str]) -> None:
        """Sends a whole good stream at once."""
        with self.together():
            self.head()
            for piece in pieces:
                self.token(piece)
            self.finish(len(pieces))
            self.done()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Sends all that is sent within the block in one piece."""
        if self._held is not None:
            yield
            return
        self._held = bytearray()
        yield
        held, self._held = bytes(self._held), None
        self._write(held)

    def cut(self) -> None:
        """Closes the connection after what was written."""
        self._transport.close()

    def reset(self) -> None:
        """Resets the connection: what was written may never be read."""
        peer: socket.socket = self._transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._held is not None:
            self._held += data
        elif not self._transport.is_closing():
            self._transport.write(data)

    def _chunk(self, delta: dict[str, str], finish: str | None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return json.dumps({"object": "chat.completion.chunk", "model": self._model, "choices": [choice]})


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered by a task."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._data = b""
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._upstream.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.closed(self)
        if self._exchange and not self._exchange.hung_up.done():
            self._exchange.hung_up.set_result(time.monotonic())
        if self._task:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, rest = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        lines = head.decode("latin-1").lower().split("\r\n")
        size = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length:"))
        if len(rest) >= size:
            self._data = rest[size:]
            self._exchange = Exchange(json.loads(rest[:size]), self.transport)
            self._task = asyncio.create_task(self._upstream.run(self._exchange))
