"""Whether limits hold: many callers at once over several replicas on one Redis, callers that leave, replicas that die.

    python -m bench.limits [--calls 1000] [--replicas 3] [--losses 200] [--hold-s 5] [--seed 1] [--json FILE]

Everything is started fresh on loopback; it needs redis-server. The upstream streams slowly and tells what it used.

- rate: so many calls at once against a burst of a fifth of them; exactly that many may be let in.
- budget: callers spend a day's tokens until everyone is refused. At no moment may more be reserved and spent than the
  budget, and in the end Redis must have counted exactly what the receipts say.
- loss: streams whose callers leave at random moments, while replicas are killed -9 (each tenth loss) and started again.
  When the hold is over nothing may be left in Redis that is held: no claim, no slot, no reservation.
- away: Redis is frozen under load. Every call must be answered, and the 95th percentile may be 100 ms later than before
  (the slowest are told, too: on a busy machine they are those of the machine).

Exits with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from redis.asyncio import Redis as RedisClient

from bench.cache_stand import Redis
from bench.ports import free_port
from bench.upstream import Exchange, Upstream
from kit.dial import dial
from kit.identity import CallContext, new_request_id, use
from millrace.inference.v1 import generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

READY_S = 60.0
CALL_S = 60.0
PIECE_COUNT, PIECE_S = 10, 0.02
# A prompt of 12 tokens as they are estimated (8 of text, 4 of its message), 7 as the upstream tells.
PROMPT, RESERVED, USED = "x" * 32, 12 + 88, 7 + PIECE_COUNT
ANSWER_TOKENS = 88
BUDGET_CALLS = 100
REDIS_TIMEOUT_S, PATIENT_S = 0.08, 2.0
MODELS = """
version: 1
upstreams: {{slow: {{base_url: "{url}"}}}}
models: [{{name: slow, targets: [{{engine: openai, upstream: slow}}]}}]
defaults: {{cache: {{enabled: false}}, safety: {{profile: "off"}}}}
"""
# A minute gives one back: in less than a minute no more than the burst fits, and a call or two.
QUOTAS = """
version: 1
tiers:
  crowd: {{user: {{requests_per_minute: 1, requests_burst: {burst}}}}}
roles: {{anonymous: crowd}}
tenants:
  rate: {{}}
  budget: {{tokens_per_day: {budget}}}
  loss: {{concurrent_requests: 100000, tokens_per_month: 1000000000}}
named: {{away: {{client: {{requests_per_minute: 1000000, concurrent_requests: 100000}}}}}}
"""


class Replica:
    """One inference service; a stub for it outlives its restarts."""

    def __init__(self, folder: Path, number: int, variables: dict[str, object]) -> None:
        self.port, self._folder = free_port(), folder / f"replica{number}"
        self._folder.mkdir()
        prefix = "MILLRACE_INFERENCE_"
        settings = {"PORT": self.port, "LOG_LEVEL": "warning", **variables}
        self._variables = {prefix + name: str(value) for name, value in settings.items()}
        self._channel = dial(f"127.0.0.1:{self.port}")
        self.stub: Any = InferenceServiceStub(self._channel)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, and waits until it answers."""
        environment = {**os.environ, **self._variables, "PYTHONPATH": str(Path.cwd())}
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "services.inference"),
                cwd=self._folder,  # where its database is
                env=environment,
                stdout=log,
                stderr=log,
            )
        await self.stub.ListModels(pb.ListModelsRequest(), wait_for_ready=True, timeout=READY_S)

    async def kill(self) -> None:
        """Ends it as the kernel would."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def close(self) -> None:
        """Ends it, and hangs up."""
        await self._channel.close()
        await self.kill()


class Suite:
    """The replicas, their Redis, and how they are called."""

    def __init__(self, replicas: list[Replica], redis: Redis) -> None:
        self.replicas, self.redis = replicas, redis
        self.client = RedisClient.from_url(redis.url)

    async def call(self, number: int, tenant: str, principal: str = "anonymous", limit: str = "") -> None:
        """A whole answer from one of the replicas in turn."""
        with use(CallContext(new_request_id(), tenant, principal)):
            stub = self.replicas[number % len(self.replicas)].stub
            await stub.Generate(pb.GenerateRequest(spec=spec(limit)), timeout=CALL_S)

    async def refused(self, number: int, tenant: str, principal: str = "anonymous") -> bool:
        """Whether a call is refused by a limit; any other failure is raised."""
        try:
            await self.call(number, tenant, principal)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            return True
        return False

    async def counted(self, what: str) -> int:
        """What Redis has counted of the one limit of this name."""
        values = [await self.client.get(key) for key in await self.client.keys(f"millrace:quota:*:{what}")]
        return max((int(value.split()[0]) for value in values if value), default=0)

    async def settled(self) -> None:
        """Returns once no claim is open: ends are carried out behind the answers' backs."""
        async with asyncio.timeout(CALL_S):
            while await self.client.keys("*:claim:*"):  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.01)


