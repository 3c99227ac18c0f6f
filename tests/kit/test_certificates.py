from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit import channel as channel_module
from kit import telemetry
from kit.certificates import Certificates
from kit.channel import Channel
from kit.config import ConfigError, DialSettings, ServeSettings
from kit.dial import dial
from kit.serve import Server
from tests.fakes.certificates import Authority
from tests.fakes.echo_service import EchoService, collect, start
from tests.fakes.span_sink import DEADLINE_S


class Files:
    """The three files of one side, renewed as Kubernetes renews a mounted secret: one link to a folder is swapped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        folder.mkdir(parents=True)
        self.cert, self.key, self.ca = (folder / "now" / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def renew(self, signer: Authority, host: str, *trusted: Authority) -> None:
        """Puts a new certificate in place, and the authorities to trust."""
        self._count += 1
        version = self._folder / str(self._count)
        version.mkdir()
        cert, key = signer.issue(host)
        cert.rename(version / "tls.crt")
        key.rename(version / "tls.key")
        (version / "ca.crt").write_bytes(b"".join(one.certificate.read_bytes() for one in trusted))
        link = self._folder / "next"
        link.symlink_to(version)
        link.rename(self._folder / "now")


class Pair:
    """A server and a channel to it, in mutual TLS, each by files of its own."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.server_files, self.client_files = Files(folder / "server"), Files(folder / "client")
        self.server_files.renew(authority, "localhost", authority)
        self.client_files.renew(authority, "edge", authority)
        self.service = EchoService()

    @asynccontextmanager
    async def running(self, **settings: float) -> AsyncIterator[Channel]:
        """Starts both."""
        theirs, ours = self.server_files, self.client_files
        serve = ServeSettings(
            tls_cert_file=theirs.cert, tls_key_file=theirs.key, tls_client_ca_file=theirs.ca, **settings
        )
        server = Server("echo", serve, [self.service.registration], telemetry.off())
        self.port = await server.start()
        server.set_serving("", True)
        shown = DialSettings(tls_ca_file=ours.ca, tls_cert_file=ours.cert, tls_key_file=ours.key)
        try:
            async with dial(f"localhost:{self.port}", shown) as channel:
                yield channel
        finally:
            await server.stop(0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Returns an authority with a folder of its own."""
    return _authority(tmp_path / "first")


def _authority(folder: Path) -> Authority:
    folder.mkdir()
    return Authority(folder)


async def _answers(port: int, settings: DialSettings) -> bool:
    async with dial(f"localhost:{port}", settings) as channel:
        call = start(channel, "UnaryUnary", b"ok", timeout=DEADLINE_S)
        code = await call.code()
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return code is grpc.StatusCode.OK


async def _until(channel: Channel, done: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not done():
            await collect(start(channel, "UnaryUnary", b"ok"))


def test_files_are_read_once_per_renewal(tmp_path: Path, authority: Authority) -> None:
    """What has not changed is not told again; what has is told once, whole."""
    files = Files(tmp_path / "files")
    files.renew(authority, "edge", authority)
    certificates = Certificates(files.cert, files.key, files.ca)
    first = certificates.read()
    assert certificates.renewed() is None

    files.renew(authority, "edge", authority)
    second = certificates.renewed()

    assert second is not None
    assert second.chain == files.cert.read_bytes() != first.chain
    assert certificates.renewed() is None


def test_a_key_of_another_certificate_waits(tmp_path: Path, authority: Authority) -> None:
    """Files replaced one after the other are taken when the last one is there, and not before."""
    cert, key = authority.issue("edge")
    certificates = Certificates(cert, key, authority.certificate)
    certificates.read()
    new_cert, new_key = authority.issue("other")
    os.replace(new_cert, cert)
    assert certificates.renewed() is None
    cert.write_text("half a cert")
    assert certificates.renewed() is None
    new_cert, new_key = authority.issue("third")
    os.replace(new_cert, cert)
    os.replace(new_key, key)

    renewed = certificates.renewed()

    assert renewed is not None
    assert renewed.key == key.read_bytes()


def test_files_that_are_gone_change_nothing(tmp_path: Path, authority: Authority) -> None:
    """A volume that is away for a moment does not take the certificates with it."""
    cert, key = authority.issue("edge")
    certificates = Certificates(cert, key, None)
    certificates.read()
    cert.unlink()

    assert certificates.renewed() is None


async def test_a_renewed_server_is_met_with_its_new_certificate(tmp_path: Path, authority: Authority) -> None:
    """A client that trusts the new authority alone is refused before the renewal, and served after it; no restart."""
    pair = Pair(tmp_path / "pair", authority)
    second = _authority(tmp_path / "second")
    async with pair.running():
        stranger = Files(tmp_path / "stranger")
        stranger.renew(second, "edge", second)
        shown = DialSettings(tls_ca_file=stranger.ca, tls_cert_file=stranger.cert, tls_key_file=stranger.key)
        assert not await _answers(pair.port, shown)

        pair.server_files.renew(second, "localhost", second)

        assert await _answers(pair.port, shown)


async def test_an_authority_that_is_dropped_is_refused(tmp_path: Path, authority: Authority) -> None:
    """Those whom a former authority signed are strangers once the server's files say so."""
    pair = Pair(tmp_path / "pair", authority)
    ours = pair.client_files
    shown = DialSettings(tls_ca_file=ours.ca, tls_cert_file=ours.cert, tls_key_file=ours.key)
    async with pair.running():
        assert await _answers(pair.port, shown)

        pair.server_files.renew(authority, "localhost", _authority(tmp_path / "second"))

        assert not await _answers(pair.port, shown)


async def test_renewal_on_both_sides_drops_nothing(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls go on while an authority is replaced by another, step by step, and a stream from before ends well."""
    monkeypatch.setattr(channel_module, "RENEWAL_INTERVAL_S", 0.0)
    pair = Pair(tmp_path / "pair", authority)
    second = _authority(tmp_path / "second")
    server, client = pair.server_files, pair.client_files
    async with pair.running() as channel:
        stream = aiter(start(channel, "UnaryStream", b"wait", timeout=DEADLINE_S))
        assert await anext(stream) == b"waiting"
        # Both are trusted first, then shown, then the old one is dropped: the order that any rotation has.
        both, last = (authority, second), (second,)
        for signer, trusted in ((authority, both), (second, both), (second, last)):
            before = channel._line
            server.renew(signer, "localhost", *trusted)
            client.renew(signer, "edge", *trusted)
            await _until(channel, lambda before=before: channel._line is not before)
            for _ in range(5):
                await collect(start(channel, "UnaryUnary", b"ok"))
        assert len(channel._left) == 1
        pair.service.release.set()

        assert [message async for message in stream] == [b"wait"] * 3
        assert channel._left == set()


async def test_an_idle_channel_does_not_fail_with_an_old_certificate(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the present connection is gone, the first call after a renewal already goes by the new certificates."""
    monkeypatch.setattr(channel_module, "RENEWAL_INTERVAL_S", 0.0)
    pair = Pair(tmp_path / "pair", authority)
    second = _authority(tmp_path / "second")
    async with pair.running(max_connection_age_s=1, max_connection_age_grace_s=1) as channel:
        await collect(start(channel, "UnaryUnary", b"ok"))
        pair.server_files.renew(second, "localhost", second)
        # The connection's age is over, and the next handshake fails: the server is another's now.
        async with asyncio.timeout(DEADLINE_S):
            while (state := channel.get_state()) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await channel.wait_for_state_change(state)
        pair.client_files.renew(second, "edge", second)

        assert await collect(start(channel, "UnaryUnary", b"ok")) == [b"ok"]


async def test_health_alone_is_answered_in_plaintext(tmp_path: Path, authority: Authority) -> None:
    """A probe that speaks no TLS learns how the server is, and nothing else is to be had there."""
    cert, key = authority.issue("localhost")
    settings = ServeSettings(
        tls_cert_file=cert, tls_key_file=key, tls_client_ca_file=authority.certificate, health_port=0
    )
    server = Server("echo", settings, [EchoService().registration], telemetry.off())
    await server.start()
    async with grpc.aio.insecure_channel(f"localhost:{server.health_port}") as plain:
        stub = health_pb2_grpc.HealthStub(plain)
        before = await stub.Check(health_pb2.HealthCheckRequest())
        server.set_serving("", True)
        after = await stub.Check(health_pb2.HealthCheckRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await collect(start(plain, "UnaryUnary", b"ok"))
    await server.stop(0)

    assert (before.status, after.status) == (2, 1)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_certificates_of_no_use_to_a_client_stop_the_start(tmp_path: Path) -> None:
    """A wrong file is a complaint that names the target, not a channel that never connects."""
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")

    with pytest.raises(ConfigError, match="cache:50052"):
        dial("cache:50052", DialSettings(tls_ca_file=garbage))
