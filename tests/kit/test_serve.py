from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kit import telemetry
from kit.config import ConfigError, DialSettings, ServeSettings
from kit.dial import dial
from kit.errors import Unavailable
from kit.serve import Server
from kit.status import from_rpc_error
from tests.fakes.certificates import Authority
from tests.fakes.echo_service import NAME, EchoService, call_for_ever, collect, start
from tests.fakes.span_sink import DEADLINE_S


@asynccontextmanager
async def _serving(settings: ServeSettings) -> AsyncIterator[tuple[Server, str, EchoService]]:
    service = EchoService()
    server = Server("echo", settings, [service.registration], telemetry.off())
    target = f"localhost:{await server.start()}"
    server.set_serving("", True)
    try:
        yield server, target, service
    finally:
        await server.stop(0)


async def test_a_server_is_not_serving_until_it_says_so() -> None:
    """It answers health from the start, and honestly."""
    server = Server("echo", ServeSettings(), [EchoService().registration], telemetry.off())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start()}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    await server.stop(0)


async def test_a_port_that_is_taken_is_named() -> None:
    """The complaint says which variable to change; a second server never shares the port in silence."""
    async with _serving(ServeSettings()) as (_, target, _service):
        port = int(target.rpartition(":")[2])
        other = Server("echo", ServeSettings(port=port), [EchoService().registration], telemetry.off())
        with pytest.raises(ConfigError, match=f"PORT={port}: echo cannot listen on 127.0.0.1:{port}"):
            await other.start()


async def test_a_host_of_version_six_is_listened_on() -> None:
    """An IPv6 literal gets its brackets."""
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    server = Server("echo", ServeSettings(host="::1"), [EchoService().registration], telemetry.off())
    try:
        port = await server.start()
    except ConfigError:
        pytest.skip("this machine has no IPv6 loopback")
    async with grpc.aio.insecure_channel(f"[::1]:{port}") as channel:
        assert await collect(start(channel, "UnaryUnary", b"ok")) == [b"ok"]
    await server.stop(0)


