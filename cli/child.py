"""One service of the suite as a child process.

Its output goes straight to a log file: a chatty service can never block on a full pipe, and what it said last is there
after it died. The child has a session of its own: Ctrl-C reaches only the parent, which stops the services in order.
On Linux a child never outlives its parent (cli.leash).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

# Enough to read the last log lines of a service without reading all of a long log.
TAIL_BYTES = 64 * 1024


@dataclass(frozen=True)
class Part:
    """What the suite must know about a service to run it.

    Attributes:
        name: Short name, as in MILLRACE_<NAME>_PORT.
        command: The module to run, with its arguments.
        host: Address that it listens on.
        port: Port that it listens on.
        grace_s: How long it may drain after SIGTERM.
        tls: Whether it speaks TLS only.
        environ: Variables that it gets where the parent's environment does not set them.
    """

    name: str
    command: tuple[str, ...]
    host: str
    port: int
    grace_s: float
    tls: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """host:port, with brackets round an IPv6 host and loopback for a wildcard."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def host_variable(self) -> str:
        """The variable that moves the service to another address."""
        return f"MILLRACE_{self.name.upper()}_HOST"

    @property
    def port_variable(self) -> str:
        """The variable that moves the service to another port."""
        return f"MILLRACE_{self.name.upper()}_PORT"


def log_path(part: Part, log_dir: Path | None) -> Path:
    """Returns where a service's log goes: a file of its own, or our standard output."""
    return Path("/dev/stdout") if log_dir is None else log_dir / f"{part.name}.log"


def hold(log: IO[bytes]) -> None:
    """Keeps a log file from other suites for as long as it is open, here or in a child that was given it.

    Raises:
        BlockingIOError: Another suite writes it.
        OSError: The file system knows no locks.
    """
    fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Child:
    """A started service."""

    def __init__(self, part: Part, process: asyncio.subprocess.Process, log: Path, log_begin: int = 0) -> None:
        """`log_begin`: Bytes in its log that are not its own."""
        self.part = part
        self.log = log
        self._log_begin = log_begin
        self.exited = asyncio.create_task(process.wait(), name=f"exit of {part.name}")
        self._process = process

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    @classmethod
    async def start(
        cls, part: Part, log_dir: Path | None, environ: Mapping[str, str] = os.environ, *, is_again: bool = False
    ) -> Child:
        """Starts the service in an environment or the parent's own.

        Its log file, in a folder that exists, is a fresh one; one that is started again goes on with the one it has.
        """
        log = log_path(part, log_dir)
        with nullcontext() if log_dir is None else log.open("ab" if is_again else "wb") as output:
            log_begin = output.tell() if output else 0
            if output:
                with suppress(OSError):  # a file system without locks
                    hold(output)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cli.leash", str(os.getpid()), *part.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env={**part.environ, **environ},
                start_new_session=True,
            )
        return cls(part, process, log, log_begin)

    async def stop(self) -> int:
        """Lets the service drain, kills it when its grace is over, and returns its exit code."""
        self._signal(signal.SIGTERM)
        # The service keeps to its own grace; the second on top is for closing files and flushing telemetry.
        done, _ = await asyncio.wait([self.exited], timeout=self.part.grace_s + 1.0)
        if not done:
            self.kill()
        return await self.exited

    def kill(self) -> None:
        """Ends the service at once."""
        self._signal(signal.SIGKILL)

    def tail(self, line_count: int) -> list[str]:
        """Returns its last lines in the log, as they are; none where that is no file."""
        if not self.log.is_file():
            return []
        with self.log.open("rb") as file:
            size = self.log.stat().st_size
            begin = self._log_begin if self._log_begin <= size else 0  # somebody may have emptied it
            file.seek(max(begin, size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-line_count:]

    def last_message(self) -> str:
        """Returns what the service logged last, in words; empty where it has not spoken."""
        lines = self.tail(1)
        return message_of(lines[0]) if lines else ""

    def _signal(self, number: signal.Signals) -> None:
        if not self.exited.done():
            self._process.send_signal(number)


def message_of(line: str) -> str:
    """Returns the message of a JSON log line, or the line itself where it is not one."""
    return str(_record(line).get("message", line)).strip()


def readable(line: str) -> list[str]:
    """Returns a JSON log line as people read it: the message, with the traceback below where there is one."""
    return [message_of(line), *str(_record(line).get("error", "")).splitlines()]


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
