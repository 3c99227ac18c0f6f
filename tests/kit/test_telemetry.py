from __future__ import annotations

import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import grpc
import pytest
from opentelemetry import baggage, trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from bench.ports import free_port
from kit import telemetry
from kit.config import ConfigError, ServeSettings
from kit.spans import Span

PARENT = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "plan=gold",
}


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.resources: list[object] = []

    def Export(self, request, context):
        """Keeps what comes."""
        self.resources.extend(request.resource_spans)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_trace_context_goes_out_as_it_came_in() -> None:
    """Headers to context to headers, baggage and vendor state included."""
    context = telemetry.extract(PARENT)

    assert trace.get_current_span(context).get_span_context().is_remote
    assert baggage.get_baggage("plan", context) == "gold"
    assert dict(telemetry.inject(context)) == PARENT


def test_what_came_beside_the_ids_goes_on_where_spans_are_made(sink) -> None:
    """The next service gets the caller's state and baggage, and a span of ours as its parent."""

    def told() -> tuple[dict[str, str], Span | None]:
        made = telemetry.setup("echo", ServeSettings(), exporter=sink)
        served = made.served("a.B/C", PARENT)
        return dict(telemetry.inject()), served

    headers, served = copy_context().run(told)
    assert served is not None
    assert (served.trace_hex, served.parent_hex) == tuple(PARENT["traceparent"].split("-")[1:3])
    assert headers == {**PARENT, "traceparent": served.traceparent}


def test_what_one_caller_told_is_not_told_of_the_next() -> None:
    """Without spans, too: a caller that says nothing inherits nothing from the call before it in the same context."""

    def told() -> list[dict[str, str]]:
        made = telemetry.off()
        return [(made.served("a.B/C", headers), dict(telemetry.inject()))[1] for headers in (PARENT, {})]

    first, second = copy_context().run(told)
    trace_hex = PARENT["traceparent"].split("-")[1]
    assert first["baggage"] == PARENT["baggage"]
    assert trace_hex in first["traceparent"]
    # A run that looks for leaks records spans even so: then the second is a trace of its own.
    assert not {"baggage", "tracestate"} & second.keys()
    assert trace_hex not in second.get("traceparent", "")


@pytest.mark.parametrize("bad", ["", "nonsense", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", "x" * 10_000])
def test_a_trace_context_that_is_none_is_ignored(bad: str) -> None:
    """A caller's broken header starts a new trace and breaks no call."""
    assert dict(telemetry.inject(telemetry.extract({"traceparent": bad}))) == {}


def test_without_an_exporter_nothing_is_recorded() -> None:
    """The tracer is there, so nobody needs to ask; what it makes records nothing."""
    made = telemetry.setup("echo", ServeSettings())
    with made.tracer.start_as_current_span("work") as span:
        assert not span.is_recording()

    assert not made.recording
    assert made.calls is None
    made.shutdown()


def test_spans_arrive_at_the_collector() -> None:
    """What ended before the shutdown is exported by it, under the name of the service."""
    collector, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    made = telemetry.setup("millrace-echo", ServeSettings(otlp_endpoint=f"http://127.0.0.1:{port}"))
    made.tracer.start_span("work").end()
    made.shutdown()
    server.stop(None).wait()

    (resource,) = collector.resources
    attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
    assert attributes["service.name"] == "millrace-echo"
    assert attributes["service.instance.id"]
    assert [span.name for scope in resource.scope_spans for span in scope.spans] == ["work"]


def test_a_collector_that_is_not_there_does_not_hold_up_the_end() -> None:
    """Traces are lost rather than a drain delayed."""
    made = telemetry.setup("echo", ServeSettings(otlp_endpoint="http://127.0.0.1:1"))
    made.tracer.start_span("work").end()
    started = time.perf_counter()
    made.shutdown()

    assert time.perf_counter() - started < 5


def test_a_span_that_cannot_be_encoded_is_dropped_and_counted() -> None:
    """An attribute that OTLP has no type for costs its span, and never whoever recorded it."""
    made = telemetry.setup("echo", ServeSettings(otlp_endpoint="http://127.0.0.1:1"))
    with made.tracer.start_as_current_span("work", attributes={"odd": object()}):
        pass
    made.shutdown()

    assert made.registry.get_sample_value("millrace_telemetry_dropped_total", {"signal": "spans"}) == 1


@pytest.mark.parametrize(("ratio", "sampled"), [(0.0, False), (1.0, True)])
def test_new_traces_are_sampled_as_configured(sink, ratio: float, sampled: bool) -> None:
    """The ratio decides for traces that start here; a caller's decision is kept either way."""
    made = telemetry.setup("echo", ServeSettings(trace_sample_ratio=ratio), exporter=sink)
    made.tracer.start_span("new").end()
    made.tracer.start_span("continued", telemetry.extract(PARENT)).end()
    unsampled = {"traceparent": PARENT["traceparent"][:-1] + "0"}
    made.tracer.start_span("unsampled", telemetry.extract(unsampled)).end()

    assert [span.name for span in sink.spans] == (["new"] if sampled else []) + ["continued"]


def test_metrics_are_served_where_a_port_is_set() -> None:
    """The page is Prometheus text; after the shutdown the port is free again."""
    port = free_port()
    settings = ServeSettings(metrics_port=port)
    made = telemetry.setup("echo", settings)
    assert made.calls is not None
    made.calls.served("a.B/C", "OK", 0.01)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    with pytest.raises(ConfigError, match=f"METRICS_PORT={port}"):
        telemetry.setup("echo", settings)
    made.shutdown()

    assert 'rpc_server_call_duration_seconds_count{rpc_method="a.B/C",rpc_response_status_code="OK"} 1.0' in page
    telemetry.setup("echo", settings).shutdown()
