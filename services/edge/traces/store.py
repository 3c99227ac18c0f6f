"""The traces of recent requests, in memory: bounded in bytes and in requests, the eldest go first.

It is for a machine where everything runs side by side, so taking spans must cost next to nothing: what services export
is kept as it came, and a trace is looked for in it when somebody asks. 16 MiB are searched in about 5 ms. A request is
known by its id from the moment the edge takes it; one that did not come by the edge is found by the id in its spans.
It holds what spans hold: never content.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from kit import names

BYTES_MAX: Final = 16 * 1024 * 1024
REQUEST_COUNT_MAX: Final = 1_000
SPAN_COUNT_MAX: Final = 512  # of one trace
# A trace is complete when its root has ended, no parent is missing and nothing came for so long: services export every
# 200 ms, and the cache keeps an answer after it has left.
QUIET_S: Final = 0.5
# The same while a service has many spans to export, which it then does every two seconds (`kit.otlp`): it has sent more
# than so much at once since.
BUSY_QUIET_S: Final = 2.5
BUSY_BYTES: Final = 3 * 1024  # some sixteen spans
# How long a trace whose spans are still missing is waited for once nothing comes: a service may have died.
MISSING_S: Final = 3.0


class StoredSpan(NamedTuple):
    """A span, and the service whose it is."""

    service: str
    span: trace_pb2.Span


class Root(NamedTuple):
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


class Request(NamedTuple):
    """A request whose trace can be looked for.

    Attributes:
        trace_id: Of the whole trace.
        owner: What stands for the caller's credential; empty where the edge has not seen the request itself.
        root: The edge's own span; None likewise.
    """

    trace_id: bytes
    owner: bytes
    root: Root | None


@dataclass(slots=True)
class Trace:
    """What has been found of a request so far.

    Attributes:
        request: Whose it is.
        spans: By id, in the order in which they came.
        changed_at: When the last one came, on the store's clock.
    """

    request: Request
    spans: dict[bytes, StoredSpan] = field(default_factory=dict)
    changed_at: float = 0.0

    @property
    def open_root(self) -> Root | None:
        """The edge's own span while it has not ended."""
        root = self.request.root
        return root if root is not None and root.span_id not in self.spans else None

    def own(self, others: frozenset[bytes] = frozenset()) -> list[StoredSpan]:
        """The spans that belong to the request: all of the trace, unless other requests may be in it.

        Args:
            others: Roots of other requests of the same trace: whoever knows its id can join it.
        """
        root = self.request.root
        if root is None or not (root.is_joined or others):
            return list(self.spans.values())
        return _below(root.span_id, self.spans, others)

    def is_complete(self, now: float, others: frozenset[bytes] = frozenset(), quiet_s_min: float = QUIET_S) -> bool:
        """Whether no more is to be expected."""
        quiet_s, root = now - self.changed_at, self.request.root
        if quiet_s < quiet_s_min or not self.spans or self.open_root is not None:
            return False
        parents = [one.span.parent_span_id for one in self.own(others)]
        outside = 1 if root is None or root.is_joined else 0  # the caller's own span is never here
        missing = sum(bool(parent) and parent not in self.spans for parent in parents)
        return missing <= outside or quiet_s >= MISSING_S


