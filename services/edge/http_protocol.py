"""uvicorn's HTTP protocol, with answers of unknown length for clients of HTTP/1.0.

uvicorn sends them in chunks, which HTTP/1.0 does not know (RFC 9112, section 6.1): such a client, or a proxy that
speaks so, takes the sizes of the chunks for text. For it the end of the connection is the end of the answer. Whether it
was complete is told by the last event of a stream alone. No connection of HTTP/1.0 is kept alive.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from services.edge.exchange import Receive, Scope, Send


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["http_version"] == "1.0":
            app = _UntilClose(app, cycle)
        super()._start_asgi_task(cycle, app)


class _UntilClose:
    """The application for one request of HTTP/1.0.

    uvicorn knows bodies in chunks and bodies of a declared length. One of unknown length passes for the latter where
    each piece is declared just before it is sent.
    """

    def __init__(self, app: Any, cycle: RequestResponseCycle) -> None:
        self._app, self._cycle = app, cycle
        self._has_length = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_plainly(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self._has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                if not self._has_length:
                    self._cycle.chunked_encoding = False
            elif not self._has_length:
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._app(scope, receive, send_plainly)
