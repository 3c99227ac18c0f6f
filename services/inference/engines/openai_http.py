"""The HTTP side of the openai engine: one upstream's pool of connections, and what is read from them, bounded.

Whatever an upstream sends, no more of it is held than the bounds below, and no longer. A connection goes back to the
pool only at the end of its answer; else it is closed at once, so that the upstream notices that nobody listens. It
never retries, but for one case that is no failure: a connection that had been closed while it lay in the pool.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from kit import telemetry
from kit.errors import ConfigError, MillraceError
from kit.proxies import name
from services.inference.engines import openai_errors
from services.inference.routing.catalog import Upstream

log = logging.getLogger(__name__)

ERROR_BYTES_MAX = 64 * 1024
ERROR_S = 2.0  # an error's body is worth no longer a wait: the status has said most of it
DRAIN_S = 1.0  # how long a connection may take to end its answer after [DONE] and still be kept
# One that was closed while idle says so within a round trip; a later end is the upstream's failure at this request.
IDLE_CLOSE_S = 1.0
STREAM, JSON = "text/event-stream", "application/json"


class _WaryRequest(aiohttp.ClientRequest):
    """Refuses a connection on which an answer lies that nobody asked for: it would be taken for this request's own.

    The pool looks for such bytes only when a connection comes back to it, not when it is lent again.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Sends the request, or fails as on a connection that was closed while it lay in the pool."""
        if conn.protocol is not None and conn.protocol.should_close:
            raise aiohttp.ClientConnectionResetError("the connection holds an answer that nobody asked for")
        return await super().send(conn)


class HttpAnswer:
    """An answer that is under way: its head was as it should be, its body is still to be read; `let_go` ends it."""

    def __init__(self, response: aiohttp.ClientResponse, label: str, drains: set[asyncio.Task[None]]) -> None:
        self._response, self._label, self._drains = response, label, drains
        protocol = response.connection.protocol if response.connection else None
        self._closed = protocol.closed if protocol is not None else None
        if self._closed:
            self._closed.add_done_callback(self._wake)
        else:  # the whole answer came with its head, or the connection is gone already
            self._end()

    async def read(self) -> bytes:
        """What has arrived, all of it: tokens that are ready together travel together. Nothing at the end.

        Raises:
            Unavailable: The connection broke.
        """
        try:
            return await self._response.content.readany()
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error

    def arrived(self) -> bytes:
        """What has arrived and was not read yet, without waiting; nothing where the connection broke."""
        content = self._response.content
        return content.read_nowait() if content.exception() is None and not content.is_eof() else b""

    async def read_whole(self, bytes_max: int) -> bytes:
        """The whole body.

        Raises:
            Unavailable: The connection broke, or the body is larger than `bytes_max`.
        """
        pieces, size = [], 0
        while data := await self.read():
            pieces.append(data)
            size += len(data)
            if size > bytes_max:
                raise openai_errors.malformed("an answer is too large")
        return b"".join(pieces)

    def let_go(self, completed: bool = False) -> None:
        """Gives the connection back at the end of its body, and closes it at once where nobody will read that far.

        Args:
            completed: All is there but the end of the body: a moment's patience saves the connection.
        """
        if self._closed:
            self._closed.remove_done_callback(self._wake)
            self._closed.remove_done_callback(_retrieve)
            self._closed.add_done_callback(_retrieve)
        if completed and not self._response.content.at_eof():
            task = asyncio.create_task(_drain(self._response))
            self._drains.add(task)
            task.add_done_callback(self._drains.discard)
        else:
            _give_back(self._response)

    def _wake(self, closed: asyncio.Future[None]) -> None:
        _retrieve(closed)
        self._end()

    def _end(self) -> None:
        """Ends the wait for the rest of a body whose connection is gone.

        aiohttp does so itself, but not where it closed the connection because the framing made no sense (3.14).
        """
        content, headers = self._response.content, self._response.headers
        is_framed = "Transfer-Encoding" in headers or "Content-Length" in headers
        if is_framed and not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError())


class UpstreamHttp:
    """Sends requests to one upstream.

    Args:
        label: The upstream's name in the models file.
        upstream: Its entry there.
        headers: Sent with every request.
        proxy: The HTTP proxy before it; None: there is none.

    Raises:
        ConfigError: The file of authorities cannot be read.
    """

    def __init__(self, label: str, upstream: Upstream, headers: Mapping[str, str], proxy: URL | None = None) -> None:
        self._label = label
        self._proxy = proxy
        self._connect_s = upstream.connect_timeout_s
        self._tls = _tls(label, upstream.ca_file)
        # No compression: it would be held back upstream, and could unfold without bound here.
        self._headers = CIMultiDict(headers)
        self._headers["Accept-Encoding"] = "identity"
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._drains: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Makes the pool; the upstream itself is not asked, so that it may be down at start."""
        if self._proxy:
            log.info(
                "an upstream is reached through a proxy", extra={"upstream": self._label, "proxy": name(self._proxy)}
            )
        self._pooled = self._session(aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, ssl=self._tls))
        self._fresh = self._session(aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._tls))

    async def close(self) -> None:
        """Closes every connection."""
        for task in self._drains:
            task.cancel()
        if self._drains:
            await asyncio.wait(self._drains)
        for session in (self._pooled, self._fresh):
            if session:
                await session.close()

    async def post(self, url: URL, body: bytes, accept: str) -> HttpAnswer:
        """Sends JSON and returns the answer once its head is there and is as it should be.

        Raises:
            MillraceError: There was no answer, it was an error, or it was of another kind than `accept`.
        """
        headers = {"Content-Type": JSON, "Accept": accept}
        headers.update(telemetry.inject_trace())
        try:
            response = await self._send(url, body, headers)
        except aiohttp.ClientError as error:
            raise openai_errors.from_transport(error, self._label) from error
        if response.status == 200 and response.content_type == accept and _is_plain(response):
            return HttpAnswer(response, self._label, self._drains)
        try:
            raise await self._refusal(response)
        finally:
            _give_back(response)

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s, sock_connect=self._connect_s),
            auto_decompress=False,
            request_class=_WaryRequest,
            trace_configs=[tracing] if not connector.force_close else None,
        )

    async def _send(self, url: URL, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Sends a request, and once more where the pool's connection had been closed by the other side.

        That it was can be seen only now when the news of it and the request have met on their way.
        """
        assert self._pooled, "open() was not awaited"
        assert self._fresh
        sending = SimpleNamespace(is_reused=False)
        sent_at = time.monotonic()
        try:
            return await self._pooled.post(
                url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy, trace_request_ctx=sending
            )
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError) as error:
            has_begun = isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)
            if has_begun or not sending.is_reused or time.monotonic() - sent_at > IDLE_CLOSE_S:
                raise
        return await self._fresh.post(url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy)

    async def _refusal(self, response: aiohttp.ClientResponse) -> MillraceError:
        """What an answer that cannot be used means; its body is read as far as that is bearable."""
        body = bytearray()
        try:
            async with asyncio.timeout(ERROR_S):
                while len(body) < ERROR_BYTES_MAX and (data := await response.content.readany()):
                    body += data
        except (TimeoutError, aiohttp.ClientError):
            pass  # what came of it says enough
        if response.status != 200:
            return openai_errors.from_status(response.status, response.headers, bytes(body), self._label)
        if not _is_plain(response):
            return openai_errors.malformed(f"content encoding {response.headers['Content-Encoding'][:32]!r}")
        unusable = openai_errors.malformed(f"content type {response.content_type[:64]!r}")
        return openai_errors.from_answer(bytes(body), self._label) or unusable


async def _note_reuse(
    _session: aiohttp.ClientSession, context: SimpleNamespace, _params: aiohttp.TraceConnectionReuseconnParams
) -> None:
    context.trace_request_ctx.is_reused = True


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            size = 0
            while size < ERROR_BYTES_MAX and (data := await response.content.readany()):
                size += len(data)
    except (TimeoutError, aiohttp.ClientError):
        pass
    finally:
        _give_back(response)


def _give_back(response: aiohttp.ClientResponse) -> None:
    """Returns a connection to the pool where its answer was read to the end, else closes it."""
    if response.content.at_eof() and response.status >= 200:  # after 101 follows what is no HTTP
        response.release()
    else:
        response.close()


def _retrieve(closed: asyncio.Future[None]) -> None:
    """Reads how a connection ended, so that asyncio does not complain that nobody did."""
    if not closed.cancelled():
        closed.exception()


def _is_plain(response: aiohttp.ClientResponse) -> bool:
    return response.headers.get("Content-Encoding", "identity").lower() == "identity"


def _tls(label: str, ca_file: str | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True  # the system's authorities
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError, for a file that is no certificate, is one too
        raise ConfigError(f"models file: upstreams.{label}.ca_file: {ca_file!r} cannot be read: {error}") from None
