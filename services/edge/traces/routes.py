"""The routes of traces."""

from __future__ import annotations

from services.edge.routes import Route
from services.edge.traces import endpoints
from services.edge.traces.endpoints import TraceEndpoints


def trace_routes(ends: TraceEndpoints) -> list[Route]:
    """Traces."""
    one = "/v1/traces/{request_id}"
    return [
        Route("GET", one, ends.trace, "The spans of one of your requests.", "Operations", answer=endpoints.Trace),
        Route("GET", f"{one}/events", ends.events, "The same, as they come.", "Operations",
              events=(endpoints.Span, endpoints.TraceEnd), empty="No spans are kept here."),
    ]  # fmt: skip
