"""What is seen of each exchange: its server span and its figures.

The span continues the caller's trace, lasts until the last byte of a stream and says how the request really ended. No
content, key or identity is ever in a span or a label; labels have bounded values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import StatusCode

from kit import names
from kit.spans import Constants, Span
from kit.telemetry import Telemetry
from services.edge.exchange import Exchange
from services.edge.metrics import Metrics
from services.edge.traces.noting import TraceNotes

_TRACE_HEADERS = tuple((name.encode(), name) for name in ("traceparent", "tracestate", "baggage"))
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))


class Observer:
    """Surrounds exchanges with spans and counts them.

    Args:
        telemetry: Makes the spans.
        metrics: Counts.
        notes: Says which request a trace is of, where traces are kept here.
    """

    def __init__(self, telemetry: Telemetry, metrics: Metrics, notes: TraceNotes | None = None) -> None:
        self._telemetry = telemetry
        self._metrics = metrics
        self._notes = notes
        self._known: dict[tuple[str, str, str, int], tuple[str, Constants]] = {}

    @contextmanager
    def observe(self, exchange: Exchange) -> Iterator[None]:
        """Surrounds one exchange; continues its caller's trace, which travels on even where nothing is recorded."""
        method = exchange.method if exchange.method in _METHODS else "_OTHER"
        self._metrics.begin()
        given = exchange.headers
        told = {name: given[key].decode("latin-1") for key, name in _TRACE_HEADERS if key in given}
        # The span's name gets its route once that is known.
        span = self._telemetry.served(method, told)
        if span is not None and self._notes is not None and method == "POST":
            self._notes.begin(exchange, span, is_joined="traceparent" in told)
        try:
            yield
        finally:
            if span is not None:
                self._describe(span, exchange, method)
                span.end()
            self._metrics.end(exchange, method)

    def _describe(self, span: Span, exchange: Exchange, method: str) -> None:
        """Says how the exchange ended."""
        key = (method, exchange.route, exchange.scheme, exchange.status)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _constants(*key)
        span.name, span.constants = known
        span.attributes[names.REQUEST_ID] = exchange.request_id
        if exchange.disconnected:
            span.set_attribute(names.CANCELLED_BY, "client")
            span.set_attribute(names.ERROR_TYPE, "client_disconnected")
        elif exchange.error:
            span.set_attribute(names.ERROR_TYPE, exchange.error)
        # Semantic conventions: a server's span is an error for its own failures, not for its caller's.
        if exchange.failed:
            span.set_status(StatusCode.ERROR)


def _constants(method: str, route: str, scheme: str, status: int) -> tuple[str, Constants]:
    """Name and attributes that exchanges share which ended alike: all of them bounded."""
    values: dict[str, str | int] = {
        names.HTTP_REQUEST_METHOD: method,
        names.URL_SCHEME: scheme,
        names.HTTP_RESPONSE_STATUS_CODE: status,
    }
    if route:
        # The template: what callers write into a path can be anything, a key that they meant for a header included.
        values |= {names.HTTP_ROUTE: route, names.URL_PATH: route}
    return (f"{method} {route}" if route else method), Constants(values)
