"""A fleet of replicas as a measurement runs them, and callers who notice what becomes of their requests.

Real processes, each on an address of its own, found by a name server: what a cluster has. Callers ask over the edges
and over gRPC, streamed and whole, at a steady rate, each question once; an answer takes half a second. Over the edges
they do as a load balancer does: only edges whose /readyz says 200, asked five times a second.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.request
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.callers import FULL_NAME, MODEL, Caller, EdgeCaller, GrpcCaller, Heard
from bench.names import Names
from bench.network import Machine
from bench.ports import free_port
from bench.upstream import Exchange
from kit.dial import dial
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

PIECES = ["one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten"]
GAP_S = 0.05
COUNTS = {"safety": 2, "cache": 2, "inference": 3, "edge": 2}
READY_S = 120.0
CALL_S = 20.0
PROBE_S = 0.2
WARM_S = 5.0  # of load before anything is counted
# As in deploy/kubernetes.
SERVE = {"grace_s": 10, "announce_s": 0.5, "max_connection_age_s": 8, "max_connection_age_grace_s": 600}
# A model whose answers need a judgement, and one whose answers go on without where safety is away.
MODELS = """
version: 1
upstreams: {{up: {{base_url: "{url}"}}}}
models:
  - {{name: bench, targets: [{{engine: openai, upstream: up}}]}}
  - {{name: open, targets: [{{engine: openai, upstream: up}}], safety: {{profile: default, on_unavailable: open}}}}
defaults: {{cache: {{enabled: true}}, safety: {{profile: default}}}}
"""


async def script(exchange: Exchange) -> None:
    """Streams ten pieces in half a second."""
    exchange.head()
    for piece in PIECES:
        exchange.token(piece)
        await asyncio.sleep(GAP_S)
    exchange.finish(len(PIECES))
    exchange.done()


class Replica:
    """One process of a service, on an address of its own."""

    def __init__(
        self, folder: Path, service: str, number: int, machine: Machine, port: int, variables: Mapping[str, object]
    ) -> None:
        self.service, self.machine, self.host, self.port = service, machine, machine.host, port
        self._log = folder / f"{service}-{number}.log"
        self.metrics_port = free_port()
        named = {**variables, "host": self.host, "port": port, "log_level": "warning"}
        if service == "inference":
            named |= {"ledger_folder": folder / f"ledger-{number}", "metrics_port": self.metrics_port}
        prefix = f"MILLRACE_{service.upper()}_"
        self._environ = {prefix + name.upper(): str(value) for name, value in named.items()}
        self._process: Process | None = None
        self.ready = False

    async def start(self) -> None:
        """Starts it and waits until it says that it serves."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self.machine.enter, sys.executable, "-m", f"services.{self.service}"),
                env={**os.environ, **self._environ},
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
            )
        async with asyncio.timeout(READY_S):
            while not await self.probe():  # noqa: ASYNC110 - another process is watched
                await asyncio.sleep(PROBE_S)

    async def probe(self) -> bool:
        """Asks it as a cluster does: gRPC health, or the edge's /readyz."""
        if self.service == "edge":
            self.ready = await asyncio.to_thread(_answers_200, f"http://{self.host}:{self.port}/readyz")
            return self.ready
        async with grpc.aio.insecure_channel(f"{self.host}:{self.port}") as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                return False
        self.ready = answer.status == health_pb2.HealthCheckResponse.SERVING
        return self.ready

    async def end(self, number: signal.Signals) -> float:
        """Sends it a signal and returns the seconds until it was gone."""
        assert self._process
        started = time.monotonic()
        with suppress(ProcessLookupError):
            self._process.send_signal(number)
        await self._process.wait()
        return time.monotonic() - started

    def call_count(self) -> float:
        """Generations that an inference has been asked for."""
        page = urllib.request.urlopen(f"http://{self.host}:{self.metrics_port}/metrics", timeout=2).read().decode()
        lines = [one for one in page.splitlines() if one.startswith("rpc_server_call_duration_seconds_count")]
        return sum(float(one.rpartition(" ")[2]) for one in lines if "Generate" in one)


def _answers_200(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1):
            return True
    except OSError:
        return False


def loopback() -> Callable[[], Machine]:
    """Makes machines that are none: addresses of this one."""
    numbers = count(1)
    return lambda: Machine(f"127.0.1.{next(numbers)}")


