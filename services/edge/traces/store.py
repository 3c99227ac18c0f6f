"""The traces of recent requests, in memory: bounded in requests, in spans of each and in bytes; the eldest go first.

It is for a machine where everything runs side by side. A trace is known by the request's id from the moment the edge
takes the request, and its spans come in as they end, from every service. It holds what spans hold: never content.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.proto.trace.v1 import trace_pb2

from kit import names

TRACE_COUNT_MAX: Final = 1_000
SPAN_COUNT_MAX: Final = 512  # of one trace
BYTES_MAX: Final = 32 * 1024 * 1024
# A trace is complete when its root has ended, no parent is missing and nothing came for so long: services export every
# 100 ms, and the cache keeps an answer after it has left.
QUIET_S: Final = 0.5
# How long after its root's end a trace whose spans are still missing is waited for: a service may have died.
MISSING_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """A span as it came: its ids, and the rest as OTLP's bytes."""

    service: str
    span_id: bytes
    parent_id: bytes
    data: bytes

    def read(self) -> trace_pb2.Span:
        """The span itself."""
        return trace_pb2.Span.FromString(self.data)


@dataclass(frozen=True, slots=True)
class Root:
    """The edge's own span of a request, from its beginning.

    Attributes:
        span_id: Its id.
        name: What it is called until its end.
        start_ns: In nanoseconds since the epoch.
        is_joined: Whether it goes on with a caller's trace, which may hold other requests as well.
    """

    span_id: bytes
    name: str
    start_ns: int
    is_joined: bool


@dataclass(slots=True)
class Trace:
    """The spans of one trace so far.

    Attributes:
        trace_id: Its id.
        spans: By id, in the order in which they came.
        changed_at: When the last one came, on the store's clock.
        size_bytes: Of all spans.
    """

    trace_id: bytes
    spans: dict[bytes, StoredSpan] = field(default_factory=dict)
    changed_at: float = 0.0
    size_bytes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Request:
    """A request and the trace that it is part of.

    Attributes:
        trace: The whole trace.
        owner: What stands for the caller's credential; empty where the edge has not seen the request itself.
        root: The edge's own span; None likewise.
    """

    trace: Trace
    owner: bytes
    root: Root | None

    def spans(self) -> list[StoredSpan]:
        """The spans that belong to this request: all of the trace, unless the trace came from a caller."""
        if self.root is None or not self.root.is_joined:
            return list(self.trace.spans.values())
        return _below(self.root.span_id, self.trace.spans)

    def is_complete(self, now: float) -> bool:
        """Whether no more is to be expected."""
        quiet_s = now - self.trace.changed_at
        if quiet_s < QUIET_S or (self.root is not None and self.root.span_id not in self.trace.spans):
            return False
        spans = self.trace.spans
        tops = 1 if self.root is None or self.root.is_joined else 0
        missing = sum(bool(one.parent_id) and one.parent_id not in spans for one in self.spans())
        return missing <= tops or quiet_s >= MISSING_S


class TraceStore:
    """Keeps the traces of recent requests.

    Args:
        clock: Instants in seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._traces: OrderedDict[bytes, Trace] = OrderedDict()
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._size_bytes = 0

    def begin(self, request_id: str, trace_id: bytes, owner: bytes, root: Root) -> None:
        """Takes note of a request that the edge begins to serve."""
        self._know(request_id, Request(self._trace(trace_id), owner, root))

    def add(self, service: str, span: trace_pb2.Span) -> None:
        """Takes a span that has ended."""
        trace, span_id, data = self._trace(span.trace_id), span.span_id, span.SerializeToString()
        if len(trace.spans) >= SPAN_COUNT_MAX or span_id in trace.spans:
            return
        trace.spans[span_id] = StoredSpan(service, span_id, span.parent_span_id, data)
        trace.size_bytes += len(data)
        self._size_bytes += len(data)
        trace.changed_at = self._clock()
        # Each change has an event of its own, so that none is missed while a span is being told.
        trace.changed.set()
        trace.changed = asyncio.Event()
        if span.kind == trace_pb2.Span.SPAN_KIND_SERVER:
            self._learn(trace, span)
        while self._size_bytes > BYTES_MAX:
            self._forget_eldest()

    def find(self, request_id: str) -> Request | None:
        """Returns what is known of a request; None where nothing is, any more or at all."""
        request = self._requests.get(request_id)
        return request if request is not None and request.trace.trace_id in self._traces else None

    def is_complete(self, request: Request) -> bool:
        """Whether no more is to be expected of a request."""
        return request.is_complete(self._clock())

    async def follow(self, request: Request) -> AsyncGenerator[StoredSpan, None]:
        """Yields the spans of a request, those that are there and then each as it comes, until it is complete."""
        told: set[bytes] = set()
        while True:
            changed = request.trace.changed
            for span in request.spans():
                if span.span_id not in told:
                    told.add(span.span_id)
                    yield span
            if self.is_complete(request):
                return
            try:
                async with asyncio.timeout(QUIET_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def _learn(self, trace: Trace, span: trace_pb2.Span) -> None:
        """Takes the request's id from a span, where the request did not come by the edge."""
        for attribute in span.attributes:
            if attribute.key == names.REQUEST_ID:
                request_id = attribute.value.string_value
                if request_id not in self._requests:
                    self._know(request_id, Request(trace, b"", None))
                return

    def _know(self, request_id: str, request: Request) -> None:
        self._requests[request_id] = request
        self._requests.move_to_end(request_id)
        if len(self._requests) > TRACE_COUNT_MAX:
            self._requests.popitem(last=False)

    def _trace(self, trace_id: bytes) -> Trace:
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = Trace(trace_id, changed_at=self._clock())
            if len(self._traces) > TRACE_COUNT_MAX:
                self._forget_eldest()
        return trace

    def _forget_eldest(self) -> None:
        _, eldest = self._traces.popitem(last=False)
        self._size_bytes -= eldest.size_bytes


def _below(root_id: bytes, spans: dict[bytes, StoredSpan]) -> list[StoredSpan]:
    """The spans of a trace that lie below one of them, itself included."""
    known = {root_id: True}

    def lies_below(span_id: bytes) -> bool:
        path: list[bytes] = []
        while span_id not in known and span_id in spans and span_id not in path:
            path.append(span_id)
            span_id = spans[span_id].parent_id
        verdict = known.get(span_id, False)
        known.update(dict.fromkeys(path, verdict))
        return verdict

    return [span for span_id, span in spans.items() if lies_below(span_id)]
