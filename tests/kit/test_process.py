"""What `kit.serve.run` makes of a process, seen from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.errors import Unavailable
from kit.status import from_rpc_error
from tests.fakes.echo_service import NAME, call_for_ever, start

# A cold start imports grpc and pydantic on a machine that may be busy.
DEADLINE_S = 20.0


class Process:
    """A started echo process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def logged(self, message: str) -> dict[str, object]:
        """Returns the next log line with a message."""
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            record = json.loads(line)
            if record["message"] == message:
                return record
        raise AssertionError(f"the process ended without {message!r}: {self.lines}")

    async def ended(self) -> tuple[int, str, str]:
        """Returns the exit code, the rest of the output and of the errors."""
        output, errors = await self.process.communicate()
        return self.process.returncode or 0, output.decode(), errors.decode()

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


@asynccontextmanager
async def _running(**settings: str) -> AsyncIterator[Process]:
    variables = {f"MILLRACE_ECHO_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fakes.echo_process"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_exits_with_zero(number: signal.Signals) -> None:
    """A stream that runs finishes, whoever watches health is told, new calls are refused, all is closed, exit 0."""
    async with _running(grace_s="60") as process:
        port = (await process.logged("ready"))["port"]
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as late,
        ):
            stream = channel.stream_stream(f"/{NAME}/StreamStream")()
            await stream.write(b"one")
            assert [await stream.read() for _ in range(3)] == [b"one"] * 3
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING

            process.process.send_signal(number)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await process.logged("draining")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call_for_ever(late)
            await stream.write(b"two")
            assert [await stream.read() for _ in range(3)] == [b"two"] * 3
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
        code, output, errors = await process.ended()

    assert isinstance(from_rpc_error(caught.value), Unavailable)
    assert (code, output) == (0, "closed\n")
    assert "Traceback" not in errors


async def test_a_second_signal_ends_the_drain() -> None:
    """Whoever presses Ctrl-C twice does not wait for the grace."""
    async with _running(grace_s="600") as process:
        port = (await process.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = start(channel, "UnaryStream", b"wait")
            await stream.read()
            process.terminate()
            await process.logged("draining")
            process.terminate()
            code, output, _ = await process.ended()

    assert (code, output) == (0, "closed\n")


async def test_a_stream_that_outlasts_the_grace_is_cut() -> None:
    """The process ends when the grace is over, whatever its callers do."""
    async with _running(grace_s="0.2") as process:
        port = (await process.logged("ready"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stream = start(channel, "UnaryStream", b"wait")
            await stream.read()
            started = time.perf_counter()
            process.terminate()
            code, output, _ = await process.ended()

    assert (code, output) == (0, "closed\n")
    assert 0.2 <= time.perf_counter() - started < DEADLINE_S / 2


async def test_a_signal_ends_a_warm_up() -> None:
    """A service that is still loading stops as well, closed and with exit code 0."""
    async with _running(warm="never") as process:
        port = (await process.logged("listening"))["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert (await check).status == health_pb2.HealthCheckResponse.NOT_SERVING
        process.terminate()
        code, output, _ = await process.ended()

    assert (code, output) == (0, "closed\n")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"port": "x"}, "echo: MILLRACE_ECHO_PORT='x': must be a valid integer"),
        ({"warm": "refused"}, "echo: model.bin: no such model"),
        ({"host": "192.0.2.1"}, "echo: MILLRACE_ECHO_PORT=0: echo cannot listen on 192.0.2.1:0"),
    ],
)
async def test_a_start_that_is_refused_says_why_in_one_line(settings: dict[str, str], complaint: str) -> None:
    """Exit code 2 and a line without a traceback."""
    async with _running(**settings) as process:
        code, _, errors = await process.ended()

    plain = [line for line in errors.splitlines() if line and not line.startswith("{")]
    assert code == 2
    assert plain[-1].startswith(complaint)
    assert "Traceback" not in errors


async def test_a_bug_at_the_start_shows_its_traceback() -> None:
    """What nobody foresaw is not dressed up as a setting; the service is closed all the same."""
    async with _running(warm="broken") as process:
        code, output, errors = await process.ended()

    assert (code, output) == (1, "closed\n")
    assert "RuntimeError: a bug" in errors
