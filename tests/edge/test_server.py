"""The life of the edge: listening, draining, TLS, and the process itself."""

from __future__ import annotations

import asyncio
import datetime
import os
import signal
import socket
import ssl
import subprocess
import sys

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.certificates import Authority

DAY = datetime.timedelta(days=1)


async def test_a_stream_in_flight_is_finished(serve, inference):
    """Told to stop, the edge closes its port and still ends the stream within the grace."""
    edge = await serve(grace_s=5)
    body = {"message": "a b", "model": "gate"}
    async with edge.client.stream("POST", "/chat/stream", json=body) as answer:
        await asyncio.wait_for(inference.began.wait(), 5)
        stopping = asyncio.create_task(edge.edge.server.stop())
        await _refuses(edge.port)
        inference.gate.set()
        text = (await answer.aread()).decode()
        await asyncio.wait_for(stopping, 5)

    assert "event: done" in text


async def test_a_stream_past_the_grace_is_cut_and_cancelled(serve, inference):
    """What does not end within the grace is cut, and inference is told."""
    edge = await serve(grace_s=1)
    body = {"message": "a b", "model": "stall"}
    async with edge.client.stream("POST", "/chat/stream", json=body) as answer:
        await asyncio.wait_for(inference.began.wait(), 5)
        await asyncio.wait_for(edge.edge.server.stop(), 5)
        await asyncio.wait_for(inference.cancelled.wait(), 5)
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


async def test_readiness_goes_first(serve):
    """While the port is still open for balancers to notice, /readyz is 503 and requests are served."""
    edge = await serve(drain_delay_s=3)
    assert (await edge.get("/readyz")).status_code == 200
    stopping = asyncio.create_task(edge.edge.server.stop())
    await asyncio.sleep(0)
    ready, chat = await edge.get("/readyz"), await edge.post("/chat", {"message": "x"})
    await stopping

    assert (ready.status_code, ready.json()["error"]["code"]) == (503, "draining")
    assert chat.status_code == 200


async def _refuses(port: int) -> None:
    """Waits until nobody listens on a port."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionError:  # It closed while we were waiting to be accepted.
                continue
            writer.close()


async def test_a_renewed_certificate_is_taken_without_a_restart(serve, tmp_path):
    """A connection that was open goes on, and the next one is made with the new certificate."""
    first, second = (Authority(_folder(tmp_path / name)) for name in ("first", "second"))
    cert, key = first.issue("localhost")
    edge = await serve(tls_cert_file=cert, tls_key_file=key)
    url = f"https://localhost:{edge.port}/livez"
    trusting = [httpx.AsyncClient(verify=ssl.create_default_context(cafile=one.certificate)) for one in (first, second)]
    async with trusting[0] as old, trusting[1] as new:
        assert (await old.get(url)).status_code == 200
        for source, target in zip(second.issue("localhost"), (cert, key), strict=True):
            os.replace(source, target)

        assert (await old.get(url)).status_code == 200
        assert (await new.get(url)).status_code == 200
        async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=first.certificate)) as late:
            with pytest.raises(httpx.ConnectError):
                await late.get(url)


def _folder(path):
    path.mkdir()
    return path


@pytest.fixture
def certificate(tmp_path):
    """A self-signed certificate for 127.0.0.1 and its key, as files."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "edge.test")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
    built = builder.add_extension(alternative, critical=False).sign(key, hashes.SHA256())
    (tmp_path / "cert.pem").write_bytes(built.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    return tmp_path / "cert.pem", tmp_path / "key.pem"


async def test_tls(serve, certificate):
    """With a certificate the edge speaks HTTPS, and nothing else."""
    cert, key = certificate
    edge = await serve(tls_cert_file=cert, tls_key_file=key)
    trusted = ssl.create_default_context(cafile=str(cert))
    async with httpx.AsyncClient(verify=trusted, trust_env=False) as client:
        answer = await client.get(f"https://localhost:{edge.port}/livez")
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://localhost:{edge.port}/livez")

    assert answer.status_code == 200


def _spawn(**environ: str) -> subprocess.Popen[str]:
    """Starts the process with settings."""
    variables = {f"MILLRACE_EDGE_{name}": value for name, value in environ.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "services.edge"], env=os.environ | variables, stderr=subprocess.PIPE, text=True
    )


async def test_the_process_serves_and_stops_on_sigterm(inference):
    """`python -m services.edge` says where it serves, and exits 0 after SIGTERM."""
    process = _spawn(PORT="0", INFERENCE_TARGET=inference.target)
    try:
        line = await asyncio.to_thread(_line_with, process, '"serving"')
        port = int(line.split('"port": ')[1].split("}")[0].split(",")[0])
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/readyz")
        process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(process.wait, 10)
    finally:
        process.kill()

    assert (answer.status_code, code) == (200, 0)


def _line_with(process: subprocess.Popen[str], part: str) -> str:
    assert process.stderr is not None
    return next(line for line in process.stderr if part in line)


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        ({"PORT": "x"}, "MILLRACE_EDGE_PORT"),
        ({"NONSENSE": "1"}, "MILLRACE_EDGE_NONSENSE"),
        ({"INFERENCE_TLS_CA_FILE": "/nowhere"}, "MILLRACE_EDGE_INFERENCE_TLS_CA_FILE"),
    ],
)
def test_a_bad_setting_stops_the_start(environ, part):
    """A bad setting is one line that names the variable, and exit code 2."""
    process = _spawn(**environ)
    _, text = process.communicate(timeout=20)

    assert (process.returncode, part in text, text.count("\n")) == (2, True, 1)


def test_a_taken_port_stops_the_start():
    """A port in use is one line and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = _spawn(PORT=str(taken.getsockname()[1]))
        _, text = process.communicate(timeout=20)

    assert process.returncode == 2
    assert "in use" in text.splitlines()[-1]
