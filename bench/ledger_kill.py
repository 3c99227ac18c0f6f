"""Whether the ledger keeps its word through kills and cancels: each attempt that a caller was told of has one row.

    python -m bench.ledger_kill [--kills 200] [--callers 20] [--url postgresql+asyncpg://...] [--seed 1] [--json FILE]

An inference process serves streams to many callers, some of whom leave; at a random moment it is killed with SIGKILL
and started anew, so many times. At last every request and every attempt that a caller was told of is looked for in the
database: it must be there exactly once, as `ok` where the caller was told that the answer is complete, and nothing must
be there that nobody asked for. The sums by the hour must be those of the rows. It exits 1 where that is not so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from pydantic import SecretStr
from sqlalchemy import func, select

from bench.ports import free_port
from bench.upstream import Exchange, Upstream
from kit.dial import dial
from millrace.inference.v1 import generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from services.inference.database.database import Database
from services.inference.database.migrating import upgrade
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger import tables

START_S = 120.0
LIFE_S = 0.6  # of a process, once it serves, at most
LEAVE_SHARE = 0.2
MODELS = """
version: 1
upstreams:
  up: {{base_url: "{url}"}}
models: [{{name: gpt, targets: [{{engine: openai, upstream: up, price: {{prompt: 1, completion: 1}}}}]}}]
defaults: {{cache: {{enabled: false}}, safety: {{profile: "off"}}}}
"""


@dataclass
class Told:
    """What callers were told, by request id."""

    asked: set[str] = field(default_factory=set)
    attempts: set[tuple[str, int]] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)


class Killed:
    """One inference service that is killed and started again on the same port, ledger and database."""

    def __init__(self, folder: Path, upstream: str, url: str) -> None:
        (folder / "models.yaml").write_text(MODELS.format(url=upstream))
        self.port, self._log = free_port(), folder / "inference.log"
        settings = {
            "PORT": self.port,
            "LOG_LEVEL": "warning",
            "MODELS_FILE": folder / "models.yaml",
            "CACHE_TARGET": "none",
            "SAFETY_TARGET": "none",
            "DATABASE_URL": url,
            "LEDGER_FOLDER": folder / "ledger",
            "ACCESS_PEPPER_PATH": folder / "pepper",
        }
        self._variables = {f"MILLRACE_INFERENCE_{name}": str(value) for name, value in settings.items()}
        self._process: Process | None = None

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        with self._log.open("ab") as log:
            command = (sys.executable, "-m", "services.inference")
            self._process = await asyncio.create_subprocess_exec(
                *command, env={**os.environ, **self._variables}, stdin=DEVNULL, stdout=log, stderr=log
            )
        async with dial(f"127.0.0.1:{self.port}") as channel:
            stub: Any = InferenceServiceStub(channel)
            until = time.monotonic() + START_S
            while True:
                with suppress(grpc.aio.AioRpcError):
                    await stub.ListModels(pb.ListModelsRequest(), timeout=1)
                    return
                if self._process.returncode is not None or time.monotonic() > until:
                    raise RuntimeError(self._log.read_text()[-2000:])
                await asyncio.sleep(0.02)

    async def end(self, number: signal.Signals) -> None:
        """Sends a signal and waits for the end."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()


async def talk(stub: Any, told: Told, draw: random.Random, prefix: str) -> None:
    """Asks again and again, until the service is gone."""
    with suppress(grpc.aio.AioRpcError):
        for number in range(1_000_000):
            await ask(stub, told, draw, f"{prefix}.{number}")


async def ask(stub: Any, told: Told, draw: random.Random, request_id: str) -> bool:
    """Asks once, and leaves now and then; whether the answer was told to its end."""
    said = generation_pb2.Message(role="ROLE_USER", parts=[generation_pb2.ContentPart(text="hi")])
    spec = generation_pb2.GenerationSpec(model="gpt", conversation=generation_pb2.Conversation(messages=[said]))
    told.asked.add(request_id)
    leave_after = draw.randrange(1, 12) if draw.random() < LEAVE_SHARE else 1_000
    call = stub.StreamGenerate(pb.StreamGenerateRequest(request_id=request_id, spec=spec), timeout=30)
    async for event in call:
        if event.HasField("attempt"):
            told.attempts.add((request_id, event.attempt.attempt.number))
        elif event.HasField("completed"):
            told.completed.add(request_id)
        if event.sequence >= leave_after:
            call.cancel()
            break
    return request_id in told.completed


