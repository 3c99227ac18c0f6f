from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import grpc
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from kit import identity, names, telemetry
from kit.config import ServeSettings
from kit.dial import dial
from kit.errors import Code, Internal, InvalidArgument, NotFound
from kit.serve import Server
from kit.status import from_rpc_error
from tests.fakes.echo_service import KINDS, NAME, SECRET, TRAILERS, EchoService, collect, start
from tests.fakes.span_sink import DEADLINE_S, SpanSink
from tests.kit.conftest import Suite

STREAMS = ("UnaryStream", "StreamStream", "Written")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_succeeds_is_recorded_as_ok(suite: Suite, kind: str) -> None:
    """Both spans say OK, name the method in full, and the server's is the child of the client's."""
    answers = await collect(start(suite.channel, kind, b"ok"))

    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert answers == [b"ok"] * (3 if kind in STREAMS else 1)
    for span in (server, client):
        assert span.name == f"{NAME}/{kind}"
        assert span.status.status_code is StatusCode.UNSET
        assert span.attributes[names.RPC_METHOD] == f"{NAME}/{kind}"
        assert span.attributes[names.RPC_SYSTEM_NAME] == "grpc"
        assert span.attributes[names.RPC_RESPONSE_STATUS_CODE] == "OK"
    assert server.parent.span_id == client.context.span_id
    assert server.context.trace_id == client.context.trace_id