def spec(limit: str = "") -> generation_pb2.GenerationSpec:
    """What every caller asks."""
    said = generation_pb2.Message(role="ROLE_USER", parts=[generation_pb2.ContentPart(text=PROMPT)])
    return generation_pb2.GenerationSpec(
        model="slow",
        conversation=generation_pb2.Conversation(messages=[said]),
        sampling=generation_pb2.SamplingParams(max_tokens=ANSWER_TOKENS),
        limit=limit,
    )


async def answer_slowly(exchange: Exchange) -> None:
    """Ten pieces, and what they took."""
    exchange.head()
    for number in range(PIECE_COUNT):
        exchange.token(f"{number} ")
        await asyncio.sleep(PIECE_S)
    exchange.finish(PIECE_COUNT)
    exchange.done()


async def rate(suite: Suite, calls: int, burst: int) -> dict[str, Any]:
    """All at once against a burst."""
    began = time.monotonic()
    refused = await asyncio.gather(*(suite.refused(number, "rate", "alice") for number in range(calls)))
    took_s = time.monotonic() - began
    let_in, back = refused.count(False), int(took_s / 60)
    ok = 0 <= let_in - burst <= back
    return {"calls": calls, "let_in": let_in, "limit": burst, "took_s": round(took_s, 1), "ok": ok}


async def budget(suite: Suite, budget_tokens: int) -> dict[str, Any]:
    """Callers spend until everyone is refused, while somebody looks at what Redis has counted."""
    let_in, most = 0, 0

    async def spend(number: int) -> None:
        nonlocal let_in
        while not await suite.refused(number, "budget"):
            let_in += 1

    async def look() -> None:
        nonlocal most
        while True:
            most = max(most, await suite.counted("tokens_per_day"))
            await asyncio.sleep(0.005)

    looking = asyncio.create_task(look())
    await asyncio.gather(*(spend(number) for number in range(64)))
    await suite.settled()
    looking.cancel()
    counted = await suite.counted("tokens_per_day")
    return {
        "budget": budget_tokens,
        "most_reserved_and_spent": most,
        "spent": let_in * USED,
        "counted": counted,
        "ok": most <= budget_tokens and counted == let_in * USED and counted > budget_tokens - 64 * RESERVED,
    }


async def loss(suite: Suite, losses: int, draw: random.Random, hold_s: float) -> dict[str, Any]:
    """Callers leave and replicas die; then nothing may be held."""
    killed = left = orphaned = 0

    async def leave(number: int) -> None:
        with use(CallContext(new_request_id(), "loss")):
            stub = suite.replicas[number % len(suite.replicas)].stub
            call = stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec()), timeout=CALL_S, wait_for_ready=True)
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError, TimeoutError):
                async with asyncio.timeout(draw.uniform(0, 2 * PIECE_COUNT * PIECE_S)):
                    async for _ in call:
                        pass
            call.cancel()

    leaving: set[asyncio.Task[None]] = set()
    for number in range(losses):
        leaving |= {asyncio.create_task(leave(draw.randrange(1_000))) for _ in range(3)}
        await asyncio.sleep(draw.uniform(0, PIECE_S))
        if number % 10 == 9:
            victim = draw.choice(suite.replicas)
            await victim.kill()
            orphaned += len(await suite.client.keys("*:claim:*"))
            await victim.start()
            killed += 1
        else:
            left += 1
    await asyncio.gather(*leaving)
    return {"killed": killed, "left": left, "open_at_kills": orphaned, **await _held_after(suite, hold_s)}