async def script(exchange: Exchange) -> None:
    """Says eight tokens, a few milliseconds apart."""
    exchange.head()
    for number in range(8):
        exchange.token(f" {number}")
        await asyncio.sleep(0.004)
    exchange.finish(8)
    exchange.done()
    exchange.end()


async def run(kills: int, callers: int, url: str, seed: int) -> dict[str, Any]:
    """Kills so often, and returns what was found."""
    draw, told = random.Random(seed), Told()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = url or f"sqlite+aiosqlite:///{folder}/database.sqlite3"
        database = Database(DatabaseSettings(url=SecretStr(url)))
        await upgrade(database)
        async with Upstream(script) as upstream:
            service = Killed(folder, upstream.url, url)
            for number in range(kills):
                await service.start()
                async with dial(f"127.0.0.1:{service.port}") as channel:
                    stub = InferenceServiceStub(channel)
                    names = [f"{seed}.{number}.{caller}" for caller in range(callers)]
                    talking = [asyncio.create_task(talk(stub, told, draw, one)) for one in names]
                    await asyncio.sleep(draw.uniform(0, LIFE_S))
                    await service.end(signal.SIGKILL)
                    await asyncio.gather(*talking)
            await service.start()
            await _adopted(folder / "ledger")
            await service.end(signal.SIGTERM)
        found = await found_in(database, told)
        await database.close()
    return {"kills": kills, "requests_asked": len(told.asked), "attempts_told": len(told.attempts), **found}


async def _adopted(folder: Path) -> None:
    """Waits until only the living process has a folder."""
    until = time.monotonic() + START_S
    while len(list(folder.iterdir())) > 1:
        assert time.monotonic() < until, sorted(folder.iterdir())
        await asyncio.sleep(0.05)


async def found_in(database: Database, told: Told) -> dict[str, Any]:
    """Looks for what callers were told of."""
    requests, attempts = tables.requests.c, tables.attempts.c
    async with database.reading() as connection:
        rows = (await connection.execute(select(requests.id, requests.request_id, requests.outcome))).all()
        tried = (await connection.execute(select(attempts.id, attempts.number))).all()
        summed = (await connection.execute(select(func.sum(tables.usage.c.request_count)))).scalar()
    outcome = {row.request_id: row.outcome for row in rows}
    names = {row.id: row.request_id for row in rows}
    made = Counter((names.get(row.id, ""), row.number) for row in tried)
    return {
        "request_rows": len(rows),
        "attempt_rows": len(tried),
        "lost_rows": sum(row.outcome == "lost" for row in rows),
        "requests_doubled": len(rows) - len(outcome),
        "requests_unasked": len(outcome.keys() - told.asked),
        "attempts_missing": sum(made[one] == 0 for one in told.attempts),
        "attempts_doubled": sum(count > 1 for count in made.values()),
        "completed_told": len(told.completed),
        "completed_not_ok": sum(outcome.get(one) != "ok" for one in told.completed),
        "sums_off_by": int(summed or 0) - len(rows),
    }


def is_right(found: dict[str, Any]) -> bool:
    """Whether the ledger has kept its word."""
    wrong = ("requests_doubled", "requests_unasked", "attempts_missing", "attempts_doubled", "completed_not_ok")
    return not any(found[name] for name in (*wrong, "sums_off_by"))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--callers", type=int, default=20)
    parser.add_argument("--url", default="", help="the database; default: SQLite")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = asyncio.run(run(options.kills, options.callers, options.url, options.seed))
    for name, value in found.items():
        print(f"{name:<18} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    sys.exit(not is_right(found))


if __name__ == "__main__":
    main()