class Fleet:
    """All replicas, the names that they are found by, and what each service is told.

    Args:
        folder: Where logs and what replicas keep go.
        names: Told of every replica.
        upstream_url: What answers.
        redis_url: For cache and limits.
        database_url: For keys and the ledger.
        machine: Makes a place for one more replica.
    """

    def __init__(
        self,
        folder: Path,
        names: Names,
        upstream_url: str,
        redis_url: str,
        database_url: str,
        machine: Callable[[], Machine],
    ) -> None:
        (folder / "models.yaml").write_text(MODELS.format(url=upstream_url))
        self.names, self._folder, self._numbers, self._machine = names, folder, count(1), machine
        self.ports = {service: free_port() for service in COUNTS}
        targets = {service: names.target(f"{service}.test", port) for service, port in self.ports.items()}
        self.inference_target = targets["inference"]
        self._variables: dict[str, dict[str, object]] = {
            "safety": {**SERVE},
            "cache": {**SERVE, "store": "redis", "redis_url": redis_url},
            "inference": {
                **SERVE,
                "models_file": folder / "models.yaml",
                "cache_target": targets["cache"],
                "safety_target": targets["safety"],
                "quotas_store": "redis",
                "quotas_redis_url": redis_url,
                "database_url": database_url,
                "database_migrate": "true",
                "access_pepper_path": folder / "pepper",
            },
            "edge": {"grace_s": 10, "drain_delay_s": 1, "inference_target": targets["inference"]},
        }
        self.replicas: dict[str, list[Replica]] = {service: [] for service in COUNTS}
        self._edges = cycle(range(1_000_000))

    async def fill(self) -> None:
        """Starts as many replicas of each service as a measurement has."""
        for service, wanted in COUNTS.items():
            await asyncio.gather(*(self.add(service) for _ in range(wanted)))

    def hosts(self, *services: str) -> list[str]:
        """Where the replicas of services are."""
        return [one.host for service in services for one in self.replicas[service]]

    async def add(self, service: str) -> Replica:
        """Starts one more replica; callers may find it as soon as it serves."""
        number, port = next(self._numbers), self.ports[service]
        made = Replica(self._folder, service, number, self._machine(), port, self._variables[service])
        await made.start()
        self.replicas[service].append(made)
        self._publish(service)
        return made

    def remove(self, replica: Replica) -> None:
        """Takes a replica out of the names."""
        self.replicas[replica.service].remove(replica)
        self._publish(replica.service)

    def edge_url(self) -> str:
        """The next edge that says it is ready, in turn."""
        ready = [one for one in self.replicas["edge"] if one.ready]
        chosen = ready[next(self._edges) % len(ready)]
        return f"http://{chosen.host}:{chosen.port}"

    async def stop(self) -> None:
        """Ends all that runs."""
        for replica in [one for some in self.replicas.values() for one in some]:
            await replica.end(signal.SIGKILL)

    def _publish(self, service: str) -> None:
        self.names.addresses[f"{service}.test"] = [one.host for one in self.replicas[service]]


@dataclass
class Noticed:
    """What callers noticed of the requests that were asked in one span of time.

    Attributes:
        asked: How many there were.
        failed: Those that failed before a piece of the answer had come, by reason.
        cut: Those that failed after.
        retried: Of the failed, those that a second try answered.
        lasted_s: How long each took, the second try left out.
    """

    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    lasted_s: list[float] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set, repr=False)

    async def settled(self) -> Noticed:
        """Waits until all of them are answered."""
        await asyncio.gather(*self.tasks)
        return self

    @property
    def longest_s(self) -> float:
        """The longest request."""
        return max(self.lasted_s, default=0.0)

    @property
    def p95_ms(self) -> float:
        """The 95th percentile of how long they took, in milliseconds."""
        return 1000 * sorted(self.lasted_s)[int(0.95 * len(self.lasted_s))] if self.lasted_s else 0.0


class Load:
    """Callers that ask at a steady rate, each question once."""

    def __init__(self, fleet: Fleet, rate: float, session: aiohttp.ClientSession, channel: grpc.aio.Channel) -> None:
        self._fleet, self._rate, self._session = fleet, rate, session
        self._stub: Any = InferenceServiceStub(channel)
        self.model = MODEL
        self.noticed = Noticed()

    async def run(self) -> None:
        """Asks until it is cancelled."""
        started = time.monotonic()
        for number in count():
            await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))
            self.noticed.tasks.add(asyncio.create_task(self._ask(number, self.noticed)))

    async def probe(self) -> None:
        """Asks the edges whether they are ready, as a load balancer does."""
        while True:
            for edge in list(self._fleet.replicas["edge"]):
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with self._session.get(f"http://{edge.host}:{edge.port}/readyz") as answer:
                        edge.ready = answer.status == 200
                    continue
                edge.ready = False
            await asyncio.sleep(PROBE_S)

    def turn(self) -> Noticed:
        """Begins a new span of time; returns what was noticed in the one that ends, which may still be unanswered."""
        noticed, self.noticed = self.noticed, Noticed()
        return noticed

    def _caller(self, number: int) -> Caller:
        streamed = number % 2 == 0
        if number % 4 < 2:
            return EdgeCaller(self._session, self._fleet.edge_url(), streamed, self.model)
        return GrpcCaller(self._stub, streamed, self.model)

    async def _ask(self, number: int, noticed: Noticed) -> None:
        started, heard = time.monotonic(), Heard()
        await self._caller(number).ask(f"question {number}", heard, CALL_S)
        noticed.asked += 1
        noticed.lasted_s.append(time.monotonic() - started)
        if heard.finished and heard.text == "".join(PIECES):
            return
        reason = heard.error or heard.broken.partition("(")[0] or "SHORT"
        if heard.begun.is_set():
            noticed.cut[reason] += 1
            return
        noticed.failed[reason] += 1
        again = Heard()
        await self._caller(number).ask(f"question {number}", again, CALL_S)
        noticed.retried += again.finished


@asynccontextmanager
async def loaded(fleet: Fleet, rate: float) -> AsyncIterator[Load]:
    """Asks a fleet so many times a second; what was asked in the first seconds is not counted."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session,
        dial(fleet.inference_target, service=FULL_NAME) as channel,
    ):
        load = Load(fleet, rate, session, channel)
        running = [asyncio.create_task(load.run()), asyncio.create_task(load.probe())]
        try:
            await asyncio.sleep(WARM_S)
            await load.turn().settled()
            yield load
        finally:
            for task in running:
                task.cancel()
            await load.turn().settled()
