"""What is seen of each exchange: its server span and its figures.

The span continues the caller's trace, lasts until the last byte of a stream and says how the request really ended. No
content, key or identity is ever in a span or a label; labels have bounded values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from kit import names
from kit.telemetry import Telemetry
from services.edge.exchange import Exchange
from services.edge.metrics import Metrics
from services.edge.traces.noting import TraceNotes

_TRACE_HEADERS = {name.encode(): name for name in ("traceparent", "tracestate", "baggage")}
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

    @contextmanager
    def observe(self, exchange: Exchange) -> Iterator[None]:
        """Surrounds one exchange."""
        method = exchange.method if exchange.method in _METHODS else "_OTHER"
        self._metrics.begin()
        try:
            with self._span(exchange, method):
                yield
        finally:
            self._metrics.end(exchange, method)

    @contextmanager
    def _span(self, exchange: Exchange, method: str) -> Iterator[None]:
        """Continues the caller's trace; where nothing records, its context still travels on."""
        given = exchange.headers
        carrier = {name: given[key].decode("latin-1") for key, name in _TRACE_HEADERS.items() if key in given}
        if not carrier and not self._telemetry.recording:
            yield
            return
        # The span's name gets its route once that is known.
        span, held = self._telemetry.served(method, carrier)
        if self._notes is not None and method == "POST":
            self._notes.begin(exchange, span, is_joined="traceparent" in carrier)
        token = otel_context.attach(held)
        try:
            yield
        finally:
            if span.is_recording():
                _describe(span, exchange, method)
            otel_context.detach(token)
            span.end()


def _describe(span: trace.Span, exchange: Exchange, method: str) -> None:
    """Says how the exchange ended."""
    if exchange.route:
        span.update_name(f"{method} {exchange.route}")
        span.set_attribute(names.HTTP_ROUTE, exchange.route)
        # The template: what callers write into a path can be anything, a key that they meant for a header included.
        span.set_attribute(names.URL_PATH, exchange.route)
    span.set_attribute(names.HTTP_REQUEST_METHOD, method)
    span.set_attribute(names.URL_SCHEME, exchange.scheme)
    span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, exchange.status)
    span.set_attribute(names.REQUEST_ID, exchange.request_id)
    if exchange.disconnected:
        span.set_attribute(names.CANCELLED_BY, "client")
        span.set_attribute(names.ERROR_TYPE, "client_disconnected")
    elif exchange.error:
        span.set_attribute(names.ERROR_TYPE, exchange.error)
    # Semantic conventions: a server's span is an error for its own failures, not for its caller's.
    if exchange.failed:
        span.set_status(Status(StatusCode.ERROR))
