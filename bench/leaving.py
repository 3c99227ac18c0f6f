"""Whether what callers leave behind is settled by what was really made for them, at whichever moment they leave.

    python -m bench.leaving [--trials 500] [--seed 1] [--json FILE]

Callers over the edge and over gRPC, streamed and eight at a time, hang up at moments drawn by the seed. Of the upstream
half of them leave while tokens come (one each 2 ms), half when some have come and no more do. The ledger's count must
lie between what the caller had heard and what the upstream had sent, and be exact where nothing was under way. The
embedded model's own count of the tokens that it drew must be the sum of the ledger's. Each request must have one row.
It exits 1 where one of that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from sqlalchemy import select

from bench.ports import free_port
from bench.stand import Stand, Suite, stand
from bench.upstream import Exchange, Upstream
from kit.dial import dial
from kit.names import LOCAL_COMPLETION_TOKENS
from millrace.inference.v1 import generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from services.inference.database.database import Database
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger import tables

AT_ONCE = 8
TOKENS_MAX, GAP_S = 120, 0.002
STAY_S = {"upstream": 0.3, "local": 0.4}
STILL_S = 0.05  # after which nothing is under way on loopback
SETTLE_S = 20.0
MODELS = """
version: 1
upstreams: {{slow: {{base_url: "{url}"}}}}
models:
  - {{name: upstream, targets: [{{engine: openai, upstream: slow}}]}}
  - {{name: local, targets: [{{engine: local, model: embedded}}]}}
