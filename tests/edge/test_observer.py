"""The edge's server span: continues the caller's trace and says how the request really ended."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kit import telemetry
from services.edge.config import EdgeSettings
from tests.fakes.span_sink import readable

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


@pytest.fixture
def spans():
    """Every span that ended."""
    return Spans()


@pytest_asyncio.fixture(loop_scope="module")
async def traced(serve, spans):
    """An edge that records spans."""
    return await serve(telemetry.setup("millrace-edge", EdgeSettings(), exporter=spans))


def server_span(spans):
    """The one server span."""
    [span] = [span for span in spans.get_finished_spans() if span.kind is SpanKind.SERVER]
    return span


class Spans(InMemorySpanExporter):
    """Keeps spans, and tells when the server's has ended: a client has its answer a moment before."""

    def __init__(self):
        super().__init__()
        self.ended = asyncio.Event()

    def export(self, spans):
        """Takes spans that ended."""
        result = super().export([readable(span) for span in spans])
        if any(span.kind is SpanKind.SERVER for span in spans):
            self.ended.set()
        return result


async def ended(spans):
    """Waits until the request's span has ended."""
    await asyncio.wait_for(spans.ended.wait(), 5)


async def test_the_callers_trace_goes_on(traced, spans, inference):
    """Edge span under the caller's, client span under the edge's, and that one is what inference gets."""
    await traced.get("/v1/models", headers=PARENT)
    await ended(spans)
    server = server_span(spans)
    [client] = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]

    assert (server.name, f"{server.context.trace_id:032x}") == ("GET /v1/models", TRACE_ID)
    assert f"{server.parent.span_id:016x}" == "b7ad6b7169203331"
    assert client.parent.span_id == server.context.span_id
    assert inference.metadata["traceparent"] == f"00-{TRACE_ID}-{client.context.span_id:016x}-01"


async def test_without_recording_the_trace_still_travels(serve, inference):
    """An edge that records nothing passes the caller's context on."""
    edge = await serve(telemetry.setup("millrace-edge", EdgeSettings()))
    await edge.get("/v1/models", headers=PARENT)

    assert inference.metadata["traceparent"] == PARENT["traceparent"]


async def test_a_request_behind_another_inherits_nothing_of_it(serve, inference):
    """Two requests written at once: the first's trace and baggage are not told of the second."""
    edge = await serve(telemetry.off())
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    told = "".join(f"{name}: {value}\r\n" for name, value in {**PARENT, "baggage": "plan=gold"}.items())
    writer.write(f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{told}\r\n".encode())
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(5):
        answers = await reader.read()
    writer.close()

    assert answers.count(b"HTTP/1.1 200") == 2
    trace_hex = PARENT["traceparent"].split("-")[1]
    assert "baggage" not in inference.metadata
    # A run that looks for leaks records spans even so: then it is a trace of its own.
    assert trace_hex not in inference.metadata.get("traceparent", "")


async def test_what_a_span_says(traced, spans):
    """Method, route, status and request id; never content."""
    await traced.post("/chat", {"message": "my secret"}, headers={"x-request-id": "r1"})
    await ended(spans)
    span = server_span(spans)

    assert span.attributes["http.request.method"] == "POST"
    assert span.attributes["http.route"] == "/chat"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["millrace.request_id"] == "r1"
    assert span.status.status_code is StatusCode.UNSET
    assert "secret" not in span.to_json()


@pytest.mark.parametrize("path", ["/v1/models/mr_a-key-that-somebody-put-here", "/mr_a-key-that-somebody-put-here"])
async def test_what_callers_write_into_a_path_is_in_no_span(traced, spans, path):
    """A path is told as the route's template, and not at all where there is no route."""
    await traced.get(path)
    await ended(spans)

    assert "somebody" not in server_span(spans).to_json()


@pytest.mark.parametrize(
    ("model", "status", "state"),
    [
        ("error-INVALID_ARGUMENT", 400, StatusCode.UNSET),
        ("error-UNAVAILABLE", 503, StatusCode.ERROR),
        ("error-INTERNAL", 500, StatusCode.ERROR),
    ],
)
async def test_only_our_own_failures_are_errors(traced, spans, model, status, state):
    """A caller's mistake is no error of the server; both have their type."""
    await traced.post("/chat", {"message": "x", "model": model})
    await ended(spans)
    span = server_span(spans)

    assert (span.attributes["http.response.status_code"], span.status.status_code) == (status, state)
    assert span.attributes["error.type"]


async def test_a_stream_that_breaks_is_an_error(traced, spans):
    """The status was 200 when it began; the span tells how it ended."""
    await traced.post("/chat/stream", {"message": "a b", "model": "break"})
    await ended(spans)
    span = server_span(spans)

    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "upstream_broke")


async def test_a_client_that_leaves_is_recorded_as_such(traced, spans, inference):
    """A disconnect is neither a success nor a failure of the server: 499, cancelled by the client."""
    raw = json.dumps({"message": "x", "model": "silent"}).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", traced.port)
    writer.write(b"POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(raw) + raw)
    await asyncio.wait_for(inference.began.wait(), 5)
    writer.close()
    await ended(spans)
    span = server_span(spans)

    assert span.attributes["http.response.status_code"] == 499
    assert span.attributes["error.type"] == "client_disconnected"
    assert span.status.status_code is StatusCode.UNSET


async def test_a_stream_that_shutdown_cuts_is_an_error(traced, spans, inference):
    """A stream that outlives the grace did not end well, and its span says why."""
    body = {"message": "a b", "model": "stall"}
    async with traced.client.stream("POST", "/chat/stream", json=body):
        await asyncio.wait_for(inference.began.wait(), 5)
        await traced.edge.server.stop()
        await ended(spans)
    span = server_span(spans)

    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "shutdown")


async def test_a_streams_span_lasts_until_its_end(traced, spans, inference):
    """The span is open while the stream is."""
    body = {"message": "a b", "model": "gate"}
    async with traced.client.stream("POST", "/chat/stream", json=body) as answer:
        await asyncio.wait_for(inference.began.wait(), 5)
        open_still = not spans.get_finished_spans()
        inference.gate.set()
        await answer.aread()
    await ended(spans)

    assert open_still
    assert server_span(spans).attributes["http.response.status_code"] == 200
