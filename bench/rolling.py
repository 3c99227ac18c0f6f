"""What callers notice while replicas come and go: restarts one by one, kills, a replica that is new.

    python -m bench.rolling [--rate 20] [--settle 3] [--json FILE]

Real processes on loopback addresses of their own, found by a name server: two edges, three inference, two cache on one
Redis, two safety. Callers ask over the edges and over gRPC, streamed and whole, at a steady rate; an answer takes half
a second. Over the edges they do as a load balancer does: only edges whose /readyz says 200, asked five times a second.

Then every service is restarted one replica after the other, each with a replacement first, as a cluster does it; one
replica of each is killed by SIGKILL; and one more inference is added. It exits 1 where a restart failed a request or
cut a stream, a request that a kill failed could not be repeated, or the new replica waited longer than ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections import Counter
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.cache_stand import Redis, free_port
from bench.callers import FULL_NAME, Caller, EdgeCaller, GrpcCaller, Heard
from bench.names import Names
from bench.upstream import Exchange, Upstream
from kit.dial import dial
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

PIECES = ["one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten"]
GAP_S = 0.05
COUNTS = {"safety": 2, "cache": 2, "inference": 3, "edge": 2}
READY_S = 120.0
CALL_S = 20.0
NEW_REPLICA_S = 10.0
PROBE_S = 0.2
# As in deploy/kubernetes.
SERVE = {"grace_s": 10, "announce_s": 0.5, "max_connection_age_s": 8, "max_connection_age_grace_s": 600}
MODELS = """
version: 1
upstreams: {{up: {{base_url: "{url}"}}}}
models: [{{name: bench, targets: [{{engine: openai, upstream: up}}]}}]
defaults: {{cache: {{enabled: true}}, safety: {{profile: "default"}}}}
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

    def __init__(self, folder: Path, service: str, number: int, port: int, variables: dict[str, object]) -> None:
        self.service, self.host, self.port = service, f"127.0.1.{number}", port
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
                *(sys.executable, "-m", f"services.{self.service}"),
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


class Fleet:
    """All replicas, the names that they are found by, and what each service is told."""

    def __init__(self, folder: Path, names: Names, upstream_url: str, redis_url: str) -> None:
        (folder / "models.yaml").write_text(MODELS.format(url=upstream_url))
        self.names, self._folder, self._numbers = names, folder, count(1)
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
                "database_url": f"sqlite+aiosqlite:///{folder}/millrace.sqlite3",
                "access_pepper_path": folder / "pepper",
            },
            "edge": {"grace_s": 10, "drain_delay_s": 1, "inference_target": targets["inference"]},
        }
        self.replicas: dict[str, list[Replica]] = {service: [] for service in COUNTS}
        self._edges = cycle(range(1_000_000))

    async def add(self, service: str) -> Replica:
        """Starts one more replica; callers may find it as soon as it serves."""
        made = Replica(self._folder, service, next(self._numbers), self.ports[service], self._variables[service])
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
    """What callers noticed during one step.

    Attributes:
        asked: Requests that ended in it.
        failed: Those that failed before a piece of the answer had come, by reason.
        cut: Those that failed after.
        retried: Of the failed, those that a second try answered.
        longest_s: The longest request.
    """

    asked: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    longest_s: float = 0.0


class Load:
    """Callers that ask at a steady rate, each question once."""

    def __init__(self, fleet: Fleet, rate: float, session: aiohttp.ClientSession, channel: grpc.aio.Channel) -> None:
        self._fleet, self._rate, self._session = fleet, rate, session
        self._stub: Any = InferenceServiceStub(channel)
        self._tasks: set[asyncio.Task[None]] = set()
        self.noticed = Noticed()

    async def run(self) -> None:
        """Asks until it is cancelled."""
        started = time.monotonic()
        for number in count():
            await asyncio.sleep(max(0.0, started + number / self._rate - time.monotonic()))
            task = asyncio.create_task(self._ask(number))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

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

    async def settled(self, seconds: float) -> Noticed:
        """Waits until what was asked so far and within so many seconds is answered; returns what was noticed."""
        await asyncio.sleep(seconds)
        await asyncio.gather(*list(self._tasks))
        noticed, self.noticed = self.noticed, Noticed()
        return noticed

    def _caller(self, number: int) -> Caller:
        streamed = number % 2 == 0
        if number % 4 < 2:
            return EdgeCaller(self._session, self._fleet.edge_url(), streamed)
        return GrpcCaller(self._stub, streamed)

    async def _ask(self, number: int) -> None:
        started, heard = time.monotonic(), Heard()
        await self._caller(number).ask(f"question {number}", heard, CALL_S)
        noticed = self.noticed
        noticed.asked += 1
        noticed.longest_s = max(noticed.longest_s, time.monotonic() - started)
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


