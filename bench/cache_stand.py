"""Cache services and a Redis as processes of their own, to be killed, frozen and started again.

Everything listens on loopback, on ports that were free, and writes only to the folder given.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from bench.ports import free_port
from kit.dial import dial
from millrace.cache.v1.cache_service_pb2 import GetStatsRequest
from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

ROOT = Path(__file__).resolve().parents[1]
FULL_NAME = "millrace.cache.v1.CacheService"
START_DEADLINE_S = 60


class Redis:
    """A redis-server that writes every command to the disk before it answers, so that a kill loses nothing."""

    def __init__(self, folder: Path) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            raise SystemExit("redis-server is not installed (Debian: apt-get install redis-server)")
        self.port, self._folder = free_port(), folder
        self._command = [binary, "--port", str(self.port), "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """For MILLRACE_CACHE_REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Starts it, with what it had before, and waits until it answers."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*self._command, stdout=log, stderr=STDOUT)
        async with asyncio.timeout(START_DEADLINE_S):
            while True:
                try:
                    return await self._ping()
                except OSError:
                    await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Kills it as the kernel would."""
        await _kill(self._process)

    def freeze(self) -> None:
        """Stops it where it stands: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def _ping(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"PING\r\n")
        answer = await reader.readline()
        writer.close()
        if answer != b"+PONG\r\n":  # It may still be reading what it had.
            raise ConnectionError(answer)


class CacheProcess:
    """One cache service; a stub for it outlives its restarts."""

    def __init__(self, folder: Path, name: str = "cache", **settings: object) -> None:
        self.port = free_port()
        self._log = folder / f"{name}.log"
        settings = {"port": self.port, "log_level": "warning", "path": folder / f"{name}.sqlite3", **settings}
        self._variables = {f"MILLRACE_CACHE_{field.upper()}": str(value) for field, value in settings.items()}
        self._process: Process | None = None
        self._channel: grpc.aio.Channel | None = None

    @property
    def stub(self) -> CacheServiceAsyncStub:
        """Calls the service, whichever process it is by now."""
        if self._channel is None:
            self._channel = dial(f"127.0.0.1:{self.port}", service=FULL_NAME)
        stub: CacheServiceAsyncStub = CacheServiceStub(self._channel)
        return stub

    @property
    def is_up(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Starts the service, and waits until it answers."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.cache"),
                cwd=ROOT,
                env={**os.environ, **self._variables},
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
            )
        async with asyncio.timeout(START_DEADLINE_S):
            while True:
                try:
                    await self.stub.GetStats(GetStatsRequest(), wait_for_ready=True)
                    return
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:  # asked over what was left of the last process
                        raise

    def freeze(self) -> None:
        """Stops the service where it stands: connections stay open, nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    async def kill(self) -> None:
        """Kills the service as the kernel would."""
        await _kill(self._process)

    async def stop(self) -> None:
        """Ends the service as an operator would."""
        if self._channel is not None:
            await self._channel.close()
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


async def _kill(process: Process | None) -> None:
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()
