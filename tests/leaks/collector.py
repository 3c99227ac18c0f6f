"""The collector of a whole run: takes traces, metrics and logs of every process by OTLP, and keeps their texts.

A program of its own, so that the tests' process does not pay for it: `python -m tests.leaks.collector FOLDER` prints
its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tests.leaks.recorder import Recorder


def note(recorder: Recorder, request: Any) -> None:
    """Notes the texts of one export, of whichever kind."""
    for group in getattr(request, "resource_spans", ()):
        for span in (span for scope in group.scope_spans for span in scope.spans):
            _span(recorder, span)
    for group in getattr(request, "resource_logs", ()):
        for record in (record for scope in group.scope_logs for record in scope.log_records):
            _attributes(recorder, record.attributes, "field {} of an exported log")
            recorder.saw("exported log", record.body.string_value)
    for group in getattr(request, "resource_metrics", ()):
        for metric in (metric for scope in group.scope_metrics for metric in scope.metrics):
            for point in getattr(metric, metric.WhichOneof("data") or "gauge").data_points:
                _attributes(recorder, point.attributes, f"label {{}} of exported metric {metric.name}")
                for example in point.exemplars:
                    _attributes(recorder, example.filtered_attributes, f"example {{}} of exported metric {metric.name}")


def _span(recorder: Recorder, span: Any) -> None:
    recorder.saw("exported span's name", span.name)
    recorder.saw(f"status of exported span {span.name}", span.status.message)
    _attributes(recorder, span.attributes, f"attribute {{}} of exported span {span.name}")
    for event in span.events:
        recorder.saw("exported span's event", event.name)
        _attributes(recorder, event.attributes, f"attribute {{}} of event {event.name}")


def _attributes(recorder: Recorder, attributes: Iterable[KeyValue], where: str) -> None:
    for one in attributes:
        values = one.value.array_value.values if one.value.HasField("array_value") else (one.value,)
        for value in values:
            recorder.saw(where.format(one.key), value.string_value)


class _Servicer:
    """The one method that OTLP's services have."""

    def __init__(self, take: Callable[[Any], None], answer: Callable[[], Any]) -> None:
        self._take, self._answer = take, answer

    async def Export(self, request: Any, context: Any) -> Any:
        self._take(request)
        return self._answer()


async def serve(recorder: Recorder) -> None:
    """Prints the port and serves until standard input ends."""

    def take(request: Any) -> None:
        note(recorder, request)

    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Servicer(take, ExportTraceServiceResponse), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Servicer(take, ExportMetricsServiceResponse), server)
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Servicer(take, ExportLogsServiceResponse), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(1)


if __name__ == "__main__":
    asyncio.run(serve(Recorder(Path(sys.argv[1]), "collector")))
