"""Traces and metrics of one process: made once at start, handed to whoever needs them, never global.

Spans go to a collector, to the edge's own span store, to both or nowhere. Where they go nowhere none is recorded, yet
the trace context and baggage of a caller still travel on to the next service. Metrics live in a registry of their own;
whether calls are counted there is decided by `metrics_port` and by whether there is a collector.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import unquote
from wsgiref.simple_server import WSGIServer

from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace import NonRecordingSpan, NoOpTracer, SpanContext, SpanKind, TraceFlags, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from kit import identity, names, otlp, otlp_logs, signals
from kit.config import ServeSettings
from kit.errors import ConfigError
from kit.histogram import Histogram
from kit.otlp import Destination, Exporter
from kit.otlp_metrics import MetricExporter
from kit.otlp_spans import SpanBuffer, SpanEncoder
from kit.spans import CURRENT, TRACEPARENT, Span, SpanTracer, Take, current

# From a cached answer (under a millisecond) to a long generation.
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# The span store is what somebody looks at now.
_STORE_DELAY_S = 0.2

_PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


class Takes(Protocol):
    """What takes spans."""

    def export(self, spans: Sequence[Span]) -> object:
        """Takes ended spans."""


class CallMetrics:
    """Counts and times calls. Labels are the methods that exist and the canonical codes: both bounded.

    Attributes:
        active_count: Calls being served.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str) -> Histogram:
            signal = signals.BY_NAME[name]
            return Histogram(name, signal.meaning, signal.labels, _DURATION_BUCKETS_S, registry)

        self._server = histogram(names.RPC_SERVER_CALL_DURATION)
        self._client = histogram(names.RPC_CLIENT_CALL_DURATION)
        self.active_count = 0
        active = Gauge(names.RPC_SERVER_ACTIVE_CALLS, "Calls being served.", registry=registry)
        active.set_function(lambda: self.active_count)

    def served(self, method: str, code: str, seconds: float) -> None:
        """Records a call that this process served."""
        self._server.observe(seconds, method, code)

    def called(self, method: str, code: str, seconds: float) -> None:
        """Records a call that this process made."""
        self._client.observe(seconds, method, code)


class _Dropped(Collector):
    """What the exporters of a process could not get rid of."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.exporters: list[tuple[str, Exporter[Any]]] = []
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yields the counts as they are now."""
        signal = signals.BY_NAME[names.TELEMETRY_DROPPED]
        family = CounterMetricFamily(signal.name, signal.meaning, labels=signal.labels)
        counts = Counter(dict.fromkeys(("spans", "logs"), 0))
        for what, exporter in self.exporters:
            counts[what] += exporter.dropped_count
        for what, count in counts.items():
            family.add_metric((what,), count)
        yield family


@dataclass(frozen=True)
class Telemetry:
    """What a process records with.

    Attributes:
        service_name: As in the resource of every span.
        tracer: Makes spans; they record nothing where `recording` is false.
        recording: Whether spans go anywhere.
        registry: Where a service registers metrics of its own.
        calls: Counts calls; None where nobody reads metrics.
    """

    service_name: str
    tracer: Tracer = field(default_factory=NoOpTracer)
    recording: bool = False
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    calls: CallMetrics | None = None
    closers: tuple[Callable[[], object], ...] = ()

    def served(self, name: str, headers: Mapping[str, str]) -> Span | None:
        """Begins the span of what this process serves, below its caller's, and enters it for the rest of the task.

        Where nothing is recorded, what the caller told is entered, to travel on.

        Args:
            name: Of the span.
            headers: Of the caller, with lower-case names; malformed trace context is ignored.
        """
        tracer = self.tracer
        if isinstance(tracer, SpanTracer) and "tracestate" not in headers and "baggage" not in headers:
            # What nearly every call has.
            span = tracer.served(name, headers.get("traceparent", ""))
            CURRENT.set(span)
            return span
        above = extract(headers)
        # Even an empty one: with requests in a row on a connection, a task may begin within the context of another's.
        otel_context.attach(above)
        if not isinstance(tracer, SpanTracer):
            return None
        span = tracer.start_span(name, above, SpanKind.SERVER)
        span.part.carries = True
        CURRENT.set(span)
        return span

    def shutdown(self) -> None:
        """Exports what is left and stops; blocks for seconds at most."""
        for close in self.closers:
            close()