async def restart(fleet: Fleet, service: str) -> float:
    """Replaces every replica of a service, one after the other; returns the longest drain in seconds."""
    longest_s = 0.0
    for old in list(fleet.replicas[service]):
        await fleet.add(service)
        fleet.remove(old)
        longest_s = max(longest_s, await old.end(signal.SIGTERM))
    return longest_s


async def kill(fleet: Fleet, service: str) -> None:
    """Kills one replica, leaves its address in the names as a crash does, and starts another after a second."""
    victim = fleet.replicas[service][0]
    await victim.end(signal.SIGKILL)
    await asyncio.sleep(1)
    fleet.remove(victim)
    await fleet.add(service)


async def first_call_s(fleet: Fleet) -> float:
    """Seconds from an inference's being in the names to the first call that it gets."""
    added = await fleet.add("inference")
    started = time.monotonic()
    async with asyncio.timeout(4 * NEW_REPLICA_S):
        while not await asyncio.to_thread(added.call_count):  # noqa: ASYNC110 - another process is watched
            await asyncio.sleep(0.1)
    return time.monotonic() - started


async def measure(rate: float, settle_s: float) -> list[dict[str, Any]]:
    """Runs every step under load and returns what was noticed in each."""
    rows: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="millrace-rolling-")))
        names = await stack.enter_async_context(Names())
        upstream = await stack.enter_async_context(Upstream(script))
        redis = Redis(folder)
        stack.push_async_callback(redis.kill)
        await redis.start()
        fleet = Fleet(folder, names, upstream.url, redis.url)
        stack.push_async_callback(fleet.stop)
        for service, wanted in COUNTS.items():
            await asyncio.gather(*(fleet.add(service) for _ in range(wanted)))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), read_bufsize=2**20)
        )
        channel = await stack.enter_async_context(dial(fleet.inference_target, service=FULL_NAME))
        load = Load(fleet, rate, session, channel)
        running = [asyncio.create_task(load.run()), asyncio.create_task(load.probe())]
        for task in running:
            stack.callback(task.cancel)
        await load.settled(settle_s)

        async def step(name: str, **told: float) -> None:
            noticed = await load.settled(settle_s)
            row = {"step": name, "asked": noticed.asked, "failed": dict(noticed.failed), "cut": dict(noticed.cut)}
            rows.append({**row, "retried": noticed.retried, "longest_s": round(noticed.longest_s, 2), **told})
            print(json.dumps(rows[-1]), flush=True)

        await step("nothing")
        for service in COUNTS:
            drain_s = await restart(fleet, service)
            await step(f"restart {service}", drain_s=round(drain_s, 2))
        for service in COUNTS:
            await kill(fleet, service)
            await step(f"kill {service}")
        waited_s = await first_call_s(fleet)
        await step("new inference", first_call_s=round(waited_s, 2))
        for task in running:
            task.cancel()
        await load.settled(0)
    return rows


def is_good(row: dict[str, Any]) -> bool:
    """Whether a step kept what is promised."""
    if row["step"].startswith("kill "):
        return bool(row["retried"] == sum(row["failed"].values()))
    return not row["failed"] and not row["cut"] and row.get("first_call_s", 0) <= NEW_REPLICA_S


def main() -> int:
    """Measures, prints and judges."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds of load after each step")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = asyncio.run(measure(args.rate, args.settle))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))
    return 0 if all(is_good(row) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
