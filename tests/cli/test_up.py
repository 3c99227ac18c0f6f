"""`millrace up` as a user meets it: the four real services, the banner, and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.ports import free_ports

SERVICES = ("EDGE", "INFERENCE", "CACHE", "SAFETY")
READY_S = 120.0
ANSWER_S = 120.0
BIN = Path(sys.executable).parent


async def start(scratch: Path, environ: dict[str, str]) -> Process:
    """Starts `millrace up` in an empty folder, as Ctrl-C will find it: in a session of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "cli", "up", "--no-color"),
        cwd=scratch,
        env={**os.environ, **environ},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )


async def read_until(process: Process, line: str) -> str:
    """Reads the output up to a line; fails with what there was where it ends before."""
    assert process.stdout
    text = ""
    async with asyncio.timeout(READY_S):
        while True:
            read = (await process.stdout.readline()).decode()
            assert read, text
            text += read
            if read.rstrip() == line:
                return text


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    ports = {f"MILLRACE_{name}_PORT": str(port) for name, port in zip(SERVICES, free_ports(4), strict=True)}
    return ports | {"HF_HUB_OFFLINE": "1"}


@pytest.fixture
async def suite(tmp_path: Path, environ: dict[str, str]) -> AsyncIterator[Process]:
    process = await start(tmp_path, environ)
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


async def run_pasted(text: str, cwd: Path) -> str:
    """Runs text as a shell would that it is pasted into."""
    process = await asyncio.create_subprocess_exec("bash", "-euc", text, cwd=cwd, stdout=PIPE, stderr=PIPE)
    async with asyncio.timeout(ANSWER_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_banner_works_when_pasted_and_ctrl_c_drains(suite, tmp_path):
    """Both snippets of the banner answer as they stand, and Ctrl-C stops all four services with exit code 0."""
    banner = await read_until(suite, "PY")
    curl = re.search(r"^curl .*$", banner, re.MULTILINE)
    python = re.search(r"^\S+ - <<'PY'\n.*?^PY$", banner, re.MULTILINE | re.DOTALL)
    assert curl
    assert python

    assert "data: [DONE]" in await run_pasted(curl[0], tmp_path)
    assert "Millrace" in await run_pasted(python[0], tmp_path)

    os.killpg(suite.pid, signal.SIGINT)
    assert suite.stdout
    async with asyncio.timeout(READY_S):
        farewell = (await suite.stdout.read()).decode()
        assert await suite.wait() == 0
    stopped = re.findall(r"^(\w+) +stopped$", farewell, re.MULTILINE)
    assert stopped == ["edge", "inference", "cache", "safety"]


async def test_it_begins_with_a_key_that_is_told_once_and_nowhere_else(tmp_path, environ):
    """Where keys are required the banner's key opens the door, makes others, and stands in no file or process list."""
    process = await start(tmp_path, environ | {"MILLRACE_INFERENCE_ACCESS_MODE": "required"})
    try:
        banner = await read_until(process, "PY")
        key = re.search(r"^  Key +(mr_\S+)$", banner, re.MULTILINE)
        assert key
        exported = "".join(f"export {name}={value}\n" for name, value in environ.items()) + f"PATH={BIN}:$PATH\n"
        with_key = f"{exported}export MILLRACE_API_KEY={key[1]}\n"
        curl = re.search(r"^curl .*$", banner, re.MULTILINE)
        python = re.search(r"^\S+ - <<'PY'\n.*?^PY$", banner, re.MULTILINE | re.DOTALL)
        assert curl
        assert python
        assert "data: [DONE]" in await run_pasted(with_key + curl[0], tmp_path)
        assert "Millrace" in await run_pasted(with_key + python[0], tmp_path)

        made = (await run_pasted(f"{with_key}millrace keys create laptop --role user --expires 1d", tmp_path)).strip()
        assert "millrace-embedded" in await run_pasted(f"{exported}MILLRACE_API_KEY={made} millrace models", tmp_path)
        assert "Millrace" in await run_pasted(
            f"{exported}MILLRACE_API_KEY={made} millrace chat --grpc What is Millrace?", tmp_path
        )
        listed = await run_pasted(f"{with_key}millrace keys list", tmp_path)
        key_id = re.search(r"^(key_\w+) +laptop", listed, re.MULTILINE)
        assert key_id
        refused = await run_pasted(f"{exported}millrace keys list 2>&1 || true", tmp_path)
        assert "CREDENTIAL_MISSING" in refused
        assert "MILLRACE_API_KEY" in refused
        await run_pasted(f"{with_key}millrace keys revoke {key_id[1]}", tmp_path)
        gone = await run_pasted(f"{exported}MILLRACE_API_KEY={made} millrace models 2>&1 || true", tmp_path)
        assert "revoked" in gone
        await run_pasted(f"{with_key}echo 'a long password' | millrace users add ada", tmp_path)
        assert "ada" in await run_pasted(f"{with_key}millrace users list", tmp_path)

        told = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] + commands()
        assert not [text for text in told if key[1].encode() in text or made.encode() in text]
        assert b"services.inference" in b"".join(told)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(READY_S):
            await process.wait()


def commands() -> list[bytes]:
    """The command line of every process that this user may see."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes())
    return lines


async def test_a_bad_setting_stops_it_before_anything_starts(tmp_path, environ):
    """A bad value is refused with the variable, the value and what is allowed, and exit code 2."""
    process = await start(tmp_path, environ | {"MILLRACE_CACHE_STORE": "floppy"})
    out, _ = await process.communicate()

    assert process.returncode == 2
    assert re.search(r"MILLRACE_CACHE_STORE.*floppy.*embedded.*redis", out.decode())
    assert not (tmp_path / ".millrace").exists()


async def test_a_taken_port_is_explained(tmp_path, environ):
    """A port in use is named with the variable that moves it, and exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = await start(tmp_path, environ | {"MILLRACE_EDGE_PORT": str(port)})
        out, _ = await process.communicate()

    assert process.returncode == 1
    assert re.search(rf"Port {port}.*edge.*MILLRACE_EDGE_PORT=", out.decode())


@pytest.mark.parametrize(
    ("environ_of", "complaint"),
    [
        (lambda _: {"MILLRACE_CACHE_HOST": "192.0.2.1"}, "MILLRACE_CACHE_HOST"),
        (lambda environ: {"MILLRACE_CACHE_PORT": environ["MILLRACE_SAFETY_PORT"]}, "MILLRACE_SAFETY_PORT"),
        (lambda _: {}, r"\.millrace/logs"),
    ],
    ids=["address", "one port twice", "folder"],
)
async def test_what_cannot_start_is_one_line(tmp_path, environ, environ_of, complaint):
    """Whatever the system refuses is one line that names the variable or the path, exit code 1, and no traceback."""
    (tmp_path / ".millrace").write_text("in the way")
    process = await start(tmp_path, environ | environ_of(environ))
    out, _ = await process.communicate()

    assert process.returncode == 1
    assert re.fullmatch(rf"millrace: .*{complaint}.*\n", out.decode())
