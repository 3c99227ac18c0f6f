"""The ASGI application: one wrapper around every request.

Finds the endpoint, reads the body within its limit, lets the endpoint answer and turns whatever goes wrong into the
error envelope. It is one layer on purpose: each middleware costs on every request and every streamed chunk.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from kit import identity
from kit.errors import MillraceError
from services.edge import provenance, rate_limits
from services.edge.body import BodyReader
from services.edge.credentials import refuse_in_url
from services.edge.exchange import Disconnected, Exchange, Receive, Scope, Send
from services.edge.fault import Fault
from services.edge.routes import Bound, Route, Router, allow

_log = logging.getLogger(__name__)
_JSON_TYPE = re.compile(rb"^application/(json|[a-z0-9.+-]+\+json)\s*(;|$)", re.IGNORECASE)
_EXPOSED = ", ".join(
    (
        *("x-request-id", "x-process-time", "retry-after", "retry-after-ms", "x-should-retry", "www-authenticate"),
        *provenance.HEADERS,
        *rate_limits.HEADERS,
    )
).encode()
_TIMEOUT = b"x-request-timeout-ms"
_PREFLIGHT_SECONDS = b"600"


@dataclass(frozen=True)
class Limits:
    """What a request may use.

    Attributes:
        body_bytes_max: Larger bodies are refused.
        body_timeout_s: Time for the body of a request that asks for no time of its own.
        timeout_s: Time for a request that asks for none.
        timeout_s_max: Most time that a request may ask for.
        active_requests_max: Most requests with a body in flight; None sets no limit.
        origins: Origins whose pages may call; "*" means all.
    """

    body_bytes_max: int
    body_timeout_s: float
    timeout_s: float
    timeout_s_max: float
    active_requests_max: int | None = None
    origins: Collection[str] = ()


class Gateway:
    """Serves the routes.

    Args:
        router: The endpoints.
        limits: What a request may use.
        observe: Surrounds each exchange with its span and counts it.
    """

    def __init__(
        self,
        router: Router,
        limits: Limits,
        observe: Callable[[Exchange], AbstractContextManager[None]],
    ) -> None:
        self._router = router
        self._limits = limits
        self._observe = observe
        self._active_count = 0
        self._origins = frozenset(origin.encode() for origin in limits.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        assert scope["type"] == "http", "the server is configured for HTTP alone"
        exchange = Exchange(scope, receive, send)
        with self._observe(exchange):
            await self._serve(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        """Answers, whatever happens; a client that has left gets nothing and counts as 499."""
        explains = False
        try:
            self._allow_origin(exchange)
            if exchange.method == "OPTIONS":
                return await self._answer_options(exchange)
            bound = self._router.find(exchange)
            explains = bound.route.explains
            refuse_in_url(exchange)
            await self._answer(exchange, bound)
        except Disconnected:
            exchange.status = exchange.status or 499
        except asyncio.CancelledError:
            # The grace is over. The connection is cut, which tells the client that its answer is not complete.
            exchange.status = exchange.status or 503
            exchange.failed, exchange.error = True, "shutdown"
            raise
        except Fault as fault:
            await exchange.answer_fault(fault, explains)
        except MillraceError as error:
            await exchange.answer_fault(Fault.of(error, route=exchange.route), explains)
        except Exception as error:
            _log.exception("request failed", extra={"route": exchange.route})
            exchange.error = type(error).__qualname__
            await exchange.answer_fault(Fault.internal(), explains)

    async def _answer(self, exchange: Exchange, bound: Bound) -> None:
        """Lets the endpoint answer."""
        exchange.timeout_s = self._timeout_s(exchange)
        deadline = time.monotonic() + exchange.timeout_s
        identity.enter(identity.CallContext(exchange.request_id, deadline=deadline))
        if bound.reader is None:
            answer = await bound.route.handle(exchange, None)
        else:
            answer = await self._answer_body(exchange, bound.route, bound.reader)
        if answer is not None:
            await exchange.answer_struct(200, answer)

    async def _answer_body(self, exchange: Exchange, route: Route, reader: BodyReader[Any]) -> Any:
        """Reads the body and lets the endpoint answer, unless too many requests are at it already."""
        _check_type(exchange)
        if self._active_count == self._limits.active_requests_max:
            raise Fault(503, "Too many requests are in flight.", code="overloaded", headers=((b"retry-after", b"1"),))
        self._active_count += 1
        try:
            raw = await exchange.body(self._limits.body_bytes_max, self._body_timeout_s(exchange))
            return await route.handle(exchange, reader.read(raw))
        finally:
            self._active_count -= 1

    def _timeout_s(self, exchange: Exchange) -> float:
        """The time that the request may take; `X-Request-Timeout-Ms` sets it within bounds."""
        given = exchange.headers.get(_TIMEOUT)
        if given is None:
            return self._limits.timeout_s
        limit_ms = int(self._limits.timeout_s_max * 1000)
        if not given.isdigit() or len(given) > 9 or not 1 <= int(given) <= limit_ms:
            raise Fault.invalid(f"Expected 1 to {limit_ms} milliseconds.", "X-Request-Timeout-Ms")
        return int(given) / 1000

    def _body_timeout_s(self, exchange: Exchange) -> float:
        """The time for the body: that of the request where it names one."""
        return exchange.timeout_s if _TIMEOUT in exchange.headers else self._limits.body_timeout_s

    def _allow_origin(self, exchange: Exchange) -> bool:
        """Lets the page of an allowed origin read the answer."""
        origin = exchange.headers.get(b"origin")
        if origin is None or not self._origins:
            return False
        exchange.set_header(b"vary", b"origin")
        if origin not in self._origins and b"*" not in self._origins:
            return False
        exchange.set_header(b"access-control-allow-origin", origin)
        exchange.set_header(b"access-control-expose-headers", _EXPOSED)
        return True

    async def _answer_options(self, exchange: Exchange) -> None:
        """Answers what a path allows, for a page of an allowed origin as a CORS preflight."""
        methods = self._router.methods(exchange)
        exchange.route = next(iter(methods.values())).template
        exchange.set_header(b"allow", allow(methods))
        if self._allow_origin(exchange) and b"access-control-request-method" in exchange.headers:
            exchange.set_header(b"access-control-allow-methods", allow(methods))
            exchange.set_header(b"access-control-max-age", _PREFLIGHT_SECONDS)
            if asked := exchange.headers.get(b"access-control-request-headers"):
                exchange.set_header(b"access-control-allow-headers", asked)
        await exchange.answer_empty(204)


def _check_type(exchange: Exchange) -> None:
    """A body is JSON as it is; one that says nothing about itself is taken for it."""
    packed = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if packed not in (b"", b"identity"):
        raise Fault(415, "Send the body as it is, without Content-Encoding.", code="unsupported_media_type")
    given = exchange.headers.get(b"content-type")
    if given is not None and not _JSON_TYPE.match(given):
        raise Fault(415, "Send the body as application/json.", code="unsupported_media_type")
