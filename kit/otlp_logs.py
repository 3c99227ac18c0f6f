"""Log lines as OTLP: the same that stand on standard error, with the ids of their trace.

A line's message and what it was given as `extra` are taken over as they are; a traceback is `exception.stacktrace`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from kit import identity, logs, names
from kit.spans import current

# https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
_SEVERITIES = {logging.DEBUG: 5, logging.INFO: 9, logging.WARNING: 13, logging.ERROR: 17, logging.CRITICAL: 21}
# What exporters say of themselves is not exported: a collector that refuses would be sent its own refusals.
_OWN = ("kit.otlp", "kit.otlp_metrics")


class LogHandler(logging.Handler):
    """Turns records into OTLP's as they are made, while their trace is the current one.

    Args:
        offer: Takes each, without waiting.
    """

    def __init__(self, offer: Callable[[logs_pb2.LogRecord], None]) -> None:
        super().__init__()
        self._offer = offer
        self._format = logging.Formatter().formatException

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a record."""
        if record.name in _OWN:
            return
        attributes = {"logger.name": record.name, **logs.extra(record)}
        if context := identity.active():
            attributes[names.REQUEST_ID] = context.request_id
        if record.exc_info:
            attributes["exception.stacktrace"] = self._format(record.exc_info)
        made = logs_pb2.LogRecord(
            time_unix_nano=int(record.created * 1e9),
            severity_number=_SEVERITIES.get(record.levelno, 0),  # type: ignore[arg-type]
            severity_text=record.levelname,
            body=common_pb2.AnyValue(string_value=record.getMessage()),
            attributes=_attributes(attributes),
        )
        span = current().get_span_context()
        if span.is_valid:
            made.trace_id, made.span_id = span.trace_id.to_bytes(16, "big"), span.span_id.to_bytes(8, "big")
            made.flags = span.trace_flags
        self._offer(made)


def encoder(resource: Mapping[str, str]) -> Callable[[Sequence[logs_pb2.LogRecord]], bytes]:
    """Returns what encodes records into an ExportLogsServiceRequest."""

    def encode(records: Sequence[logs_pb2.LogRecord]) -> bytes:
        request = logs_service_pb2.ExportLogsServiceRequest()
        group = request.resource_logs.add()
        group.resource.attributes.extend(_attributes(resource))
        group.scope_logs.add(log_records=records)
        return request.SerializeToString()

    return encode


def _attributes(values: Mapping[str, object]) -> list[common_pb2.KeyValue]:
    return [
        common_pb2.KeyValue(key=key, value=common_pb2.AnyValue(string_value=str(value)))
        for key, value in values.items()
    ]