def setup(
    service_name: str, settings: ServeSettings, *, exporter: Takes | None = None, count_calls: bool = False
) -> Telemetry:
    """Makes the telemetry of this process.

    Args:
        service_name: Name of the service in traces.
        settings: Say where traces go and where metrics are served.
        exporter: Takes every span at once, in place of OTLP; for tests.
        count_calls: Count calls even without a metrics port, where the service serves the registry itself.

    Raises:
        ConfigError: The metrics port is taken.
    """
    registry = CollectorRegistry()
    is_read = count_calls or settings.metrics_port is not None or settings.otlp_endpoint is not None
    calls = CallMetrics(registry) if is_read else None
    closers: list[Callable[[], object]] = []
    dropped = _Dropped(registry)
    if settings.metrics_port is not None:
        closers.append(_serve_metrics(settings.host, settings.metrics_port, registry))
    take = _at_once(exporter) if exporter else _way_out(service_name, settings, closers, dropped)
    if take is None:
        return Telemetry(service_name, registry=registry, calls=calls, closers=tuple(closers))
    tracer = SpanTracer(take, settings.trace_sample_ratio, settings.trace_slow_s)
    return Telemetry(service_name, tracer, True, registry, calls, tuple(closers))


def _at_once(exporter: Takes) -> Take:
    def take(span: Span) -> None:
        if span.constants is not None:
            span.attributes |= span.constants.values
        exporter.export((span,))

    return take


def off(service_name: str = "millrace") -> Telemetry:
    """Returns telemetry that records nothing and still passes trace context on."""
    return Telemetry(service_name)


def extract(headers: Mapping[str, str]) -> Context:
    """Reads W3C trace context and baggage from headers with lower-case names; malformed ones are ignored."""
    if "tracestate" in headers or "baggage" in headers:
        return _PROPAGATOR.extract(headers, Context())
    # What nearly every call has, read in a tenth of the time.
    found = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    if found is None:
        return Context()
    trace_id, span_id, flags = (int(part, 16) for part in found.groups())
    parent = SpanContext(trace_id, span_id, True, TraceFlags(flags & TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def inject_trace() -> dict[str, str]:
    """Returns the headers that carry the current trace on, for strangers: without baggage, which names tenants."""
    return {name: value for name, value in inject() if name != "baggage"}


def inject(context: Context | None = None, span: trace.Span | None = None) -> Iterable[tuple[str, str]]:
    """Returns the headers that carry the current, or the given, trace context and baggage on.

    Args:
        context: In place of the current one.
        span: In place of the context's own.
    """
    above = span or (current() if context is None else trace.get_current_span(context))
    if isinstance(above, Span):
        if not above.part.carries:
            # What nearly every call has, written in a tenth of the time.
            return (("traceparent", above.traceparent),)
    elif above is trace.INVALID_SPAN and not baggage.get_all(context):
        return ()
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, trace.set_span_in_context(above, context))
    return headers.items()


def _way_out(
    service_name: str, settings: ServeSettings, closers: list[Callable[[], object]], dropped: _Dropped
) -> Take | None:
    """Opens the ways out, of metrics and logs as well, adds what closes them and returns what takes spans, if any."""
    resource = _resource(service_name)
    encoder = SpanEncoder(resource, "millrace")
    ways: list[Exporter[bytes]] = []
    buffer = SpanBuffer(encoder.span, ways)
    if settings.otlp_endpoint is not None:
        headers = settings.otlp_headers.get_secret_value() if settings.otlp_headers else ""
        collector, delay_s = Destination(settings.otlp_endpoint, pairs(headers)), settings.otlp_delay_ms / 1000
        spans = Exporter(collector.sender(otlp.TRACES), encoder.request, delay_s, "spans", buffer.flush)
        lines = Exporter(collector.sender(otlp.LOGS), otlp_logs.encoder(resource), delay_s, "logs")
        handler = otlp_logs.LogHandler(lines.offer)
        logging.getLogger().addHandler(handler)
        metrics = MetricExporter(
            collector.sender(otlp.METRICS), dropped.registry, resource, settings.otlp_metrics_interval_s
        )
        closers += (lambda: logging.getLogger().removeHandler(handler), spans.shutdown, lines.shutdown)
        closers += (metrics.shutdown, collector.close)
        dropped.exporters += (("spans", spans), ("logs", lines))
        ways.append(spans)
    if settings.span_store is not None:
        store = Destination(f"http://{settings.span_store}")
        spans = Exporter(store.sender(otlp.TRACES), encoder.request, _STORE_DELAY_S, "spans", buffer.flush)
        closers += (spans.shutdown, store.close)
        dropped.exporters.append(("spans", spans))
        ways.append(spans)
    return buffer.take if ways else None


def _resource(service_name: str) -> dict[str, str]:
    """What all telemetry of this process shares."""
    return {
        "service.name": service_name,
        "service.namespace": "millrace",
        "service.instance.id": identity.new_request_id(),
        "host.name": socket.gethostname(),
    }


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """Reads `key=value,key=value`, values percent-encoded, as OTEL_EXPORTER_OTLP_HEADERS has it."""
    split = (part.partition("=") for part in text.split(",") if "=" in part)
    return tuple((key.strip().lower(), unquote(value.strip())) for key, _, value in split)


def _serve_metrics(host: str, port: int, registry: CollectorRegistry) -> Callable[[], None]:
    try:
        server: WSGIServer
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise ConfigError(f"METRICS_PORT={port}: cannot listen on {host}: {error.strerror}") from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return close
