"""Traces, metrics and logs of one process at a real collector, and what of them belongs together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic_settings import SettingsConfigDict

from kit import telemetry
from kit.config import ServeSettings, load
from kit.errors import ConfigError
from tests.fakes.otlp_receiver import OtlpReceiver


class EchoSettings(ServeSettings):
    """Settings of a service."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_ECHO_")


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """A collector."""
    made = OtlpReceiver()
    await made.start()
    yield made
    await made.stop()


async def test_traces_metrics_and_logs_carry_one_trace_id(receiver: OtlpReceiver) -> None:
    """The span, the log line within it and the example of the latency bucket are of one trace."""
    settings = ServeSettings(otlp_endpoint=receiver.endpoint, otlp_delay_ms=1, otlp_metrics_interval_s=0.1)
    made = telemetry.setup("millrace-echo", settings)
    assert made.calls is not None
    with made.tracer.start_as_current_span("work") as span:
        trace_id = span.get_span_context().trace_id.to_bytes(16, "big")
        made.calls.served("a.B/C", "OK", 0.012)
        logging.getLogger("echo").warning("something is odd", extra={"target": "t"})
    name = "rpc_server_call_duration_seconds"
    await receiver.until(lambda: receiver.spans and receiver.logs and name in receiver.metrics)
    await asyncio.to_thread(made.shutdown)

    assert [(one.label, one.trace_id) for one in receiver.spans] == [("echo work", trace_id.hex())]
    (line,) = [one for one in receiver.logs if one.body.string_value == "something is odd"]
    assert line.trace_id == trace_id
    assert {one.key: one.value.string_value for one in line.attributes}["target"] == "t"
    (point,) = receiver.metrics[name].histogram.data_points
    assert (point.count, sum(point.bucket_counts)) == (1, 1)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
    assert [one.trace_id for one in point.exemplars] == [trace_id]
    assert not [one for one in logging.getLogger().handlers if type(one).__name__ == "LogHandler"]


def test_the_standard_variables_count_where_ours_are_not_set() -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT is for all services, and one's own variable is stronger."""
    standard = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://all:4317", "OTEL_EXPORTER_OTLP_HEADERS": "Key=a%20b, x=y"}
    settings = load(EchoSettings, standard)
    assert settings.otlp_endpoint == "http://all:4317"
    assert settings.otlp_headers is not None
    assert telemetry.pairs(settings.otlp_headers.get_secret_value()) == (("key", "a b"), ("x", "y"))
    own = load(EchoSettings, {**standard, "MILLRACE_ECHO_OTLP_ENDPOINT": "http://mine:4317"})
    assert own.otlp_endpoint == "http://mine:4317"
    with pytest.raises(ConfigError, match="OTLP_ENDPOINT"):
        load(EchoSettings, {"OTEL_EXPORTER_OTLP_ENDPOINT": "nonsense"})