defaults: {{cache: {{enabled: false}}, safety: {{profile: "off"}}}}
"""
Ask = Callable[[str, str], Coroutine[Any, Any, None]]


class Trials:
    """What was asked, sent and heard, by request id."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self.stalls: dict[str, int] = {}
        self.stalled: dict[str, asyncio.Event] = {}

    async def script(self, exchange: Exchange) -> None:
        """Sends tokens until its client is gone; some answers stall after a few."""
        id = exchange.question
        exchange.head()
        while self.sent[id] < self.stalls.get(id, TOKENS_MAX) and not exchange.hung_up.done():
            exchange.token(f" {self.sent[id]}")
            self.sent[id] += 1
            await asyncio.sleep(GAP_S)
        if id in self.stalled:
            self.stalled[id].set()
        await exchange.hung_up

    async def over_edge(self, session: aiohttp.ClientSession, url: str, model: str, id: str) -> None:
        """Asks as a browser does."""
        body = {"model": model, "messages": [{"role": "user", "content": id}], "stream": True, "max_tokens": TOKENS_MAX}
        async with session.post(f"{url}/v1/chat/completions", json=body, headers={"X-Request-Id": id}) as answer:
            async for line in answer.content:
                self.heard[id] += len(re.findall(rb'"content":" \d+"', line))

    async def over_grpc(self, stub: Any, model: str, id: str) -> None:
        """Asks as a service does."""
        parts = [generation_pb2.ContentPart(text=id)]
        conversation = generation_pb2.Conversation(
            messages=[generation_pb2.Message(role=generation_pb2.ROLE_USER, parts=parts)]
        )
        sampling = generation_pb2.SamplingParams(max_tokens=TOKENS_MAX)
        spec = generation_pb2.GenerationSpec(model=model, conversation=conversation, sampling=sampling)
        call = stub.StreamGenerate(pb.StreamGenerateRequest(request_id=id, spec=spec))
        try:
            async for response in call:
                self.heard[id] += response.delta.text.count(" ")
        finally:
            call.cancel()

    async def leave(self, asks: list[Ask], model: str, id: str, chance: random.Random) -> None:
        """Asks, and hangs up at some moment."""
        stay_s = chance.uniform(0, STAY_S[model])
        if model == "upstream" and chance.random() < 0.5:
            self.stalls[id], self.stalled[id] = chance.randrange(1, TOKENS_MAX // 2), asyncio.Event()
        asking: asyncio.Task[None] = asyncio.create_task(chance.choice(asks)(model, id))
        if id in self.stalled:
            await self.stalled[id].wait()
            stay_s = STILL_S
        await asyncio.wait([asking], timeout=stay_s)
        asking.cancel()
        with suppress(asyncio.CancelledError, aiohttp.ClientError):
            await asking


async def measure(trials: int, seed: int) -> dict[str, Any]:
    """Runs both kinds; returns the figures."""
    metrics_port = free_port()
    os.environ["MILLRACE_INFERENCE_METRICS_PORT"] = str(metrics_port)
    every = Trials()
    async with Upstream(every.script) as upstream:
        with stand() as made:
            suite = made.millrace(MODELS.format(url=upstream.url))
            asked = {kind: await _run(every, suite, kind, trials, random.Random(seed)) for kind in STAY_S}
            rows = await _rows(made, sum(map(len, asked.values())))
            drawn = _drawn(metrics_port)
    return {**_upstream_figures(every, rows, asked["upstream"]), **_local_figures(rows, asked["local"], drawn)}


async def _run(trials: Trials, suite: Suite, model: str, count: int, chance: random.Random) -> list[str]:
    ids, slots = [f"{model}-{number:05}" for number in range(count)], asyncio.Semaphore(AT_ONCE)
    channel = dial(suite.inference)
    async with channel, aiohttp.ClientSession() as session:
        stub = InferenceServiceStub(channel)
        asks: list[Any] = [
            lambda model, id: trials.over_edge(session, suite.url, model, id),
            lambda model, id: trials.over_grpc(stub, model, id),
        ]

        async def one(id: str) -> None:
            async with slots:
                await trials.leave(asks, model, id, random.Random(f"{chance.getstate()[1][0]}{id}"))

        await asyncio.gather(*map(one, ids))
    return ids


async def _rows(made: Stand, count: int) -> dict[str, Any]:
    """Every row of the ledger by request id, as soon as nothing more comes; those that never began have none."""
    database = Database(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{made.folder}/millrace.sqlite3")))
    before, give_up_at = -1, time.monotonic() + SETTLE_S
    while True:
        async with database.reading() as connection:
            rows = (await connection.execute(select(tables.requests))).all()
        if len(rows) in (count, before) or time.monotonic() > give_up_at:
            break
        before = len(rows)
        await asyncio.sleep(3)
    await database.close()
    assert len({row.request_id for row in rows}) == len(rows), "a request has two rows"
    return {row.request_id: row for row in rows}


def _drawn(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    return int(sum(float(one) for one in re.findall(rf"^{LOCAL_COMPLETION_TOKENS}{{.*}} (\S+)$", text, re.MULTILINE)))


def _upstream_figures(trials: Trials, rows: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    begun = [id for id in ids if trials.sent[id]]
    count = {id: rows[id].completion_token_count if id in rows else 0 for id in begun}
    still = [id for id in begun if id in trials.stalls]
    in_flow = [id for id in begun if id not in trials.stalls]
    return {
        "upstream_left": len(ids),
        "upstream_begun": len(begun),
        "still_exact": sum(count[id] == trials.sent[id] for id in still),
        "still_wrong": sum(count[id] != trials.sent[id] for id in still),
        "in_flow_exact": sum(count[id] == trials.sent[id] for id in in_flow),
        "in_flow_under_way_max": max((trials.sent[id] - count[id] for id in in_flow), default=0),
        "in_flow_wrong": sum(not trials.heard[id] <= count[id] <= trials.sent[id] for id in in_flow),
        "not_said_to_be_counted": sum(rows[id].usage_source != "counted" for id in begun if count[id]),
    }


def _local_figures(rows: dict[str, Any], ids: list[str], drawn: int) -> dict[str, Any]:
    mine = [rows[id] for id in ids if id in rows]
    return {
        "local_left": len(ids),
        "local_cancelled": sum(row.outcome == "cancelled" for row in mine),
        "local_tokens_drawn": drawn,
        "local_tokens_off_by": drawn - sum(row.completion_token_count or 0 for row in mine),
    }


def main() -> None:
    """Measures, prints, and exits 1 where a count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.trials, options.seed))
    for name, value in figures.items():
        print(f"{name:<24} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    wrong = ("still_wrong", "in_flow_wrong", "not_said_to_be_counted", "local_tokens_off_by")
    if any(figures[name] for name in wrong):
        raise SystemExit("wrong: " + ", ".join(name for name in wrong if figures[name]))


if __name__ == "__main__":
    main()
