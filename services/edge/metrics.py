"""The edge's figures for Prometheus.

Labels are bounded: route templates, methods, status classes, and at most MODELS_MAX names of models. Children of the
labelled series are kept, because looking them up costs more than counting.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from kit import names
from services.edge.exchange import Exchange

MODELS_MAX = 64
OTHER = "other"
# From a cache hit to a long answer of a local model.
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counts exchanges."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        labels = ("method", "route", "status")
        self._requests = Counter(
            names.EDGE_REQUESTS, "Requests that were answered or given up.", labels, registry=self._registry
        )
        self._duration = Histogram(
            names.EDGE_DURATION,
            "From the request's head to the last byte of the answer.",
            ("route",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._disconnects = Counter(
            names.EDGE_DISCONNECTS, "Requests whose client left early.", ("route",), registry=self._registry
        )
        self._generations = Counter(
            names.EDGE_GENERATIONS, "Requests that a model answered.", ("model",), registry=self._registry
        )
        self._active = Gauge(names.EDGE_ACTIVE, "Requests in flight.", registry=self._registry)
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._models: dict[str, Counter] = {}

    def begin(self) -> None:
        """A request has come."""
        self._active.inc()

    def end(self, exchange: Exchange, method: str) -> None:
        """A request is over."""
        self._active.dec()
        key = (method, exchange.route, exchange.status // 100)
        children = self._children.get(key)
        if children is None:
            route, status = exchange.route or OTHER, f"{key[2]}xx"
            children = (self._requests.labels(method, route, status), self._duration.labels(route))
            self._children[key] = children
        children[0].inc()
        children[1].observe(exchange.elapsed_s)
        if exchange.disconnected:
            self._disconnects.labels(exchange.route or OTHER).inc()
        if exchange.model:
            self._model(exchange.model).inc()

    def page(self, accepted: str) -> tuple[bytes, str]:
        """The page that Prometheus reads, in the best format that it accepts, and that format's media type."""
        write, content_type = choose_encoder(accepted)
        return write(self._registry), content_type

    def _model(self, model: str) -> Counter:
        child = self._models.get(model)
        if child is None:
            name = model if len(self._models) < MODELS_MAX else OTHER
            child = self._generations.labels(name)
            if name == model:
                self._models[model] = child
        return child