async def _held_after(suite: Suite, hold_s: float) -> dict[str, Any]:
    """What is still held when the hold is over, and whoever tends it had the time of two rounds."""
    # Each replica knows the tenant again by a call.
    await asyncio.gather(*(suite.call(number, "loss") for number in range(len(suite.replicas))))
    await asyncio.sleep(hold_s * 1.6)
    claims = await suite.client.keys("*:claim:*")
    now_s, now_us = await suite.client.time()
    now_ms = now_s * 1000 + now_us // 1000
    slots = [key for key in await suite.client.keys("*:tenant*") if await suite.client.type(key) == b"zset"]
    slots += await suite.client.keys("*concurrent_requests")
    held = sum([await suite.client.zcount(key, now_ms, "+inf") for key in set(slots)])
    open_count = sum([await suite.client.zcard(key) for key in await suite.client.keys("*:open")])
    endless = [key for key in await suite.client.keys("millrace:quota:*") if await suite.client.pttl(key) < 0]
    ok = not claims and not held and not open_count and not endless
    return {"claims": len(claims), "slots": held, "open": open_count, "ok": ok}


async def away(suite: Suite, calls: int, more_ms_max: float) -> dict[str, Any]:
    """Redis freezes under load: how long the calls take before, meanwhile and after."""

    async def waits(count: int) -> list[float]:
        async def timed(number: int) -> float:
            began = time.monotonic()
            await suite.call(number, "away", limit="away")
            return time.monotonic() - began

        slow: list[float] = []
        for at in range(0, count, 16):
            slow += await asyncio.gather(*(timed(number) for number in range(at, at + 16)))
        return slow

    before = await waits(calls)
    suite.redis.freeze()
    meanwhile = await waits(calls)
    suite.redis.thaw()
    await asyncio.sleep(2)
    after = await waits(calls)
    p95 = {name: _p95_ms(waits) for name, waits in (("before", before), ("frozen", meanwhile), ("after", after))}
    return {
        "p95_ms": p95,
        "slowest_ms": [round(max(waits) * 1000) for waits in (before, meanwhile, after)],
        "ok": p95["frozen"] - p95["before"] <= more_ms_max,
    }


def _p95_ms(waits: list[float]) -> int:
    return round(sorted(waits)[int(0.95 * len(waits))] * 1000)


@asynccontextmanager
async def suites(folder: Path, options: argparse.Namespace, redis_timeout_s: float) -> AsyncIterator[Suite]:
    """Starts everything, and ends it."""
    burst, budget_tokens = options.calls // 5, BUDGET_CALLS * RESERVED
    folder.mkdir()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream(answer_slowly))
        redis = Redis(folder)
        await redis.start()
        stack.push_async_callback(redis.kill)
        (folder / "models.yaml").write_text(MODELS.format(url=upstream.url))
        (folder / "quotas.yaml").write_text(QUOTAS.format(burst=burst, budget=budget_tokens))
        variables: dict[str, object] = {
            "MODELS_FILE": folder / "models.yaml",
            "QUOTAS_FILE": folder / "quotas.yaml",
            "QUOTAS_STORE": "redis",
            "QUOTAS_REDIS_URL": redis.url,
            "QUOTAS_REDIS_TIMEOUT_S": redis_timeout_s,
            "QUOTAS_HOLD_S": options.hold_s,
            "CACHE_TARGET": "none",
            "SAFETY_TARGET": "none",
        }
        replicas = [Replica(folder, number, variables) for number in range(options.replicas)]
        for replica in replicas:
            stack.push_async_callback(replica.close)
        await asyncio.gather(*(replica.start() for replica in replicas))
        suite = Suite(replicas, redis)
        stack.push_async_callback(suite.client.aclose)
        yield suite


async def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Runs all four; what must be exact is not to be disturbed by a busy machine on which Redis is late."""
    figures: dict[str, Any] = {}

    def note(name: str, told: dict[str, Any]) -> None:
        figures[name] = told
        print(f"{name:>8}  {told}", flush=True)

    async with suites(folder / "exact", options, PATIENT_S) as suite:
        note("rate", await rate(suite, options.calls, options.calls // 5))
        note("budget", await budget(suite, BUDGET_CALLS * RESERVED))
        note("loss", await loss(suite, options.losses, random.Random(options.seed), options.hold_s))
    async with suites(folder / "away", options, REDIS_TIMEOUT_S) as suite:
        note("away", await away(suite, max(16, options.calls // 5), options.more_ms))
    return figures


def main() -> None:
    """Runs, prints, and writes the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--losses", type=int, default=200)
    parser.add_argument("--hold-s", type=float, default=5)
    parser.add_argument("--more-ms", type=float, default=100, help="most that a call may take longer without Redis")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-limits-") as folder:
        figures = asyncio.run(run(options, Path(folder)))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    raise SystemExit(0 if all(one["ok"] for one in figures.values()) else 1)


if __name__ == "__main__":
    main()
