from __future__ import annotations

import asyncio
import json
import math
import time

import grpc
import pytest
from opentelemetry.trace import SpanKind, StatusCode

from kit import identity, names
from kit.channel import Channel
from kit.config import DialSettings
from kit.dial import dial
from kit.identity import CallContext
from tests.fakes.echo_service import KINDS, NAME, collect, start
from tests.fakes.span_sink import DEADLINE_S
from tests.kit.conftest import Suite


async def _left_s(channel: Channel, **options: float) -> float:
    (answer,) = await collect(start(channel, "UnaryUnary", b"who", **options))
    return float(json.loads(answer)["left_s"])


async def test_a_call_shrinks_the_deadline_of_the_call_it_serves(suite: Suite) -> None:
    """The time left is handed on; a timeout of its own can only shorten it."""
    with identity.use(CallContext("r", deadline=time.monotonic() + 30)):
        assert 29 < await _left_s(suite.channel) <= 30.1
        assert 4 < await _left_s(suite.channel, timeout=5) <= 5.1
        assert 29 < await _left_s(suite.channel, timeout=500) <= 30.1
        assert 29 < await _left_s(suite.channel, timeout=math.inf) <= 30.1


async def test_a_call_without_any_deadline_gets_the_default(suite: Suite) -> None:
    """Nobody waits for ever by accident; math.inf asks for it."""
    async with dial(suite.target, DialSettings(deadline_s=20), suite.telemetry) as channel:
        assert 19 < await _left_s(channel) <= 20.1
        assert 49 < await _left_s(channel, timeout=50) <= 50.1
        assert await _left_s(channel, timeout=math.inf) == -1


async def test_a_call_whose_time_is_over_ends_at_once(suite: Suite) -> None:
    """A deadline in the past is DEADLINE_EXCEEDED, not the absence of one."""
    with (
        identity.use(CallContext("r", deadline=time.monotonic() - 1)),
        pytest.raises(grpc.aio.AioRpcError) as caught,
    ):
        async with asyncio.timeout(DEADLINE_S):
            await collect(start(suite.channel, "UnaryUnary", b"wait"))

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", KINDS)
async def test_identity_travels_with_every_kind_of_call(suite: Suite, kind: str) -> None:
    """Request id, tenant and principal of the call being served are those of the next one."""
    with identity.use(CallContext("r-1", "acme", "ada")):
        answers = await collect(start(suite.channel, kind, b"who"))

    who = json.loads(answers[0])
    assert (who["request_id"], who["tenant"], who["principal"]) == ("r-1", "acme", "ada")


async def test_metadata_of_the_caller_is_kept(suite: Suite) -> None:
    """What the call itself sends goes along, as tuples or as grpc's own class."""
    seen = {}

    async def note(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.update(context.invocation_metadata())
        return b""

    suite.service.unary_unary = note  # type: ignore[method-assign]
    server, target = await _another(suite)
    async with dial(target) as channel:
        await collect(start(channel, "UnaryUnary", b"ok", metadata=(("x-one", "1"),)))
        await collect(start(channel, "UnaryUnary", b"ok", metadata=grpc.aio.Metadata(("x-two", "2"))))
    await server.stop(0)

    assert (seen["x-one"], seen["x-two"]) == ("1", "2")


async def test_a_task_that_is_cancelled_cancels_its_call(suite: Suite) -> None:
    """Cancelling whoever awaits reaches the handler, and the span says who it was."""
    task = asyncio.create_task(collect(start(suite.channel, "UnaryUnary", b"wait")))
    async with asyncio.timeout(DEADLINE_S):
        await suite.service.started.wait()
        task.cancel()
        await suite.service.cleaned.wait()

    client = await suite.sink.one(SpanKind.CLIENT)
    assert task.cancelled()
    assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == "CANCELLED"
    assert client.attributes[names.CANCELLED_BY] == "caller"


async def test_a_call_that_the_server_cancels_is_not_blamed_on_the_caller(suite: Suite) -> None:
    """CANCELLED may also be the peer's answer."""

    async def cancel(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await context.abort(grpc.StatusCode.CANCELLED, "not now")

    suite.service.unary_unary = cancel  # type: ignore[method-assign]
    server, target = await _another(suite)
    async with dial(target, telemetry=suite.telemetry) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(channel, "UnaryUnary", b"ok"))
    await server.stop(0)

    client = await suite.sink.one(SpanKind.CLIENT)
    assert client.attributes[names.CANCELLED_BY] == "peer"


async def test_a_server_that_is_not_there_is_recorded(suite: Suite) -> None:
    """The span of a call that never left says UNAVAILABLE, and where it was to go."""
    async with dial("127.0.0.1:1", telemetry=suite.telemetry) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await collect(start(channel, "UnaryUnary", b"ok"))

    client = await suite.sink.one(SpanKind.CLIENT)
    assert client.status.status_code is StatusCode.ERROR
    assert client.attributes[names.RPC_RESPONSE_STATUS_CODE] == "UNAVAILABLE"
    assert (client.attributes[names.SERVER_ADDRESS], client.attributes[names.SERVER_PORT]) == ("127.0.0.1", 1)


async def test_a_call_inside_a_span_is_its_child(suite: Suite) -> None:
    """Three services make one trace: span, client, server."""
    with suite.telemetry.tracer.start_as_current_span("work") as work:
        await collect(start(suite.channel, "UnaryStream", b"ok"))

    server, client = await suite.sink.one(SpanKind.SERVER), await suite.sink.one(SpanKind.CLIENT)
    assert client.parent.span_id == work.get_span_context().span_id
    assert server.parent.span_id == client.context.span_id


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("127.0.0.1:7", {names.SERVER_ADDRESS: "127.0.0.1", names.SERVER_PORT: 7}),
        ("dns:///cache:7", {names.SERVER_ADDRESS: "cache", names.SERVER_PORT: 7}),
        ("[::1]:7", {names.SERVER_ADDRESS: "::1", names.SERVER_PORT: 7}),
        ("unix:/run/x.sock", {names.SERVER_ADDRESS: "unix:/run/x.sock"}),
    ],
)
async def test_the_address_of_a_target(suite: Suite, target: str, expected: dict[str, object]) -> None:
    """Spans name host and port however the target is written."""
    async with dial(target, telemetry=suite.telemetry) as channel:
        call = start(channel, "UnaryUnary", b"ok")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    client = await suite.sink.one(SpanKind.CLIENT)
    assert {key: value for key, value in client.attributes.items() if key.startswith("server.")} == expected


async def test_a_channel_is_a_channel(suite: Suite) -> None:
    """Whoever holds a grpc.aio.Channel can hold this one; closed, it starts no call."""
    channel = dial(suite.target, service=NAME)
    await channel.channel_ready()
    assert isinstance(channel, grpc.aio.Channel)
    assert channel.get_state() is grpc.ChannelConnectivity.READY

    await channel.close()
    with pytest.raises(grpc.aio.UsageError):
        start(channel, "UnaryUnary", b"ok")


async def _another(suite: Suite):
    """Serves the same service object, whose methods a test has replaced."""
    from kit import telemetry
    from kit.config import ServeSettings
    from kit.serve import Server

    server = Server("echo", ServeSettings(port=0), [suite.service.registration], telemetry.off())
    target = f"127.0.0.1:{await server.start()}"
    server.set_serving("", True)
    return server, target
