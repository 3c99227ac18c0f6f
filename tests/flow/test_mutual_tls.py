"""Four real services in mutual TLS: strangers are refused everywhere, and certificates are renewed under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.config import DialSettings
from kit.dial import dial
from tests.flow.conftest import MODELS, NAMES, Suite
from tests.flow.upstream import Upstream
from tools import dev_certs

SERVICES = ("inference", "cache", "safety")
RENEWALS = 3
DEADLINE_S = 60.0

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of our own, as a developer makes them."""
    folder = tmp_path_factory.mktemp("certificates") / "ours"
    dev_certs.make(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> AsyncIterator[Suite]:
    """The suite with the settings that tools/dev_certs.py prints; connections end often, so that new ones begin."""
    upstream = Upstream()
    await upstream.start()
    variables = dev_certs.settings(certificates)
    variables |= {f"MILLRACE_{name.upper()}_MAX_CONNECTION_AGE_S": "1" for name in SERVICES}
    made = Suite(tmp_path_factory.mktemp("suite"), MODELS.format(url=upstream.url), variables)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
        await upstream.stop()


async def code_of(address: str, settings: DialSettings) -> grpc.StatusCode:
    """What becomes of a call."""
    async with dial(address, settings) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def shown(folder: Path, service: str) -> DialSettings:
    """What a service that has this folder shows."""
    own = folder / service
    return DialSettings(tls_ca_file=own / "ca.crt", tls_cert_file=own / "tls.crt", tls_key_file=own / "tls.key")


@pytest.mark.parametrize("service", SERVICES)
async def test_strangers_are_refused(secured: Suite, certificates: Path, tmp_path: Path, service: str) -> None:
    """Plaintext, no certificate, and one of another authority: none gets as far as a call; one of ours does."""
    dev_certs.make(tmp_path / "theirs")
    own = certificates / "edge"
    theirs = tmp_path / "theirs" / "edge"
    strangers = {
        "plaintext": DialSettings(),
        "no certificate": DialSettings(tls_ca_file=own / "ca.crt"),
        "of another authority": DialSettings(
            tls_ca_file=own / "ca.crt", tls_cert_file=theirs / "tls.crt", tls_key_file=theirs / "tls.key"
        ),
    }
    codes = {who: await code_of(secured.address(service), settings) for who, settings in strangers.items()}

    assert codes == dict.fromkeys(strangers, grpc.StatusCode.UNAVAILABLE)
    assert await code_of(secured.address(service), shown(certificates, "edge")) is grpc.StatusCode.OK


async def test_a_server_of_another_authority_is_refused(secured: Suite, certificates: Path, tmp_path: Path) -> None:
    """Callers check, too: they do not tell a prompt to whoever answers at an address."""
    dev_certs.make(tmp_path / "theirs")
    ours = shown(certificates, "edge")
    wrong = ours.model_copy(update={"tls_ca_file": tmp_path / "theirs" / "edge" / "ca.crt"})

    assert await code_of(secured.address("inference"), wrong) is grpc.StatusCode.UNAVAILABLE


async def test_renewal_under_load_drops_nothing(secured: Suite, certificates: Path) -> None:
    """Every service's certificate is renewed again and again while requests and streams run: each ends well."""
    answers: list[str] = []
    stopped = asyncio.Event()

    def taken(service: str) -> int:
        """How often a service says that it took new certificates."""
        return (secured.folder / f"{service}.log").read_text().count("certificates renewed")

    async def ask(client: httpx.AsyncClient, stream: bool) -> None:
        while not stopped.is_set():
            message = {"role": "user", "content": f"question {len(answers)}"}
            body = {"model": "fake-slow", "stream": stream, "messages": [message]}
            answer = await client.post(f"{secured.url}/v1/chat/completions", json=body)
            good = answer.status_code == 200 and (not stream or answer.text.endswith("data: [DONE]\n\n"))
            answers.append("ok" if good else answer.text)

    async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(ask(client, stream=number % 2 == 0))
        for number in range(RENEWALS):
            before = len(answers)
            dev_certs.make(certificates)
            async with asyncio.timeout(DEADLINE_S):
                # Other processes are watched.
                while min(map(taken, NAMES)) <= number or len(answers) < before + 12:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        stopped.set()

    assert set(answers) == {"ok"}
