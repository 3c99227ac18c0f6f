"""GET /v1/traces/{request_id} and its events: the waterfall of one request.

Only whoever made the request may see it, which is whoever shows the same credential, and administrators; where callers
need none, anybody. Others are told what is told of a request that nobody made.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Literal

import msgspec
from opentelemetry.proto.common.v1 import common_pb2

from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import InferenceClient, attended
from services.edge.traces.owners import Owners
from services.edge.traces.store import Request, Root, StoredSpan, TraceStore

# Who sees every trace: `anonymous` is a caller's role only where none has to say who it is.
_SEES_ALL = frozenset({"admin", "anonymous"})
_STATUS: tuple[Literal["unset", "ok", "error"], ...] = ("unset", "ok", "error")
_encode = msgspec.json.Encoder().encode


class Span(msgspec.Struct):
    """A span; instants in milliseconds since the epoch. One that is still open has no duration."""

    span_id: str
    parent_span_id: str | None
    name: str
    service: str
    start_ms: float
    duration_ms: float | None
    status: Literal["unset", "ok", "error"]
    attributes: dict[str, str | bool | int | float | list[Any]]


class Trace(msgspec.Struct):
    """The spans of one request, in the order in which they ended; `complete` says that no more are to come."""

    request_id: str
    trace_id: str
    complete: bool
    spans: list[Span]


class TraceEnd(msgspec.Struct):
    """Data of the event `end`: no more is to come."""

    request_id: str
    trace_id: str


class TraceEndpoints:
    """Shows traces.

    Args:
        store: Has them; None where this edge keeps none.
        owners: Tell whose they are.
        inference: Says who asks, where it is not the owner.
        heartbeat_s: Longest silence of a stream.
    """

    def __init__(
        self, store: TraceStore | None, owners: Owners, inference: InferenceClient, heartbeat_s: float
    ) -> None:
        self._store, self._owners, self._inference, self._heartbeat_s = store, owners, inference, heartbeat_s

    async def trace(self, exchange: Exchange, _: None) -> Trace:
        """GET /v1/traces/{request_id}."""
        store, request = await self._find(exchange)
        trace = store.trace(request)
        spans = [_shown(stored) for stored in store.own(trace)]
        if trace.open_root is not None:
            spans.append(_open(trace.open_root))
        return Trace(exchange.params["request_id"], request.trace_id.hex(), store.is_complete(trace), spans)

    async def events(self, exchange: Exchange, _: None) -> None:
        """GET /v1/traces/{request_id}/events: `span` for each as it comes, then `end`; 204 where none are kept."""
        if self._store is None:  # no error: pages ask this for every answer, and browsers log each failed request
            await exchange.answer_empty(204)
            return
        store, request = await self._find(exchange)
        exchange.expect_stream(lambda fault: b"event: error\ndata: " + fault.body() + b"\n\n")
        async with attended(exchange, self._heartbeat_s):
            await exchange.start_stream()
            if (root := store.trace(request).open_root) is not None:
                await exchange.write(_event(b"span", _open(root)))
            async with aclosing(store.follow(request)) as spans:
                async for stored in spans:
                    await exchange.write(_event(b"span", _shown(stored)))
            end = TraceEnd(exchange.params["request_id"], request.trace_id.hex())
            await exchange.end_stream(_event(b"end", end))

    async def _find(self, exchange: Exchange) -> tuple[TraceStore, Request]:
        """The request that is asked for; looked for only once it is known who asks.

        Raises:
            Fault: 401 where the credential is not good (any more), 404 where it is not known, or not the caller's.
        """
        if self._store is None:
            message = "No spans are kept here: `millrace up` keeps them, or set MILLRACE_EDGE_SPAN_STORE_PORT."
            raise Fault(404, message, code="trace_not_found")
        sees_all = (await self._inference.caller(exchange)).role in _SEES_ALL
        request = self._store.find(exchange.params["request_id"], thoroughly=sees_all)
        owner = self._owners.of(exchange)
        if request is not None and (sees_all or (owner and owner == request.owner)):
            return self._store, request
        message = "No such request of yours is known, or not any more."
        raise Fault(404, message, param="request_id", code="trace_not_found")


def _event(kind: bytes, data: Span | TraceEnd) -> bytes:
    return b"event: " + kind + b"\ndata: " + _encode(data) + b"\n\n"


def _open(root: Root) -> Span:
    return Span(root.span_id.hex(), None, root.name, "edge", root.start_ns / 1e6, None, "unset", {})


def _shown(stored: StoredSpan) -> Span:
    span = stored.span
    return Span(
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex() or None,
        name=span.name,
        service=stored.service,
        start_ms=span.start_time_unix_nano / 1e6,
        duration_ms=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
        status=_STATUS[span.status.code],
        attributes={one.key: _value(one.value) for one in span.attributes},
    )


def _value(value: common_pb2.AnyValue) -> Any:
    if value.HasField("array_value"):
        return [_value(one) for one in value.array_value.values]
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else ""
