"""How soon an upstream learns that a caller has gone, and whether anything of the call stays behind.

    python -m bench.disconnect [--trials 200] [--load 0] [--p99-ms 100] [--json FILE]

Each trial asks, waits until the upstream is in the phase to be tested, hangs up at a moment drawn by the seed, and
times from there to the upstream seeing its connection closed. Over the edge hanging up closes the TCP connection; over
gRPC it cancels the call. Phases: before the first token (nothing was answered yet), mid-stream (a token each 5 ms),
stalled (some tokens, then silence). A whole call hears nothing in any of them: there they are the upstream's state.
`--load` holds so many other streams open meanwhile, each with a token each 5 ms.

It exits 1 if a 99th percentile is above the bar, a trial failed, or anything was left over.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.callers import Caller, Heard, callers
from bench.figures import quantile, rounded
from bench.leaks import Leaks, settled
from bench.stand import Suite, stand
from bench.upstream import Exchange, Upstream

PHASES = ("before the first token", "mid-stream", "stalled")
GAP_S = 0.005
JITTER_S = 0.02
TRIAL_S = 10.0
LOAD_TIMEOUT_S = 540.0
TIMEOUT_S = 60.0  # the caller's own deadline; so far away that only hanging up can end a call
WARM_UP = 3
MODELS = """
version: 1
upstreams:
  slow: {{base_url: "{url}"}}
models:
  - name: bench
    targets: [{{engine: openai, upstream: slow}}]
defaults:
  cache: {{enabled: false}}
  safety: {{profile: "off"}}
  deadlines: {{ttft_s: 60, inter_token_s: 60}}
"""


class Phases:
    """The upstream: the question says in which phase it stays."""

    def __init__(self) -> None:
        self._arrived: asyncio.Queue[Exchange] = asyncio.Queue()

    async def script(self, exchange: Exchange) -> None:
        """Goes into the phase and stays there until the connection is closed."""
        if exchange.question == PHASES[0]:
            self._arrived.put_nowait(exchange)
            await exchange.hung_up
        exchange.head()
        for number in range(3):
            exchange.token(f" {number}")
        if exchange.question in PHASES:
            self._arrived.put_nowait(exchange)
        while exchange.question != "stalled":
            await asyncio.sleep(GAP_S)
            exchange.token(" more")
        await exchange.hung_up

    async def next(self) -> Exchange:
        """The next request, in its phase."""
        return await self._arrived.get()


async def hang_up(caller: Caller, phase: str, phases: Phases, jitter_s: float) -> float:
    """Runs one trial; returns the milliseconds from hanging up to the upstream's closed connection.

    Raises:
        TimeoutError: The request did not arrive, or its connection stayed open.
        RuntimeError: The call ended by itself.
    """
    heard = Heard()
    asking = asyncio.create_task(caller.ask(phase, heard, TIMEOUT_S))
    try:
        async with asyncio.timeout(TRIAL_S):
            exchange = await phases.next()
            if caller.streamed and phase != PHASES[0]:
                await heard.begun.wait()
            await asyncio.sleep(jitter_s)
            if asking.done() or exchange.hung_up.done():
                raise RuntimeError(f"the call ended by itself: {heard.error or heard.broken}")
            left = time.monotonic()
            asking.cancel()
            closed: float = await asyncio.shield(exchange.hung_up)
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    return (closed - left) * 1000


async def measure(trials: int, load: int, seed: int) -> dict[str, Any]:
    """Runs every case against a Millrace of its own; returns the figures."""
    phases, chance = Phases(), random.Random(seed)
    async with Upstream(phases.script) as upstream:
        with stand() as made:
            suite = made.millrace(MODELS.format(url=upstream.url))
            await _case_of_each(suite, phases, WARM_UP, chance)
            await settled(suite, [upstream])
            before = suite.file_counts()
            async with _loaded(suite, load):
                rows = await _case_of_each(suite, phases, trials, chance)
            leaks = await settled(suite, [upstream], before)
    return {"trials": trials, "load": load, "seed": seed, "cases": rows, "leaks": asdict(leaks)}


async def _case_of_each(suite: Suite, phases: Phases, trials: int, chance: random.Random) -> list[dict[str, Any]]:
    async with callers(suite.url, suite.inference) as all_callers:
        return [
            _row(caller.name, phase, [await _trial(caller, phase, phases, chance) for _ in range(trials)])
            for caller in all_callers
            for phase in PHASES
        ]


@asynccontextmanager
async def _loaded(suite: Suite, count: int) -> AsyncIterator[None]:
    """Holds streams open, over the edge and over gRPC in turn; ends them by hanging up."""
    async with callers(suite.url, suite.inference) as all_callers:
        streamed = [caller for caller in all_callers if caller.streamed]
        every_heard = [Heard() for _ in range(count)]
        asking = [
            asyncio.create_task(streamed[number % len(streamed)].ask("load", heard, LOAD_TIMEOUT_S))
            for number, heard in enumerate(every_heard)
        ]
        await asyncio.gather(*(heard.begun.wait() for heard in every_heard))
        yield
        for one in asking:
            one.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def _trial(caller: Caller, phase: str, phases: Phases, chance: random.Random) -> float | str:
    try:
        return await hang_up(caller, phase, phases, chance.uniform(0, JITTER_S))
    except (TimeoutError, RuntimeError) as error:
        return repr(error)


def _row(caller: str, phase: str, outcomes: list[float | str]) -> dict[str, Any]:
    times_ms = [one for one in outcomes if isinstance(one, float)]
    failed = [one for one in outcomes if isinstance(one, str)]
    shares = {"p50_ms": 0.5, "p99_ms": 0.99, "max_ms": 1.0}
    figures = {name: rounded(quantile(times_ms, share)) for name, share in shares.items()}
    return {"caller": caller, "phase": phase, "trials": len(outcomes), **figures, "failed": failed}


def failures(figures: dict[str, Any], p99_ms_max: float) -> list[str]:
    """Which bars were missed."""
    missed = []
    for row in figures["cases"]:
        if row["failed"] or row["p99_ms"] > p99_ms_max:
            missed.append(
                f"{row['caller']}, {row['phase']}: p99 {row['p99_ms']} ms, failed {sorted(set(row['failed']))}"
            )
    return missed + Leaks(**figures["leaks"]).told()


def _print(figures: dict[str, Any]) -> None:
    print(f"{'caller':<16} {'phase':<24} {'trials':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for row in figures["cases"]:
        times = "".join(f" {row[name]!s:>8}" for name in ("p50_ms", "p99_ms", "max_ms"))
        print(f"{row['caller']:<16} {row['phase']:<24} {row['trials']:>7}{times}")
    print(f"left over: {figures['leaks']}")


def main() -> None:
    """Measures, prints, and exits 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--load", type=int, default=0)
    parser.add_argument("--p99-ms", type=float, default=100.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = asyncio.run(measure(options.trials, options.load, options.seed))
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if missed := failures(figures, options.p99_ms):
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
