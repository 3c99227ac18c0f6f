"""An HTTP proxy as companies have: CONNECT for https, whole URLs for http, a password if it wants one.

Every host name leads to this machine, so that names are known to the proxy alone, as behind a company's wall.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"


class HttpProxy:
    """Passes calls on, and notes them.

    Args:
        password: As user:password, which it then asks for.
        refusal: The status with which it answers everybody, in place of passing on.
        is_mute: It takes connections, and never answers.
        tls: It is spoken to over TLS.

    Attributes:
        asked: The first line of every request.
    """

    def __init__(
        self, password: str = "", refusal: int = 0, is_mute: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._password, self._refusal, self._is_mute, self._tls = password, refusal, is_mute, tls
        self.asked: list[str] = []
        self.url = ""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._take, LOOPBACK, 0, ssl=self._tls)
        scheme, host = ("https", "localhost") if self._tls else ("http", LOOPBACK)
        self.url = f"{scheme}://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Closes every connection and stops listening."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            # asyncio would tell of a task that was cancelled, which is how it is stopped.
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._pass_on(reader, writer)
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *fields = head.decode().rstrip().split("\r\n")
        self.asked.append(line)
        if self._is_mute:
            await reader.read()
            return
        status = self._refusal or (0 if self._is_let_in(fields) else 407)
        if status:
            writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            await writer.drain()
            return
        method, url, _ = line.split()
        address = url.rpartition(":")[2] if method == "CONNECT" else urlsplit(url).port
        behind, onward = await asyncio.open_connection(LOOPBACK, int(address or 80))
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(head)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_pipe(reader, onward))
                tasks.create_task(_pipe(behind, writer))
        finally:
            onward.close()

    def _is_let_in(self, fields: list[str]) -> bool:
        said = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        token = base64.b64encode(self._password.encode()).decode()
        return not self._password or said.get("proxy-authorization") == f"Basic {token}"


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()
    else:
        sink.close()
