from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry import context as otel_context

from kit import identity, logs, telemetry
from kit.identity import CallContext


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Sends the root logger's lines into memory and puts everything back."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    stream = io.StringIO()
    logs.setup("cache", "info", stream)
    yield stream
    root.handlers[:], root.level = handlers, level


def test_a_line_is_one_json_object(stream: io.StringIO) -> None:
    """Time, level, logger, service, message and the extra fields, on one line whatever the text holds."""
    logging.getLogger("a.b").warning("first\nsecond %s", "é", extra={"entry_count": 3})

    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("+00:00")
    assert record == {
        "level": "warning",
        "logger": "a.b",
        "service": "cache",
        "message": "first\nsecond é",
        "entry_count": 3,
    }


def test_a_line_carries_the_ids_of_its_call(stream: io.StringIO) -> None:
    """Request id of the context, trace and span id of the current span, recorded or not."""
    parent = telemetry.extract({"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    token = otel_context.attach(parent)
    with identity.use(CallContext("r-1")):
        logging.getLogger("a").info("x")
    otel_context.detach(token)

    record = json.loads(stream.getvalue())
    assert record["request_id"] == "r-1"
    assert record["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    assert record["span_id"] == "b7ad6b7169203331"


def test_a_traceback_stays_on_the_line(stream: io.StringIO) -> None:
    """An error is a field, so that a collector keeps it together."""
    try:
        raise ValueError("torn")
    except ValueError:
        logging.getLogger("a").exception("failed")

    (line,) = stream.getvalue().splitlines()
    assert "ValueError: torn" in json.loads(line)["error"]


def test_what_is_below_the_level_is_not_written(stream: io.StringIO) -> None:
    """Debug lines cost nothing in production."""
    logging.getLogger("a").debug("x")

    assert stream.getvalue() == ""


def test_a_second_setup_replaces_the_first(stream: io.StringIO) -> None:
    """No line is written twice."""
    other = io.StringIO()
    logs.setup("edge", "info", other)
    logging.getLogger("a").info("x")

    assert stream.getvalue() == ""
    assert json.loads(other.getvalue())["service"] == "edge"


def test_an_extra_field_never_replaces_our_own(stream: io.StringIO) -> None:
    """`service` stays the service."""
    logging.getLogger("a").info("x", extra={"service": "fake", "error": object()})

    record = json.loads(stream.getvalue())
    assert record["service"] == "cache"
    assert record["error"].startswith("<object")


def test_a_caller_who_has_gone_is_no_error(stream: io.StringIO) -> None:
    """What grpc reports of a write to nobody is left out; what else it has to say is not."""
    grpc_log = logging.getLogger("grpc._cython.cygrpc")
    grpc_log.error("ExecuteBatchError raised in core by servicer method [/a/B]")
    grpc_log.error("something else")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["something else"]


@pytest.mark.parametrize("name", ["aiosqlite", "httpcore.http11", "openai._base_client", "sqlalchemy.engine"])
def test_libraries_do_not_log_what_passes_through_them(stream: io.StringIO, name: str) -> None:
    """They would write rows, URLs and headers with keys into the log, some at `info`; their warnings are kept."""
    logs.setup("cache", "debug", stream)
    logging.getLogger(name).debug("authorization: Bearer mr_x")
    logging.getLogger(name).info("INSERT INTO texts VALUES ('a prompt')")
    logging.getLogger("services.cache").debug("ours")
    logging.getLogger(name).warning("kept")

    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours", "kept"]
