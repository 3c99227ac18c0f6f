"""Traces and metrics of one process: made once at start, handed to whoever needs them, never global.

Without an exporter no span is recorded, yet the trace context and baggage of a caller still travel on to the next
service. Metrics live in a registry of their own; whether calls are counted there is decided by `metrics_port`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from wsgiref.simple_server import WSGIServer

from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NoOpTracer, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

from kit import identity, names
from kit.config import ServeSettings
from kit.errors import ConfigError

# From a cached answer (under a millisecond) to a long generation.
_DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

# How long a batch is tried, and so how long a collector that is down can delay the end of a process.
_EXPORT_TIMEOUT_S = 3

_PROPAGATOR = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


class CallMetrics:
    """Counts and times calls. Labels are the methods that exist and the canonical codes: both bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = (names.LABEL_METHOD, names.LABEL_STATUS_CODE)
        self._server = Histogram(
            names.RPC_SERVER_CALL_DURATION,
            "Time a call was served.",
            labels,
            registry=registry,
            buckets=_DURATION_BUCKETS_S,
        )
        self._client = Histogram(
            names.RPC_CLIENT_CALL_DURATION,
            "Time a call to another service took.",
            labels,
            registry=registry,
            buckets=_DURATION_BUCKETS_S,
        )
        self.active = Gauge(names.RPC_SERVER_ACTIVE_CALLS, "Calls being served.", registry=registry)

    def served(self, method: str, code: str, seconds: float) -> None:
        """Records a call that this process served."""
        self._server.labels(method, code).observe(seconds)

    def called(self, method: str, code: str, seconds: float) -> None:
        """Records a call that this process made."""
        self._client.labels(method, code).observe(seconds)


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

    def shutdown(self) -> None:
        """Exports what is left and stops; blocks for seconds at most."""
        for close in self.closers:
            close()


def setup(
    service_name: str, settings: ServeSettings, *, exporter: SpanExporter | None = None, count_calls: bool = False
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
    calls = CallMetrics(registry) if count_calls or settings.metrics_port is not None else None
    closers = []
    if settings.metrics_port is not None:
        closers.append(_serve_metrics(settings.host, settings.metrics_port, registry))
    if exporter is None and settings.otlp_endpoint is None:
        return Telemetry(service_name, registry=registry, calls=calls, closers=tuple(closers))
    provider = _provider(service_name, settings, exporter)
    closers.append(provider.shutdown)
    return Telemetry(service_name, provider.get_tracer("millrace"), True, registry, calls, tuple(closers))


def off(service_name: str = "millrace") -> Telemetry:
    """Returns telemetry that records nothing and still passes trace context on."""
    return Telemetry(service_name)


def extract(headers: Mapping[str, str]) -> Context:
    """Reads W3C trace context and baggage from headers with lower-case names; malformed ones are ignored."""
    return _PROPAGATOR.extract(headers, Context())


def inject(context: Context | None = None) -> Iterable[tuple[str, str]]:
    """Returns the headers that carry the current, or the given, trace context and baggage on."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers, context)
    return headers.items()


def _provider(service_name: str, settings: ServeSettings, exporter: SpanExporter | None) -> TracerProvider:
    resource = Resource.create(
        {
            "service.name": service_name,
            "service.namespace": "millrace",
            "service.instance.id": identity.new_request_id(),
            "host.name": socket.gethostname(),
        }
    )
    sampler = ParentBased(TraceIdRatioBased(settings.trace_sample_ratio))
    # The flush at the end is ours: an exit handler would run after the loop that services need has gone.
    provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
    if exporter is None:
        provider.add_span_processor(BatchSpanProcessor(_otlp_exporter(settings.otlp_endpoint)))
    else:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def _otlp_exporter(endpoint: str | None) -> SpanExporter:
    # Imported where it is needed: it takes a tenth of a second that most starts can save.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)


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
