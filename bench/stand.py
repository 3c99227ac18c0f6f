"""The stand of a measurement: a fast upstream, a load driver, and Millrace's own processes on free ports.

Everything is started fresh, on loopback, and stopped at the end. Needs gcc for the upstream and the driver
(bench/native).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "bench" / "native"
START_S = 60.0

MODELS_OFF = """
version: 1
upstreams:
  fake: {{base_url: "http://127.0.0.1:{port}/v1"}}
models:
  - name: "fake*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
defaults:
  cache: {{enabled: {cache}}}
  safety: {{profile: "{profile}"}}
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def compiled(name: str, folder: Path) -> str:
    """The binary of a C program of bench/native."""
    binary = folder / name
    subprocess.run(["gcc", "-O2", "-w", "-o", binary, NATIVE / f"{name}.c", "-lm"], check=True)
    return str(binary)


class Stand:
    """What runs during one measurement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.upstream_port = free_port()
        self._driver = compiled("ld", folder)
        self.start([compiled("fakeup", folder), str(self.upstream_port)], {})

    def start(self, command: list[str], variables: dict[str, str]) -> int:
        """Starts a process and returns its id; its output goes to a file of its own."""
        log = (self.folder / f"{len(self._processes)}.log").open("wb")
        environment = {**os.environ, **variables}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        self._processes.append(process)
        return process.pid

    def millrace(self, policies: bool) -> tuple[str, list[int]]:
        """Starts edge and inference, with cache and safety where policies are on; returns the URL and process ids."""
        ports = {name: free_port() for name in ("edge", "inference", "cache", "safety")}
        models = self.folder / f"models-{policies}.yaml"
        profile, cache = ("default", "true") if policies else ("off", "false")
        models.write_text(MODELS_OFF.format(port=self.upstream_port, profile=profile, cache=cache))
        target = {name: f"127.0.0.1:{ports[name]}" if policies else "none" for name in ("cache", "safety")}
        variables = {
            "edge": {"INFERENCE_TARGET": f"127.0.0.1:{ports['inference']}"},
            "inference": {
                "MODELS_FILE": str(models), "CACHE_TARGET": target["cache"], "SAFETY_TARGET": target["safety"],
            },
            "cache": {"PATH": str(self.folder / "cache.sqlite3")},
            "safety": {},
        }  # fmt: skip
        names = ["cache", "safety", "inference", "edge"] if policies else ["inference", "edge"]
        pids = [self._service(name, ports[name], variables[name]) for name in names]
        url = f"http://127.0.0.1:{ports['edge']}"
        _wait(f"{url}/readyz")
        return url, pids

    def _service(self, name: str, port: int, variables: dict[str, str]) -> int:
        prefix = f"MILLRACE_{name.upper()}_"
        settings = {"PORT": str(port), "LOG_LEVEL": "warning", **variables}
        command = [sys.executable, "-m", f"services.{name}"]
        return self.start(command, {prefix + key: value for key, value in settings.items()})

    def load(
        self, url: str, model: str, *arguments: str, stream: bool = False, pids: Sequence[int] = ()
    ) -> dict[str, Any]:
        """Runs the load driver once and returns what it measured."""
        body = self.folder / f"{model}-{stream}.json"
        body.write_text(json.dumps(chat_body(model, stream)))
        command = [self._driver, "-u", f"{url}/v1/chat/completions", "-b", str(body), *arguments]
        command += ["-s"] if stream else []
        command += ["-p", ",".join(map(str, pids))] if pids else []
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]

    @property
    def upstream_url(self) -> str:
        """The upstream itself, for the direct runs."""
        return f"http://127.0.0.1:{self.upstream_port}"

    def stop(self, *pids: int) -> None:
        """Stops these processes, or all."""
        chosen = [one for one in reversed(self._processes) if not pids or one.pid in pids]
        for process in chosen:
            process.send_signal(signal.SIGTERM)
        for process in chosen:
            process.wait(timeout=30)
            self._processes.remove(process)


@contextmanager
def stand() -> Iterator[Stand]:
    """A stand in a folder of its own; many connections need many file descriptors."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        made = Stand(Path(folder))
        try:
            yield made
        finally:
            made.stop()


def chat_body(model: str, stream: bool) -> dict[str, Any]:
    """A request of about 120 tokens, as chat applications send them."""
    notes = (
        "the cache service was moved to the new cluster on Tuesday, two nodes were replaced, and latency went down. "
    )
    messages = [
        {"role": "system", "content": "You are a helpful assistant that answers in short, plain sentences."},
        {"role": "user", "content": "Summarise the following notes for a status mail: " + notes * 4},
    ]
    return {"model": model, "messages": messages, "max_tokens": 256, **({"stream": True} if stream else {})}


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"{url} did not answer 200 within {START_S:.0f} s")
