"""`millrace up` as a user meets it: the four real services, the banner, and Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

SERVICES = ("EDGE", "INFERENCE", "CACHE", "SAFETY")
READY_S = 60.0
ANSWER_S = 60.0


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


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
