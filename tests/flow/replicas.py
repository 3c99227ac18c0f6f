"""Replicas of inference and of the cache as processes, on one Redis or one cache service, with an edge before them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from bench.cache_stand import CacheProcess, Redis
from bench.ports import free_port
from kit.dial import dial
from millrace.inference.v1.inference_service_pb2 import ListModelsRequest
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

READY_S = 60.0
INFERENCE = "millrace.inference.v1.InferenceService"


class ServiceProcess:
    """One service, killed as the kernel would; its output is kept in a file."""

    def __init__(self, folder: Path, service: str, name: str, **settings: object) -> None:
        self.port, self._service, self._log = free_port(), service, folder / f"{name}.log"
        settings = {"port": self.port, "log_level": "warning", **settings}
        prefix = f"MILLRACE_{service.upper()}_"
        self._variables = {prefix + field.upper(): str(value) for field, value in settings.items()}
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it; whoever asks it waits until it is ready."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", f"services.{self._service}"),
                env={**os.environ, **self._variables},
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
            )

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        """Ends it; harmless when it has ended."""
        if self._process is not None and self.is_up:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


class Replicas:
    """So many inference services, each over all of so many caches; one cache has its own store, more share a Redis."""

    def __init__(self, folder: Path, models: str, inference_count: int = 3, cache_count: int = 3) -> None:
        (folder / "models.yaml").write_text(models)
        self._folder, self._stack = folder, AsyncExitStack()
        self.redis = Redis(folder) if cache_count > 1 else None
        shared: dict[str, object] = {}
        if self.redis is not None:
            shared = {"store": "redis", "redis_url": self.redis.url, "redis_read_timeout_s": 5}
        self.caches = [CacheProcess(folder, f"cache{number}", **shared) for number in range(cache_count)]
        dialled = {
            "cache_target": "ipv4:" + ",".join(f"127.0.0.1:{cache.port}" for cache in self.caches),
            "safety_target": "none",
            "models_file": folder / "models.yaml",
            "database_url": f"sqlite+aiosqlite:///{folder}/millrace.sqlite3",
            "ledger_folder": folder / "ledger",
            "access_pepper_path": folder / "pepper",
            "cache_lookup_timeout_ms": 10_000,  # 500 callers and nine processes share two cores
        }
        numbers = range(inference_count)
        self.inferences = [ServiceProcess(folder, "inference", f"inference{number}", **dialled) for number in numbers]
        target = "ipv4:" + ",".join(one.address for one in self.inferences)
        self.edge = ServiceProcess(folder, "edge", "edge", inference_target=target)
        self.stubs: list[Any] = []

    @property
    def url(self) -> str:
        """The edge."""
        return f"http://{self.edge.address}"

    async def start(self) -> None:
        """Starts everything but the edge, and waits until every inference service answers."""
        if self.redis is not None:
            self._stack.push_async_callback(self.redis.kill)
            await self.redis.start()
        for cache in self.caches:
            self._stack.push_async_callback(cache.stop)
        await asyncio.gather(*(cache.start() for cache in self.caches))
        for one in (*self.inferences, self.edge):
            self._stack.push_async_callback(one.kill)
        await asyncio.gather(*(one.start() for one in self.inferences))
        for one in self.inferences:
            channel = dial(one.address, service=INFERENCE)
            self._stack.push_async_callback(channel.close)
            self.stubs.append(InferenceServiceStub(channel))
        await self.mend()

    async def start_edge(self) -> None:
        """Starts the edge, and waits until it is ready."""
        await self.edge.start()
        async with asyncio.timeout(READY_S), aiohttp.ClientSession(self.url) as http:
            while True:
                try:
                    async with http.get("/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.05)

    async def mend(self) -> None:
        """Starts again what was killed, and waits until every inference service answers."""
        for cache in self.caches:
            if not cache.is_up:
                await cache.start()
        for one in self.inferences:
            if not one.is_up:
                await one.start()
        asked = (stub.ListModels(ListModelsRequest(), wait_for_ready=True, timeout=READY_S) for stub in self.stubs)
        await asyncio.gather(*asked)

    async def stop(self) -> None:
        """Ends everything."""
        await self._stack.aclose()

    def logs(self) -> str:
        """What the services said, for a test that fails."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted(self._folder.glob("*.log")))
