"""The four services as four real processes, for stories that cross them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from bench.ports import free_ports
from tests.flow.upstream import Upstream

READY_S = 60.0
NAMES = ("cache", "safety", "inference", "edge")

MODELS = """
version: 1
upstreams:
  fake: {{base_url: "{url}"}}
models:
  - name: "fake*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
  - name: "open-*"
    targets: [{{engine: openai, upstream: fake, model: "*"}}]
    safety: {{profile: default, on_unavailable: open}}
    cache: {{enabled: false}}
"""


class Suite:
    """Starts, kills and restarts the services; each process's output is kept in a file."""

    def __init__(self, folder: Path, models: str, variables: dict[str, str]) -> None:
        self.folder = folder
        self.ports = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        self.processes: dict[str, Process] = {}
        (folder / "models.yaml").write_text(models)
        self.variables = {
            **{f"MILLRACE_{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
            "MILLRACE_EDGE_INFERENCE_TARGET": self.address("inference"),
            "MILLRACE_INFERENCE_CACHE_TARGET": self.address("cache"),
            "MILLRACE_INFERENCE_SAFETY_TARGET": self.address("safety"),
            "MILLRACE_INFERENCE_MODELS_FILE": str(folder / "models.yaml"),
            "MILLRACE_CACHE_PATH": str(folder / "cache.sqlite3"),
            "MILLRACE_INFERENCE_CACHE_LOOKUP_TIMEOUT_MS": "2000",  # what is kept is found, however busy the machine
            "MILLRACE_INFERENCE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/millrace.sqlite3",
            "MILLRACE_INFERENCE_LEDGER_FOLDER": str(folder / "ledger"),
            "MILLRACE_INFERENCE_ACCESS_PEPPER_PATH": str(folder / "pepper"),
            **variables,
        }

    @property
    def url(self) -> str:
        """The edge."""
        return f"http://127.0.0.1:{self.ports['edge']}"

    def address(self, name: str) -> str:
        """A service's address."""
        return f"127.0.0.1:{self.ports[name]}"

    async def start(self, *names: str) -> None:
        """Starts these services, or all, and waits until the edge is ready and all that runs is up."""
        for name in names or NAMES:
            log = (self.folder / f"{name}.log").open("ab")
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"services.{name}", stdin=DEVNULL, stdout=log, stderr=STDOUT,
                env={**os.environ, **self.variables},
            )  # fmt: skip
        await self.until(lambda health: health["status"] == "ok")

    async def until(self, wanted: object) -> None:
        """Waits for what /health/detailed says."""
        assert callable(wanted)
        async with httpx.AsyncClient() as client:
            try:
                async with asyncio.timeout(READY_S):
                    while not await self._says(client, wanted):
                        ended = [name for name, process in self.processes.items() if process.returncode is not None]
                        assert not ended, f"{ended} ended\n{self.logs()}"
                        await asyncio.sleep(0.05)
            except TimeoutError:
                raise AssertionError(self.logs()) from None

    async def _says(self, client: httpx.AsyncClient, wanted: object) -> bool:
        assert callable(wanted)
        try:
            answer = await client.get(f"{self.url}/health/detailed", timeout=5)
            return bool(wanted(answer.json()))
        except httpx.HTTPError:
            return False

    async def kill(self, name: str) -> None:
        """Kills a service as the kernel would."""
        await self.signal(name, signal.SIGKILL)
        await self.processes.pop(name).wait()

    async def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal."""
        self.processes[name].send_signal(number)

    async def stop(self) -> None:
        """Stops everything, callers first."""
        for name in reversed(NAMES):
            if process := self.processes.pop(name, None):
                if process.returncode is None:
                    process.kill()
                await process.wait()

    def logs(self) -> str:
        """What the services said, for a test that fails."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream() -> AsyncIterator[Upstream]:
    """An OpenAI-compatible upstream on a real socket."""
    fake = Upstream()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture(scope="module")
def models() -> str:
    """The models file, with a place for the upstream's URL; modules replace it."""
    return MODELS


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """More settings for the suite; modules replace it."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def suite(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, models: str, variables: dict[str, str]
) -> AsyncIterator[Suite]:
    """The whole suite, ready; started once for a module, whose tests leave it as they found it."""
    made = Suite(tmp_path_factory.mktemp("suite"), models.format(url=upstream.url), variables)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
