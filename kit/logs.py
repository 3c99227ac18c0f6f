"""Logs as JSON lines on standard error, each with the ids of the call and the trace it belongs to.

A line holds `time`, `level`, `logger`, `service`, `message`, what the call passed as `extra`, and where there is one
the `request_id`, `trace_id`, `span_id` and `error` (a traceback). Never log a prompt, a completion or a key.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from opentelemetry import trace

from kit import identity
from kit.spans import current

# What a record has without `extra`: the rest is the caller's.
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


# Below `warning` these log what passes through them: statements with rows, bodies, URLs, headers with keys, every job.
_TALKATIVE = ("aiosqlite", "asyncpg", "httpcore", "httpx", "openai", "sqlalchemy", "taskiq")


class _CallerHasGone(logging.Filter):
    """Drops what grpc.aio reports as an error where a caller's deadline passes during a write: nothing is wrong."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be kept."""
        return not record.getMessage().startswith("ExecuteBatchError raised in core by servicer method")


def setup(service_name: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Sends every logger's lines to one stream, standard error by default; a second call replaces the first."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(service_name))
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler.formatter, JsonFormatter)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    if not any(isinstance(one, _CallerHasGone) for one in grpc_log.filters):
        grpc_log.addFilter(_CallerHasGone())


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a record."""

    def __init__(self, service_name: str) -> None:
        super().__init__()
        self._service_name = service_name

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line, without a line break inside or at its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "service": self._service_name,
            "message": record.getMessage(),
        }
        line.update(_ids())
        line.update({key: value for key, value in extra(record).items() if key not in line})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def extra(record: logging.LogRecord) -> dict[str, Any]:
    """What the call passed as `extra`."""
    return {key: value for key, value in vars(record).items() if key not in _OWN_FIELDS}


def _ids() -> dict[str, str]:
    ids = {}
    if context := identity.active():
        ids["request_id"] = context.request_id
    span = current().get_span_context()
    if span.is_valid:
        ids["trace_id"] = trace.format_trace_id(span.trace_id)
        ids["span_id"] = trace.format_span_id(span.span_id)
    return ids
