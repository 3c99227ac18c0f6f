"""A registry's metrics as OTLP, again and again, for a collector that nothing scrapes.

They are the same figures as on the metrics page: counters and histograms are cumulative since the process started, and
a histogram's examples keep their traces. A thread of its own reads and sends them; what cannot be sent is sent anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.metrics.v1 import metrics_pb2
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

_CUMULATIVE = metrics_pb2.AGGREGATION_TEMPORALITY_CUMULATIVE
_log = logging.getLogger(__name__)


class MetricExporter:
    """Sends what a registry holds.

    Args:
        send: Sends one encoded request.
        registry: Is read.
        resource: What all telemetry of this process shares.
        interval_s: Between two sendings.
    """

    def __init__(
        self,
        send: Callable[[bytes], object],
        registry: CollectorRegistry,
        resource: Mapping[str, str],
        interval_s: float,
    ) -> None:
        self._send, self._registry, self._interval_s = send, registry, interval_s
        self._resource = _attributes(resource)
        self._began_ns = time.time_ns()
        self._is_failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="export metrics", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Sends once more and ends."""
        self._stopping.set()
        self._thread.join(6.0)

    def _run(self) -> None:
        while not self._stopping.wait(self._interval_s):
            self._export()
        self._export()

    def _export(self) -> None:
        request = metrics_service_pb2.ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.extend(self._resource)
        scope = group.scope_metrics.add()
        scope.scope.name = "millrace"
        now_ns = time.time_ns()
        try:
            for family in self._registry.collect():
                if family.samples:
                    _add(scope.metrics.add(), family, self._began_ns, now_ns)
            self._send(request.SerializeToString())
            self._is_failing = False
        except Exception as error:  # the last resort of a thread: telemetry must never take anything else with it
            if not self._is_failing:
                reason = error.code().name if isinstance(error, grpc.Call) else repr(error)
                _log.warning("metrics cannot be exported", extra={"reason": reason})
            self._is_failing = True


def _add(metric: metrics_pb2.Metric, family: Metric, began_ns: int, now_ns: int) -> None:
    metric.name, metric.description = family.name, family.documentation
    if family.type == "histogram":
        _add_histogram(metric, family, began_ns, now_ns)
        return
    if family.type == "counter":
        metric.name = f"{family.name}_total"
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = _CUMULATIVE, True
        points = metric.sum.data_points
    else:
        points = metric.gauge.data_points
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            point = points.add(start_time_unix_nano=began_ns, time_unix_nano=now_ns, as_double=sample.value)
            point.attributes.extend(_attributes(sample.labels))


def _add_histogram(metric: metrics_pb2.Metric, family: Metric, began_ns: int, now_ns: int) -> None:
    metric.histogram.aggregation_temporality = _CUMULATIVE
    series: dict[tuple[tuple[str, str], ...], list[Sample]] = defaultdict(list)
    for sample in family.samples:
        labels = tuple(item for item in sample.labels.items() if item[0] != "le")
        series[labels].append(sample)
    for labels, samples in series.items():
        point = metric.histogram.data_points.add(start_time_unix_nano=began_ns, time_unix_nano=now_ns)
        point.attributes.extend(_attributes(dict(labels)))
        before = 0.0
        for sample in samples:
            if sample.name.endswith("_sum"):
                point.sum = sample.value
            elif sample.name.endswith("_bucket"):
                point.bucket_counts.append(int(sample.value - before))
                before = sample.value
                if sample.labels["le"] != "+Inf":
                    point.explicit_bounds.append(float(sample.labels["le"]))
                _add_exemplar(point, sample)
        point.count = int(before)


def _add_exemplar(point: metrics_pb2.HistogramDataPoint, sample: Sample) -> None:
    if sample.exemplar is not None:
        point.exemplars.add(
            as_double=sample.exemplar.value,
            time_unix_nano=int(float(sample.exemplar.timestamp or 0) * 1e9),
            trace_id=bytes.fromhex(sample.exemplar.labels["trace_id"]),
        )


def _attributes(labels: Mapping[str, str]) -> list[common_pb2.KeyValue]:
    return [
        common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=value)) for key, value in labels.items()
    ]
