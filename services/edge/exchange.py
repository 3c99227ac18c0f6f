"""One HTTP request and its answer.

The one place where bytes meet the ASGI server: every answer leaves through here, so that each carries the request id,
the time it took and the CORS headers. It never looks into a body.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from kit.identity import sane_request_id
from services.edge.fault import Fault, Headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = b"application/json"
_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode
_LINGER_S = 1.0  # a client that sends more than this much longer learns of its mistake by a cut connection
_PING = b": ping\n\n"
_STREAM_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # asks proxies not to buffer
)


class Disconnected(Exception):
    """The client is gone; nothing can be answered any more."""


class Exchange:
    """One request and its answer.

    Attributes:
        request_id: The caller's where it is sane, else made here.
        status: Of the answer, once it has begun; 499 where the client left before.
        route: Template of the path, for spans and metrics.
        timeout_s: Time that the request may take.
        params: What the path's template matched.
        address: Of the client, as the proxies that are trusted tell it.
        query: Behind the path's question mark, as it came; for `query.read`, never for a log or a span.
        raw_headers: Every header, those that came twice included.
        model: Public name of the model that answers, where one does.
        disconnected: The client left before the answer was complete.
        failed: The answer, or the end of its stream, says that Millrace failed.
        error: What went wrong, as a code; empty where nothing did.
    """

    __slots__ = (
        "_body_left",
        "_extra",
        "_fail_stream",
        "_receive",
        "_send",
        "_streaming",
        "_wrote",
        "address",
        "disconnected",
        "error",
        "failed",
        "headers",
        "method",
        "model",
        "params",
        "path",
        "query",
        "raw_headers",
        "request_id",
        "route",
        "scheme",
        "started",
        "status",
        "timeout_s",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scheme: str = scope["scheme"]
        self.query: bytes = scope["query_string"]
        self.raw_headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        self.headers: dict[bytes, bytes] = dict(self.raw_headers)
        self.address: str = client[0] if (client := scope.get("client")) else ""
        self.request_id = sane_request_id(self.headers.get(b"x-request-id", b"").decode("latin-1"))
        self.route = ""
        self.model = ""
        self.params: dict[str, str] = {}
        self.status = 0
        self.timeout_s = 0.0
        self.disconnected = False
        self.failed = False
        self.error = ""
        self._receive = receive
        self._send = send
        self._extra: dict[bytes, bytes] = {}
        self._fail_stream: Callable[[Fault], bytes] | None = None  # known: the answer is to be a stream
        self._streaming = False
        self._wrote = False
        self._body_left = True

    @property
    def elapsed_s(self) -> float:
        """Time since the request came."""
        return time.perf_counter() - self.started

    def set_header(self, name: bytes, value: bytes) -> None:
        """Sets a header of the answer; after the answer has begun it is too late and nothing happens."""
        self._extra[name] = value

    def drop_header(self, name: bytes) -> None:
        """Takes back a header that was set and does not hold any more."""
        self._extra.pop(name, None)

    async def body(self, size_max: int, timeout_s: float) -> bytes:
        """Reads the request's body.

        Raises:
            Fault: 413 when it is larger than `size_max` bytes, 408 when it is not complete after `timeout_s`.
            Disconnected: The client left before it was complete.
        """
        if self._declared_size() > size_max:
            raise _too_large(size_max)
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._receive()
                body: bytes = message.get("body", b"")
                while message.get("more_body", False) and len(body) <= size_max:
                    message = await self._receive()
                    body += message.get("body", b"")
        except TimeoutError:
            raise Fault(408, f"The body was not complete after {timeout_s:g} s.", code="body_timeout") from None
        if message["type"] == "http.disconnect":
            self.disconnected = True
            raise Disconnected
        if len(body) > size_max:
            raise _too_large(size_max)
        self._body_left = False
        return body

    async def chunks(self, size_max: int, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """Reads the request's body as it comes; raises as `body` does."""
        if self._declared_size() > size_max:
            raise _too_large(size_max)
        size, more = 0, True
        try:
            async with asyncio.timeout(timeout_s):
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.disconnected = True
                        raise Disconnected
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    size += len(chunk)
                    if size > size_max:
                        raise _too_large(size_max)
                    yield chunk
        except TimeoutError:
            raise Fault(408, f"The body was not complete after {timeout_s:g} s.", code="body_timeout") from None
        self._body_left = False

    async def answer(self, status: int, body: bytes, content_type: bytes = _JSON, headers: Headers = ()) -> None:
        """Sends a whole answer."""
        size = b"%d" % len(body)
        await self._start(status, [(b"content-type", content_type), (b"content-length", size), *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def answer_pieces(self, pieces: AsyncIterator[bytes], content_type: bytes) -> None:
        """Sends an answer piece by piece; what fails before the first is still a proper error, later it is cut."""
        first = await anext(pieces, b"")
        await self._start(200, [(b"content-type", content_type)])
        await self.write(first)
        async for piece in pieces:
            await self.write(piece)
        await self.end_stream(b"")

    async def answer_struct(self, status: int, answer: object) -> None:
        """Sends a struct as JSON."""
        await self.answer(status, _encode(answer))

    async def answer_empty(self, status: int) -> None:
        """Sends an answer without a body."""
        await self._start(status, [])
        await self._send({"type": "http.response.body"})

    async def answer_fault(self, fault: Fault, with_extra: bool = False) -> None:
        """Sends the error envelope; in a stream that has begun, its last event says what went wrong instead."""
        self.failed = fault.status >= 500
        self.error = self.error or fault.code or str(fault.status)
        if self._fail_stream is not None and self.status:
            await self.end_stream(self._fail_stream(fault))
            return
        if self._body_left and self._declared_size():
            await self._discard()
        # What was not read of the body would be taken for the next request.
        closing: Headers = ((b"connection", b"close"),) if self._body_left and self._declared_size() else ()
        await self.answer(fault.status, fault.body(with_extra), headers=fault.headers + closing)

    def expect_stream(self, fail: Callable[[Fault], bytes]) -> None:
        """Says that the answer is to be a stream of server-sent events, which begins with its first heartbeat at last.

        Args:
            fail: Makes the last event of a stream that breaks.
        """
        self._fail_stream = fail

    async def start_stream(self) -> None:
        """Begins the expected stream, unless it has begun."""
        if not self.status:
            self._streaming = True
            await self._start(200, list(_STREAM_HEADERS))

    async def write(self, chunk: bytes) -> None:
        """Sends a piece of a stream; waits while the client reads too slowly."""
        self._wrote = True
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end_stream(self, chunk: bytes) -> None:
        """Sends the last piece of a stream."""
        self._streaming = False
        await self._send({"type": "http.response.body", "body": chunk})

    async def attend(self, cancel: Callable[[], Any], heartbeat_s: float) -> None:
        """Waits for the client to leave and then cancels; a silent stream is kept alive by comments meanwhile.

        One that is only expected begins with the first of them: from then on what fails is told in the stream.
        """
        while True:
            try:
                async with asyncio.timeout(heartbeat_s):
                    message = await self._receive()
            except TimeoutError:
                await self._beat()
                continue
            if message["type"] == "http.disconnect":
                self.disconnected = True
                cancel()
                return

    async def _discard(self) -> None:
        """Reads on for a moment: many clients look at an answer only when they have sent all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while True:
                    message = await self._receive()
                    self.disconnected = self.disconnected or message["type"] == "http.disconnect"
                    if not message.get("more_body", False):
                        self._body_left = False
                        return

    async def _beat(self) -> None:
        if self._fail_stream is not None:
            await self.start_stream()
        if self._streaming and not self._wrote:
            await self._send({"type": "http.response.body", "body": _PING, "more_body": True})
        self._wrote = False

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        headers = [header for header in headers if header[0] not in self._extra]
        headers += self._extra.items()
        headers.append((b"x-request-id", self.request_id.encode()))
        headers.append((b"x-process-time", b"%.6f" % self.elapsed_s))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def _declared_size(self) -> int:
        """Size of the body as declared; 1 for a chunked body, whose size is not known."""
        if b"transfer-encoding" in self.headers:
            return 1
        return int(self.headers.get(b"content-length", b"0"))


def _too_large(size_max: int) -> Fault:
    return Fault(413, f"The body is larger than {size_max} bytes.", code="body_too_large")
