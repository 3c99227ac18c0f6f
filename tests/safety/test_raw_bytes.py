"""Bytes that no protobuf library would send: refused as the caller's mistake, or read; never a fault of the server."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import telemetry
from kit.dial import dial
from kit.errors import InvalidArgument
from kit.serve import Server
from kit.status import from_rpc_error
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict
from services.safety import wiring
from services.safety.config import SafetySettings
from tests.safety.messages import prompt

DEADLINE_S = 20.0
UNARY = {
    "CheckInput": pb.CheckInputRequest(segments=[pb.Segment(role=verdict.ROLE_USER, text="SENTINEL")]),
    "CheckOutput": pb.CheckOutputRequest(parts=[pb.OutputPart(text="SENTINEL")]),
    "Redact": pb.RedactRequest(texts=["SENTINEL"]),
    "Restore": pb.RestoreRequest(texts=["SENTINEL"]),
}
STREAM = pb.StreamCheckOutputRequest(start=pb.StreamStart(), deltas=[pb.OutputDelta(text="SENTINEL")])
# Not UTF-8: a lone continuation byte, a cut character, an overlong NUL, a surrogate, beyond Unicode.
BROKEN = [b"SENTINE\x80", b"SENTIN\xe2\x82", b"SENTIN\xc0\x80", b"SENTI\xed\xa0\x80", b"SENT\xf4\x90\x80\x80"]
TOLD = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


@pytest_asyncio.fixture(loop_scope="session")
async def channel(embedded: wiring.SafetyService) -> AsyncIterator[grpc.aio.Channel]:
    server = Server("safety", SafetySettings(port=0), embedded.registrations, telemetry.off())
    port = await server.start()
    await embedded.warm(server)
    server.set_serving("", True)
    async with dial(f"127.0.0.1:{port}", service=wiring.FULL_NAME) as channel:
        yield channel
    await server.stop(0)


def start(channel: grpc.aio.Channel, method: str, data: bytes) -> Any:
    """Sends bytes as they are."""
    path = f"/{wiring.FULL_NAME}/{method}"
    if method == "StreamCheckOutput":

        async def once() -> AsyncIterator[bytes]:
            yield data

        return channel.stream_stream(path)(once(), timeout=DEADLINE_S)
    return channel.unary_unary(path)(data, timeout=DEADLINE_S)


async def sent(channel: grpc.aio.Channel, method: str, data: bytes) -> grpc.StatusCode:
    call = start(channel, method, data)
    if method == "StreamCheckOutput":
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return await call.code()
    return await call.code()


@pytest.mark.parametrize("bytes_", BROKEN, ids=["lone", "cut", "overlong", "surrogate", "beyond"])
@pytest.mark.parametrize("method", [*UNARY, "StreamCheckOutput"])
async def test_text_that_is_not_utf8_is_refused(channel: grpc.aio.Channel, method: str, bytes_: bytes) -> None:
    """INVALID_ARGUMENT that says what is wrong, on every method; the server serves on."""
    data = UNARY.get(method, STREAM).SerializeToString().replace(b"SENTINEL", bytes_)
    call = start(channel, method, data)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call if method in UNARY else [each async for each in call]

    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert error.field_violations[0].field == "request"
    assert await sent(channel, "CheckInput", prompt("hello").SerializeToString()) is grpc.StatusCode.OK


async def test_a_stream_that_breaks_later_is_refused_too(channel: grpc.aio.Channel) -> None:
    """A broken message after good ones ends the stream as the caller's mistake."""

    async def requests() -> AsyncIterator[bytes]:
        yield STREAM.SerializeToString()
        yield (
            pb.StreamCheckOutputRequest(deltas=[pb.OutputDelta(text="SENTINEL")])
            .SerializeToString()
            .replace(b"SENTINEL", BROKEN[0])
        )

    call = channel.stream_stream(f"/{wiring.FULL_NAME}/StreamCheckOutput")(requests(), timeout=DEADLINE_S)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [each async for each in call]

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from([*UNARY, "StreamCheckOutput"]),
    noise=st.binary(max_size=200),
    cut=st.integers(0, 60),
    flips=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 255)), max_size=4),
)
async def test_any_bytes_are_read_or_refused(
    channel: grpc.aio.Channel, method: str, noise: bytes, cut: int, flips: list[tuple[int, int]]
) -> None:
    """Noise, and good messages with bytes changed, missing or added: answered or refused, never UNKNOWN or INTERNAL."""
    good = bytearray(UNARY.get(method, STREAM).SerializeToString())
    for at, value in flips:
        good[at % len(good)] = value

    codes = await asyncio.gather(
        sent(channel, method, noise),
        sent(channel, method, bytes(good[:cut])),
        sent(channel, method, bytes(good) + noise),
    )

    assert set(codes) <= set(TOLD)