class TraceStore:
    """Keeps what services export, and finds traces in it.

    Args:
        clock: Instants in seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._requests: OrderedDict[str, Request] = OrderedDict()
        self._exports: deque[tuple[float, bytes]] = deque()  # by the time at which they came
        self._size_bytes = 0
        self._busy_until = -math.inf
        self._count = 0  # of exports so far, those that are gone included
        self._changed = asyncio.Event()

    def begin(self, request_id: str, request: Request) -> None:
        """Takes note of a request that the edge begins to serve."""
        self._requests[request_id] = request
        self._requests.move_to_end(request_id)
        if len(self._requests) > REQUEST_COUNT_MAX:
            self._requests.popitem(last=False)

    def take(self, export: bytes) -> None:
        """Takes an encoded ExportTraceServiceRequest, unread."""
        now = self._clock()
        self._exports.append((now, export))
        if len(export) > BUSY_BYTES:
            self._busy_until = now + BUSY_QUIET_S
        self._count += 1
        self._size_bytes += len(export)
        while self._size_bytes > BYTES_MAX:
            self._size_bytes -= len(self._exports.popleft()[1])
        # Each change has an event of its own, so that none is missed while a span is being told.
        self._changed.set()
        self._changed = asyncio.Event()

    def find(self, request_id: str, *, thoroughly: bool = True) -> Request | None:
        """Returns a request; None where none of this id is known, any more or at all.

        Args:
            request_id: Its id.
            thoroughly: Whether it is looked for among those that did not come by the edge, too.
        """
        return self._requests.get(request_id) or (self._learn(request_id) if thoroughly else None)

    def trace(self, request: Request) -> Trace:
        """Returns what has come of a request's trace."""
        trace = Trace(request)
        self._read(trace, 0)
        return trace

    def own(self, trace: Trace) -> list[StoredSpan]:
        """Returns the spans of a trace that belong to its request."""
        return trace.own(self._others(trace.request))

    def is_complete(self, trace: Trace) -> bool:
        """Whether no more is to be expected."""
        now = self._clock()
        quiet_s_min = BUSY_QUIET_S if now < self._busy_until else QUIET_S
        return trace.is_complete(now, self._others(trace.request), quiet_s_min)

    def _others(self, request: Request) -> frozenset[bytes]:
        """Roots of other requests that are in the same trace."""
        roots = {one.root.span_id for one in self._requests.values() if one.root and one.trace_id == request.trace_id}
        return frozenset(roots - {request.root.span_id if request.root else b""})

    async def follow(self, request: Request) -> AsyncGenerator[StoredSpan, None]:
        """Yields the spans of a request, those that are there and then each as it comes, until it is complete."""
        trace, told, read = Trace(request), set[bytes](), 0
        while True:
            changed = self._changed
            read = self._read(trace, read)
            for stored in self.own(trace):
                if stored.span.span_id not in told:
                    told.add(stored.span.span_id)
                    yield stored
            if self.is_complete(trace):
                return
            try:
                async with asyncio.timeout(QUIET_S):
                    await changed.wait()
            except TimeoutError:
                continue

    def _read(self, trace: Trace, since: int) -> int:
        """Adds to a trace what came after so many exports; returns how many there are now."""
        trace_id = trace.request.trace_id
        first = self._count - len(self._exports)
        for number, (at, export) in enumerate(self._exports, first):
            if number < since or trace_id not in export:
                continue
            for stored in _spans(export):
                span = stored.span
                if span.trace_id == trace_id and len(trace.spans) < SPAN_COUNT_MAX:
                    trace.spans[span.span_id] = stored
                    trace.changed_at = at
        return self._count

    def _learn(self, request_id: str) -> Request | None:
        """Finds a request that did not come by the edge, by the id in a server's span."""
        wanted = request_id.encode()
        for _, export in reversed(self._exports):
            if wanted in export:
                for stored in _spans(export):
                    if _request_id(stored.span) == request_id:
                        return Request(stored.span.trace_id, b"", None)
        return None


def _spans(export: bytes) -> Iterator[StoredSpan]:
    """The spans of an export; none where it is no export."""
    try:
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(export)
    except DecodeError:
        return
    for group in request.resource_spans:
        service = next((one.value.string_value for one in group.resource.attributes if one.key == "service.name"), "")
        for scope in group.scope_spans:
            for span in scope.spans:
                yield StoredSpan(service.removeprefix("millrace-") or "unknown", span)


def _request_id(span: trace_pb2.Span) -> str:
    return next((one.value.string_value for one in span.attributes if one.key == names.REQUEST_ID), "")


def _below(root_id: bytes, spans: dict[bytes, StoredSpan], others: frozenset[bytes]) -> list[StoredSpan]:
    """The spans of a trace that lie below one of them, itself included, and not below any of the others."""
    known = {**dict.fromkeys(others, False), root_id: True}

    def lies_below(span_id: bytes) -> bool:
        path: list[bytes] = []
        while span_id not in known and span_id in spans and span_id not in path:
            path.append(span_id)
            span_id = spans[span_id].span.parent_span_id
        verdict = known.get(span_id, False)
        known.update(dict.fromkeys(path, verdict))
        return verdict

    return [stored for span_id, stored in spans.items() if lies_below(span_id)]