async def test_a_message_over_the_limit_is_refused() -> None:
    """Both directions have the limit, and a message below it passes."""
    async with _serving(ServeSettings(max_message_bytes=2048)) as (_, target, _service):
        async with dial(target, DialSettings(max_message_bytes=4096)) as channel:
            assert await collect(start(channel, "UnaryUnary", b"x" * 2000)) == [b"x" * 2000]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collect(start(channel, "UnaryUnary", b"x" * 3000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with dial(target, DialSettings(max_message_bytes=1024)) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await collect(start(channel, "UnaryUnary", b"x" * 2000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_more_calls_than_allowed_are_refused() -> None:
    """The limit sheds load at once; a call that ends makes room."""
    async with (
        _serving(ServeSettings(max_concurrent_calls=1)) as (_, target, service),
        grpc.aio.insecure_channel(target) as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        first = start(channel, "UnaryStream", b"wait")
        await first.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(start(channel, "UnaryUnary", b"ok"))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

        service.release.set()
        while await first.read() is not grpc.aio.EOF:
            pass
        assert await collect(start(channel, "UnaryUnary", b"ok")) == [b"ok"]


async def test_reflection_names_the_services() -> None:
    """A tool such as grpcurl finds what is served."""
    async with _serving(ServeSettings()) as (_, target, _service), grpc.aio.insecure_channel(target) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        answers = [answer async for answer in call]

    names = {service.name for service in answers[0].list_services_response.service}
    assert names == {NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_reflection_can_be_switched_off() -> None:
    """Where nobody may look, nobody is told."""
    settings = ServeSettings(reflection=False)
    async with _serving(settings) as (_, target, _service), grpc.aio.insecure_channel(target) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stop_lets_a_stream_finish_and_refuses_new_calls() -> None:
    """Within the grace whoever is in gets everything; whoever comes is turned away."""
    async with (
        _serving(ServeSettings(grace_s=60)) as (server, target, service),
        grpc.aio.insecure_channel(target) as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        stream = start(channel, "UnaryStream", b"wait")
        answers = [await stream.read()]
        stop = asyncio.create_task(server.stop())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call_for_ever(channel)
        service.release.set()
        answers += [await stream.read() for _ in range(3)]
        assert await stream.code() is grpc.StatusCode.OK
        await stop

    assert isinstance(from_rpc_error(caught.value), Unavailable)
    assert answers == [b"waiting", b"wait", b"wait", b"wait"]


async def test_a_stop_is_announced_before_calls_are_refused() -> None:
    """Whoever watches health has time to go elsewhere: a call in between is still served."""
    async with (
        _serving(ServeSettings(announce_s=60)) as (server, target, _service),
        grpc.aio.insecure_channel(target) as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stop = asyncio.create_task(server.stop(5))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await collect(start(channel, "UnaryUnary", b"ok")) == [b"ok"]
        stop.cancel()


async def test_a_stop_cuts_what_outlasts_the_grace() -> None:
    """The handler has cleaned up before the stop returns, so what it uses can be closed."""
    async with (
        _serving(ServeSettings(grace_s=0.1)) as (server, target, service),
        grpc.aio.insecure_channel(target) as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        stream = start(channel, "UnaryStream", b"wait")
        await stream.read()
        await server.stop()
        cleaned = service.cleaned.is_set()
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()

    assert cleaned


async def test_a_second_stop_cuts_the_first_short() -> None:
    """A second signal does not wait for the grace of the first."""
    async with (
        _serving(ServeSettings(grace_s=60)) as (server, target, service),
        grpc.aio.insecure_channel(target) as channel,
        asyncio.timeout(DEADLINE_S),
    ):
        stream = start(channel, "UnaryStream", b"wait")
        await stream.read()
        first = asyncio.create_task(server.stop())
        await asyncio.sleep(0)
        started = time.perf_counter()
        await server.stop(0)
        await first

    assert time.perf_counter() - started < DEADLINE_S
    assert service.cleaned.is_set()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Returns the authority that signs the suite's certificates."""
    return Authority(tmp_path_factory.mktemp("ours"))


async def _answer(target: str, settings: DialSettings) -> list[bytes]:
    async with dial(target, settings) as channel:
        return await collect(start(channel, "UnaryUnary", b"ok", timeout=2))


async def test_tls_is_spoken_where_it_is_configured(authority: Authority, tmp_path: Path) -> None:
    """A client that trusts the authority is served; plaintext and another authority's followers are not."""
    cert, key = authority.issue("localhost")
    async with _serving(ServeSettings(tls_cert_file=cert, tls_key_file=key)) as (_, target, _service):
        assert await _answer(target, DialSettings(tls_ca_file=authority.certificate)) == [b"ok"]
        for stranger in (DialSettings(), DialSettings(tls_ca_file=Authority(tmp_path).certificate)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _answer(target, stranger)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_mutual_tls_refuses_whom_the_authority_did_not_sign(authority: Authority, tmp_path: Path) -> None:
    """A client needs a certificate, and one of ours."""
    cert, key = authority.issue("localhost")
    settings = ServeSettings(tls_cert_file=cert, tls_key_file=key, tls_client_ca_file=authority.certificate)
    ca = authority.certificate
    our_cert, our_key = authority.issue("edge")
    foreign_cert, foreign_key = Authority(tmp_path).issue("edge")
    async with _serving(settings) as (_, target, _service):
        known = DialSettings(tls_ca_file=ca, tls_cert_file=our_cert, tls_key_file=our_key)
        assert await _answer(target, known) == [b"ok"]
        for stranger in (
            DialSettings(),
            DialSettings(tls_ca_file=ca),
            DialSettings(tls_ca_file=ca, tls_cert_file=foreign_cert, tls_key_file=foreign_key),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _answer(target, stranger)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_name_other_than_the_certificate_s_can_be_expected(authority: Authority) -> None:
    """Behind an address or a tunnel the name to check is a setting; without it the wrong name is refused."""
    cert, key = authority.issue("cache.internal")
    ca = authority.certificate
    async with _serving(ServeSettings(tls_cert_file=cert, tls_key_file=key)) as (_, target, _service):
        named = DialSettings(tls_ca_file=ca, tls_server_name="cache.internal")
        assert await _answer(target, named) == [b"ok"]
        with pytest.raises(grpc.aio.AioRpcError):
            await _answer(target, DialSettings(tls_ca_file=ca))


async def test_a_certificate_that_is_none_stops_the_start(authority: Authority, tmp_path: Path) -> None:
    """A wrong file is a complaint, not a server without TLS."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    _, key = authority.issue("localhost")
    server = Server("echo", ServeSettings(tls_cert_file=garbage, tls_key_file=key), [], telemetry.off())
    with pytest.raises(ConfigError, match="certificate"):
        await server.start()
