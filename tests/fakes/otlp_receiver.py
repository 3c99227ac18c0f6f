"""An OTLP/gRPC collector that keeps what it gets: the standard TraceService on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

DEADLINE_S = 20.0  # batches leave the exporters every five seconds


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived, with the service that sent it."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    is_error: bool
    attributes: dict[str, Any]

    @property
    def label(self) -> str:
        """SERVICE NAME, without the prefix that all services share."""
        return f"{self.service.removeprefix('millrace-')} {self.name}"


class OtlpReceiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span; a test waits for those that it expects."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.exports: list[bytes] = []  # as they came, with whatever else they hold
        self.logs: list[Any] = []  # opentelemetry.proto.logs.v1.LogRecord
        self.metrics: dict[str, Any] = {}  # the newest opentelemetry.proto.metrics.v1.Metric of each name
        self.endpoint = ""
        self._arrived = asyncio.Event()
        self._server = grpc.aio.server()

    async def start(self) -> None:
        """Listens on a free port."""
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self._server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Taking(self._take_logs), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Taking(self._take_metrics), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        """Stops listening."""
        await self._server.stop(0)

    async def Export(self, request: Any, context: Any) -> Any:
        """Keeps what came."""
        self.keep(request)
        for resource_spans in request.resource_spans:
            service = next(a.value.string_value for a in resource_spans.resource.attributes if a.key == "service.name")
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_span(service, span) for span in scope_spans.spans]
        self._arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    def keep(self, request: Any) -> None:
        """Keeps an export as it came, of whichever kind."""
        self.exports.append(request.SerializeToString())

    async def _take_logs(self, request: Any) -> Any:
        self.keep(request)
        for group in request.resource_logs:
            for scope in group.scope_logs:
                self.logs += scope.log_records
        self._arrived.set()
        return logs_service_pb2.ExportLogsServiceResponse()

    async def _take_metrics(self, request: Any) -> Any:
        self.keep(request)
        for group in request.resource_metrics:
            for scope in group.scope_metrics:
                self.metrics |= {metric.name: metric for metric in scope.metrics if _point_count(metric)}
        self._arrived.set()
        return metrics_service_pb2.ExportMetricsServiceResponse()

    async def until(self, wanted: Callable[[], object]) -> None:
        """Returns once something holds; fails when it does not in time."""
        async with asyncio.timeout(DEADLINE_S):
            while not wanted():
                self._arrived.clear()
                await self._arrived.wait()

    async def trace(self, trace_id: str, root: str, *needed: str) -> list[ReceivedSpan]:
        """The spans of a trace, once those that are needed are there and every parent is; fails with what there was.

        Args:
            trace_id: The trace.
            root: The span id that the caller sent: nobody exports that span.
            needed: Spans as `SERVICE NAME`.
        """
        try:
            async with asyncio.timeout(DEADLINE_S):
                while not _is_whole(found := [one for one in self.spans if one.trace_id == trace_id], root, needed):
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"the trace stayed incomplete: {found}") from None
        return found


class _Taking:
    """A servicer with the one method that OTLP's services have."""

    def __init__(self, take: Callable[[Any], Awaitable[Any]]) -> None:
        self._take = take

    async def Export(self, request: Any, context: Any) -> Any:
        return await self._take(request)


def _point_count(metric: Any) -> int:
    return len(getattr(metric, metric.WhichOneof("data")).data_points)


def _is_whole(found: Sequence[ReceivedSpan], root: str, needed: Sequence[str]) -> bool:
    ids = {one.span_id for one in found} | {root}
    return {one.label for one in found} >= set(needed) and all(one.parent_id in ids for one in found)


def _span(service: str, span: Any) -> ReceivedSpan:
    attributes = {one.key: _value(one.value) for one in span.attributes}
    return ReceivedSpan(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.status.code == 2,
        attributes,
    )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