@pytest.mark.parametrize("request_", [b"not_found", b"group"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_error_that_is_raised_reaches_the_caller_whole(suite: Suite, kind: str, request_: bytes) -> None:
    """Code, reason, message and metadata arrive, also out of a task group; the server itself did not fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(suite.channel, kind, request_))

    error = from_rpc_error(caught.value)
    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert isinstance(error, NotFound)
    assert (error.reason, error.message, error.metadata) == ("ECHO_GONE", "there is no such echo", {"echo": "x"})
    assert server.attributes[names.RPC_RESPONSE_STATUS_CODE] == "NOT_FOUND"
    assert server.attributes[names.ERROR_REASON] == "ECHO_GONE"
    assert server.status.status_code is StatusCode.UNSET
    assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == "NOT_FOUND"
    assert client.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("kind", ["UnaryUnary", "UnaryStream"])
async def test_an_error_leaves_the_handlers_trailers_alone(suite: Suite, kind: str) -> None:
    """What a handler has set goes out beside the details of the error that it raised."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(suite.channel, kind, b"trailers"))

    assert set(TRAILERS) <= set(caught.value.trailing_metadata() or ())
    assert from_rpc_error(caught.value).reason == "ECHO_GONE"


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_error_tells_the_log_everything_and_the_caller_nothing(
    suite: Suite, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """INTERNAL with the request id; the text of the exception is in the log and in neither span."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(suite.channel, kind, b"bug", metadata=[("x-request-id", "r-1")]))

    error = from_rpc_error(caught.value)
    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert isinstance(error, Internal)
    assert suite.service.contexts[0].request_id in error.message
    assert SECRET not in str(caught.value)
    assert SECRET in caplog.text
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes[names.ERROR_TYPE] == "INTERNAL"
    assert server.attributes[names.EXCEPTION_TYPE] == "ValueError"
    assert SECRET not in server.to_json() + client.to_json()


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_the_caller_cancels_ends_its_handler(suite: Suite, kind: str) -> None:
    """The handler cleans up at once and both spans say CANCELLED, by the caller and without blaming the server."""
    call = start(suite.channel, kind, b"wait")
    async with asyncio.timeout(DEADLINE_S):
        await suite.service.started.wait()
        call.cancel()
        await suite.service.cleaned.wait()

    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert server.attributes[names.RPC_RESPONSE_STATUS_CODE] == "CANCELLED"
    assert server.status.status_code is StatusCode.UNSET
    assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == "CANCELLED"
    assert client.attributes[names.CANCELLED_BY] == "caller"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_that_passes_is_recorded_as_one(suite: Suite, kind: str) -> None:
    """The handler ends with the deadline and neither span calls it a cancellation."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await collect(start(suite.channel, kind, b"wait", timeout=0.2))

    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert suite.service.cleaned.is_set()
    for span in (server, client):
        assert span.attributes[names.RPC_RESPONSE_STATUS_CODE] == "DEADLINE_EXCEEDED"
        assert span.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("kind", ["UnaryStream", "Written"])
async def test_a_caller_that_stops_reading_and_hangs_up_frees_a_blocked_handler(
    suite: Suite, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A handler that is blocked in sending has cleaned up by the end of the call, and no bug is logged."""
    cleaned_at_end: list[bool] = []
    export = suite.sink.export

    def note(spans):
        cleaned_at_end.extend(suite.service.cleaned.is_set() for span in spans if span.kind is SpanKind.SERVER)
        return export(spans)

    suite.sink.export = note  # type: ignore[method-assign]
    call = start(suite.channel, kind, b"flood")
    assert await call.read()
    call.cancel()

    server = await suite.sink.one(SpanKind.SERVER)
    assert cleaned_at_end == [True]
    assert server.attributes[names.RPC_RESPONSE_STATUS_CODE] == "CANCELLED"
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_handler_that_aborts_by_itself_is_recorded_with_its_code(sink) -> None:
    """Code set through grpc's own context is the code of the span."""

    async def abort(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.DATA_LOSS, "torn")

    async def set_code(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        context.set_code(grpc.StatusCode.ABORTED)
        return b""

    for behaviour, code in ((abort, Code.DATA_LOSS), (set_code, Code.ABORTED)):
        assert await _code_of_span(sink, behaviour) == code.name
        sink.spans.clear()


async def test_a_handler_that_swallows_its_cancellation_did_not_succeed(sink) -> None:
    """A return after a cancellation is recorded as CANCELLED: the caller never saw the answer."""
    started = asyncio.Event()

    async def stubborn(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return b"fine"
        return b""

    assert await _code_of_span(sink, stubborn, started) == "CANCELLED"


async def test_a_send_that_fails_because_the_caller_has_gone_is_no_bug(sink, caplog: pytest.LogCaptureFixture) -> None:
    """The transport may fail a moment before the cancellation arrives: that is recorded as CANCELLED, too."""
    started = asyncio.Event()

    async def send(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        started.set()
        try:
            return await asyncio.Future()
        except asyncio.CancelledError:
            raise grpc.aio.InternalError("the batch failed") from None

    assert await _code_of_span(sink, send, started) == "CANCELLED"
    assert [record for record in caplog.records if record.name.startswith("kit")] == []


async def test_a_handler_that_is_no_coroutine_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """A blocking handler would run on a thread, without identity and cancellation."""

    def blocking(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b""

    service = EchoService()
    service.unary_unary = blocking  # type: ignore[method-assign]
    async with _serve(service) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(channel, "UnaryUnary", b"ok", wait_for_ready=True))
    assert "must be a coroutine function" in caplog.text


async def test_identity_and_deadline_are_those_of_the_caller(suite: Suite) -> None:
    """What the metadata says is what the handler sees."""
    async with grpc.aio.insecure_channel(suite.target) as plain:
        metadata = (("x-request-id", "r-7"), ("x-millrace-tenant", "acme"), ("x-millrace-principal", "ada"))
        (answer,) = await collect(start(plain, "UnaryUnary", b"who", metadata=metadata, timeout=3))

    who = json.loads(answer)
    assert (who["request_id"], who["tenant"], who["principal"]) == ("r-7", "acme", "ada")
    # On the wire a timeout is rounded up.
    assert 2 < who["left_s"] <= 3.1


async def test_a_call_without_identity_gets_a_request_id(suite: Suite) -> None:
    """A missing request id, or one that is unfit for a log line, is replaced; no deadline stays none."""
    async with grpc.aio.insecure_channel(suite.target) as plain:
        for metadata in ((), (("x-request-id", "a b"),)):
            (answer,) = await collect(start(plain, "UnaryUnary", b"who", metadata=metadata))
            who = json.loads(answer)
            assert who["request_id"]
            assert who["request_id"] != "a b"
            assert (who["tenant"], who["principal"], who["left_s"]) == ("default", "anonymous", -1)


async def test_a_tenant_that_is_no_name_is_refused(suite: Suite) -> None:
    """A bad tenant never falls back to the default one."""
    async with grpc.aio.insecure_channel(suite.target) as plain:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(start(plain, "UnaryUnary", b"who", metadata=(("x-millrace-tenant", "a b"),)))

    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert error.field_violations[0].field == "x-millrace-tenant"
    assert not suite.service.contexts


async def test_health_is_no_span(suite: Suite) -> None:
    """Checks of the load balancer leave no trace."""
    async with grpc.aio.insecure_channel(suite.target) as plain:
        await plain.unary_unary("/grpc.health.v1.Health/Check")(b"")
        await collect(start(plain, "UnaryUnary", b"ok"))

    assert [span.name for span in suite.sink.spans] == [f"{NAME}/UnaryUnary"]


async def test_calls_are_counted_by_method_and_code(suite: Suite) -> None:
    """The histogram has one sample for each call, and no call is active when all are done."""
    await collect(start(suite.channel, "UnaryUnary", b"ok"))
    with pytest.raises(grpc.aio.AioRpcError):
        await collect(start(suite.channel, "UnaryStream", b"not_found"))
    await suite.sink.wait(lambda span: span.kind is SpanKind.SERVER, 2)

    def count(metric: str, method: str, code: str) -> float | None:
        labels = {names.LABEL_METHOD: f"{NAME}/{method}", names.LABEL_STATUS_CODE: code}
        return suite.telemetry.registry.get_sample_value(f"{metric}_count", labels)

    for metric in (names.RPC_SERVER_CALL_DURATION, names.RPC_CLIENT_CALL_DURATION):
        assert count(metric, "UnaryUnary", "OK") == 1
        assert count(metric, "UnaryStream", "NOT_FOUND") == 1
    assert suite.telemetry.registry.get_sample_value(names.RPC_SERVER_ACTIVE_CALLS) == 0


def _seen_by(service: EchoService) -> dict[str, str]:
    """Metadata of the unary calls that a service gets."""
    seen: dict[str, str] = {}

    async def note(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.update(context.invocation_metadata())
        return b""

    service.unary_unary = note  # type: ignore[method-assign]
    return seen


async def test_trace_context_passes_through_a_service_that_records_nothing() -> None:
    """With telemetry off, traceparent, tracestate and baggage leave as they came."""
    last, first = EchoService(), EchoService()
    seen = _seen_by(last)
    sent = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "baggage": "plan=gold",
    }
    async with _serve(last) as (_, channel):

        async def relay(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await start(channel, "UnaryUnary", b"ok")

        first.unary_unary = relay  # type: ignore[method-assign]
        async with _serve(first) as (target, _), grpc.aio.insecure_channel(target) as plain:
            await collect(start(plain, "UnaryUnary", b"ok", metadata=[*sent.items(), ("x-request-id", "r-9")]))

    assert {key: seen[key] for key in sent} == sent
    assert seen["x-request-id"] == "r-9"


async def test_a_tenant_travels_beside_the_span(sink: SpanSink) -> None:
    """With telemetry on, the next service is told the tenant as baggage, and of the client's span as its parent."""
    last, first = EchoService(), EchoService()
    seen = _seen_by(last)
    recording = telemetry.setup("echo", ServeSettings(port=0), exporter=sink)
    async with _serve(last) as (behind, _), dial(behind, telemetry=recording) as channel:

        async def relay(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return await start(channel, "UnaryUnary", b"ok")

        first.unary_unary = relay  # type: ignore[method-assign]
        async with _serve(first, recording) as (target, _), grpc.aio.insecure_channel(target) as plain:
            await collect(start(plain, "UnaryUnary", b"ok", metadata=[(identity.TENANT_KEY, "acme")]))
    client = await sink.one(SpanKind.CLIENT)

    assert seen["baggage"] == "millrace.tenant=acme"
    assert seen["traceparent"] == f"00-{client.context.trace_id:032x}-{client.context.span_id:016x}-01"


async def test_a_log_line_of_a_failed_call_carries_its_ids(suite: Suite, caplog: pytest.LogCaptureFixture) -> None:
    """The ids are still current when the failure is logged."""
    from kit.logs import JsonFormatter

    lines: list[str] = []
    handler = logging.Handler()
    formatter = JsonFormatter("echo")
    handler.emit = lambda record: lines.append(formatter.format(record))  # type: ignore[method-assign]
    logging.getLogger("kit.interceptors").addHandler(handler)
    try:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(suite.channel, "UnaryStream", b"bug"))
        server = await suite.sink.one(SpanKind.SERVER)
    finally:
        logging.getLogger("kit.interceptors").removeHandler(handler)

    line = json.loads(lines[0])
    assert line["request_id"] == suite.service.contexts[0].request_id
    assert line["trace_id"] == f"{server.context.trace_id:032x}"
    assert line["span_id"] == f"{server.context.span_id:016x}"


class _serve:
    """Serves one echo service, without telemetry unless it is given some."""

    def __init__(self, service: EchoService, records: telemetry.Telemetry | None = None) -> None:
        settings = ServeSettings(port=0)
        self._off = telemetry.setup("echo", settings)
        self._server = Server("echo", settings, [service.registration], records or self._off)

    async def __aenter__(self):
        target = f"127.0.0.1:{await self._server.start()}"
        self._server.set_serving("", True)
        self._channel = dial(target, telemetry=self._off)
        return target, self._channel

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()
        await self._server.stop(0)


async def _code_of_span(sink, behaviour, cancel_after: asyncio.Event | None = None) -> str:
    """Serves one handler, calls it, cancels it where asked, and returns the code of the server's span."""
    service = EchoService()
    service.unary_unary = behaviour
    settings = ServeSettings(port=0)
    server = Server("echo", settings, [service.registration], telemetry.setup("echo", settings, exporter=sink))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as plain:
        call = start(plain, "UnaryUnary", b"ok")
        if cancel_after is not None:
            await cancel_after.wait()
            call.cancel()
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await call
        code = (await sink.one(SpanKind.SERVER)).attributes[names.RPC_RESPONSE_STATUS_CODE]
    await server.stop(0)
    return code
