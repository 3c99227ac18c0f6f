"""A real redis-server of one's own, to fill, freeze, kill and start again."""

import queue
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from bench.ports import free_port

START_DEADLINE_S = 20


class RedisServer:
    """A real redis-server on a free port, that keeps nothing on the disk."""

    def __init__(self, folder: Path, *, cluster: bool = False, port: int | None = None) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
        self.port = port or free_port()
        options = ["--port", str(self.port), "--dir", str(folder), "--save", "", "--appendonly", "no"]
        if cluster:
            options += ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
        self._process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, text=True)
        _await_line(self._process, "Ready to accept connections")
        if cluster:
            self.command("cluster", "addslotsrange", "0", "16383")
            _await_line(self._process, "Cluster state changed: ok")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> None:
        """Runs a command and waits for it."""
        command = ["redis-cli", "-p", str(self.port), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=START_DEADLINE_S)

    def freeze(self) -> None:
        """Stops the process where it stands: connections stay open, nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.thaw()
        self._process.kill()
        self._process.wait()


def _await_line(process: subprocess.Popen[str], text: str) -> None:
    """Reads what a process prints until a line holds a text."""
    lines: queue.Queue[str] = queue.Queue()
    assert process.stdout is not None
    stdout = process.stdout

    def read() -> None:
        for line in stdout:
            lines.put(line)
            if text in line:
                return
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + START_DEADLINE_S
    while text not in (line := lines.get(timeout=deadline - time.monotonic())):
        assert line, "redis-server ended before it was ready"
