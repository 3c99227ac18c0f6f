"""The stand of a measurement: Millrace's own processes on free ports, a fast upstream and a load driver.

Everything is started fresh, on loopback, and stopped at the end. The upstream and the driver (bench/native) are
compiled when they are first used; only that needs gcc.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "bench" / "native"
START_S = 60.0

MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}/v1"}}
models:
  - name: "fake*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
defaults:
  cache: {{enabled: {cache}}}
  safety: {{profile: "{profile}"}}
"""


def compiled(name: str, folder: Path) -> str:
    """The binary of a C program of bench/native."""
    binary = folder / name
    subprocess.run(["gcc", "-O2", "-w", "-o", binary, NATIVE / f"{name}.c", "-lm"], check=True)
    return str(binary)


@dataclass(frozen=True)
class Suite:
    """Where a running Millrace is.

    Attributes:
        url: The edge.
        inference: Address of the inference service.
        pids: Process ids by service.
    """

    url: str
    inference: str
    pids: dict[str, int]

    def rss_mb(self) -> dict[str, float]:
        """Resident memory of each process, from Linux's /proc."""
        return {name: _rss_mb(pid) for name, pid in self.pids.items()}

    def file_counts(self) -> dict[str, int]:
        """Open files and sockets of each process."""
        return {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in self.pids.items()}


class Stand:
    """What runs during one measurement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    @cached_property
    def upstream_url(self) -> str:
        """The fast upstream itself, for the direct runs; started with the first use."""
        port = free_port()
        self.start([compiled("fakeup", self.folder), str(port)], {})
        return f"http://127.0.0.1:{port}"

    @cached_property
    def _driver(self) -> str:
        return compiled("ld", self.folder)

    def start(self, command: list[str], variables: dict[str, str]) -> int:
        """Starts a process and returns its id; its output goes to a file of its own."""
        log = (self.folder / f"{len(self._processes)}.log").open("wb")
        environment = {**os.environ, **variables}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=ROOT)
        self._processes.append(process)
        return process.pid

    def millrace(
        self,
        models: str = "",
        policies: bool = False,
        cache: Mapping[str, str] | None = None,
        each: Mapping[str, str] | None = None,
        edge: Mapping[str, str] | None = None,
    ) -> Suite:
        """Starts edge and inference, with cache and safety where policies are on.

        Args:
            models: The models file; without one every `fake...` model is at the fast upstream.
            policies: Whether requests are screened and cached.
            cache: More settings of the cache service.
            each: More settings of every service.
            edge: More settings of the edge.
        """
        names = ["cache", "safety", "inference", "edge"] if policies else ["inference", "edge"]
        address = {name: f"127.0.0.1:{free_port()}" for name in names}
        profile, cached = ("default", "true") if policies else ("off", "false")
        models_file = self.folder / f"models-{len(self._processes)}.yaml"
        models_file.write_text(models or MODELS.format(url=self.upstream_url, profile=profile, cache=cached))
        variables = {
            "edge": {"INFERENCE_TARGET": address["inference"], **(edge or {})},
            "inference": {
                "MODELS_FILE": str(models_file),
                "DATABASE_URL": f"sqlite+aiosqlite:///{self.folder}/millrace.sqlite3",
                "LEDGER_FOLDER": str(self.folder / "ledger"),
                "ACCESS_PEPPER_PATH": str(self.folder / "pepper"),
                "CACHE_TARGET": address.get("cache", "none"),
                "SAFETY_TARGET": address.get("safety", "none"),
            },
            "cache": {"PATH": str(self.folder / "cache.sqlite3"), **(cache or {})},
            "safety": {},
        }
        ports = {name: address[name].rpartition(":")[2] for name in names}
        pids = {name: self._service(name, ports[name], {**(each or {}), **variables[name]}) for name in names}
        url = f"http://{address['edge']}"
        _wait(f"{url}/readyz")
        return Suite(url, address["inference"], pids)

    def _service(self, name: str, port: str, variables: dict[str, str]) -> int:
        prefix = f"MILLRACE_{name.upper()}_"
        settings = {"PORT": port, "LOG_LEVEL": "warning", **variables}
        command = [sys.executable, "-m", f"services.{name}"]
        return self.start(command, {prefix + key: value for key, value in settings.items()})

    def load(
        self, url: str, model: str, *arguments: str, stream: bool = False, pids: Iterable[int] = ()
    ) -> dict[str, Any]:
        """Runs the load driver once and returns what it measured."""
        body = self.folder / f"{model}-{stream}.json"
        body.write_text(json.dumps(chat_body(model, stream)))
        command = [self._driver, "-u", f"{url}/v1/chat/completions", "-b", str(body), *arguments]
        command += ["-s"] if stream else []
        followed = ",".join(map(str, pids))
        command += ["-p", followed] if followed else []
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # type: ignore[no-any-return]

    def stop(self, pids: Iterable[int] = ()) -> None:
        """Stops these processes, or all."""
        wanted = set(pids)
        chosen = [one for one in reversed(self._processes) if not wanted or one.pid in wanted]
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


def _rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


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
