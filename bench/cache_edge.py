"""What the cache does for a caller of the edge: hits against a slow upstream, and requests while Redis is frozen.

    python -m bench.cache_edge [--questions 50] [--json FILE]

The whole suite as processes, entries in a real Redis. First: questions that an upstream takes 500 ms to answer, then
the same again from the cache; bar: 30 times faster. Then Redis is stopped where it stands (SIGSTOP), and questions go
to an upstream that answers at once, one by one: the first of them may wait for Redis, those behind the open
breaker not at all. Last, Redis goes on, and answers are found again.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.cache_stand import Redis
from bench.figures import quantile, rounded
from bench.stand import Suite, chat_body, stand

SLOW, FAST = "fake-l500", "fake"
UPSTREAM_MS = 500
SPEED_UP_MIN = 30
RECOVERY_S = 20


@dataclass(frozen=True)
class Figures:
    """What was measured; times in milliseconds, `frozen_first_ms` in order."""

    miss_p50_ms: float | None
    hit_p50_ms: float | None
    hit_p99_ms: float | None
    speed_up: float
    well_p50_ms: float | None
    frozen_first_ms: list[float | None]
    frozen_max_ms: float | None
    frozen_later_p50_ms: float | None
    frozen_later_p99_ms: float | None
    outcomes: list[str]
    recovered_s: float


class Caller:
    """One connection to the edge."""

    def __init__(self, suite: Suite) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(suite.url).netloc, timeout=30)

    def ask(self, question: str, model: str) -> tuple[float, str]:
        """How long an answer took, in milliseconds, and what the cache had to do with it."""
        body = chat_body(model, stream=False)
        body["messages"][-1]["content"] += question
        start = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        answer.read()
        took_ms = (time.perf_counter() - start) * 1000
        if answer.status != 200:
            raise SystemExit(f"the edge answered {answer.status}")
        return took_ms, answer.getheader("x-millrace-cache", "")

    def ask_all(self, questions: Iterable[str], model: str, outcome: str) -> list[float]:
        """How long the answers took that came in a way; on a busy machine a few come in another."""
        answers = [self.ask(question, model) for question in questions]
        times = [took_ms for took_ms, came in answers if came == outcome]
        if len(times) < len(answers) / 2:
            raise SystemExit(f"most answers should be {outcome}: {[came for _, came in answers]}")
        return times


async def measure(folder: Path, question_count: int) -> Figures:
    """Runs it all."""
    redis = Redis(folder)
    await redis.start()
    try:
        with stand() as here:
            suite = here.millrace(policies=True, cache={"STORE": "redis", "REDIS_URL": redis.url})
            caller = Caller(suite)
            caller.ask("warm up", FAST)
            names = [f"question {number}" for number in range(question_count)]
            misses = caller.ask_all(names, SLOW, "miss")
            hits = caller.ask_all(names * 4, SLOW, "exact")
            well = caller.ask_all(names, FAST, "miss")
            redis.freeze()
            frozen = [caller.ask(f"frozen {number}", FAST) for number in range(4 * question_count)]
            redis.thaw()
            recovered_s = until_found(caller, names[0])
    finally:
        redis.thaw()
        await redis.kill()
    times = [took_ms for took_ms, _ in frozen]
    first, later = times[:5], times[5:]
    return Figures(
        rounded(quantile(misses, 0.5)),
        rounded(quantile(hits, 0.5)),
        rounded(quantile(hits, 0.99)),
        round((quantile(misses, 0.5) or 0.0) / (quantile(hits, 0.5) or 1.0), 1),
        rounded(quantile(well, 0.5)),
        [rounded(took_ms) for took_ms in first],
        rounded(max(times)),
        rounded(quantile(later, 0.5)),
        rounded(quantile(later, 0.99)),
        sorted({outcome for _, outcome in frozen}),
        round(recovered_s, 2),
    )


def until_found(caller: Caller, question: str) -> float:
    """Seconds until a question that was answered before the freeze is found again."""
    start = time.monotonic()
    while caller.ask(question, SLOW)[1] != "exact":
        if time.monotonic() - start > RECOVERY_S:
            raise SystemExit(f"nothing is found {RECOVERY_S} s after Redis went on")
    return time.monotonic() - start


def main() -> None:
    """Measures, prints and checks the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=50)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), arguments.questions))
    for name, value in asdict(figures).items():
        print(f"{name:24}{value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(figures), indent=1))
    if figures.speed_up < SPEED_UP_MIN:
        raise SystemExit(f"a hit must be {SPEED_UP_MIN} times faster than {UPSTREAM_MS} ms")


if __name__ == "__main__":
    main()
