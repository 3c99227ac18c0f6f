"""How much of a target's capacity is still used well when callers want one, two and four times as much.

    python -m bench.overload [--seconds 10] [--loads 1 2 4] [--goodput 0.8] [--unbounded] [--json FILE]

The upstream has 20 slots and takes 200 ms for an answer: 100 answers/s, its queue is without bound. The models file
gives the target as many slots and a wait of at most one second. Callers come at random (Poisson, drawn by the seed)
whether or not others are waiting, never come twice, and go away after two seconds. Over gRPC one in ten has a high
priority and one in ten a low one; the edge has no priorities.

Goodput counts the answers that came in time; a refusal is good if it says when to come back. Times count from the
moment at which a caller meant to ask. `--unbounded` leaves the target's queue rule out, for contrast. It exits 1 if
the goodput is below the bar at any load, a call failed otherwise, or the upstream met more than its slots can serve.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.callers import Caller, Heard, callers
from bench.figures import quantile, rounded
from bench.stand import stand
from bench.upstream import Exchange, Upstream

SLOTS = 20
LATENCY_S = 0.2
CAPACITY = SLOTS / LATENCY_S
LOADS = (1.0, 2.0, 4.0)
CALLERS = ("edge, streamed", "gRPC, whole")
PRIORITIES = (10, -10, *(0,) * 8)
TIMEOUT_S = 2.0
WARM_UP_S = 3.0  # until the queue is as long as it gets
REFUSED = "TARGET_FULL"
QUEUE = f"queue: {{running_count_max: {SLOTS}, queue_count_max: 1000, wait_s_max: 1}}"
MODELS = """
version: 1
upstreams:
  small: {{base_url: "{url}"}}
models:
  - name: bench
    targets: [{{engine: openai, upstream: small, {queue}}}]
defaults:
  cache: {{enabled: false}}
  safety: {{profile: "off"}}
"""


class Slots:
    """The upstream: so many answers at once, each of the same length; the others wait."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(SLOTS)
        self.count = self.count_max = 0

    async def script(self, exchange: Exchange) -> None:
        """Answers when a slot is free."""
        self.count += 1
        self.count_max = max(self.count, self.count_max)
        try:
            async with self._free:
                await asyncio.sleep(LATENCY_S)
                exchange.answer([exchange.question])
        finally:
            self.count -= 1


@dataclass
class Visit:
    """One call: when it was meant to begin, and what became of it."""

    start: float
    priority: int
    heard: Heard = field(default_factory=Heard)
    end: float = 0.0

    @property
    def duration_ms(self) -> float:
        """From the moment at which it was meant to begin."""
        return (self.end - self.start) * 1000


async def load(caller: Caller, factor: float, seconds: float, seed: int) -> list[Visit]:
    """Asks at `factor` times the capacity; returns every call that began or ended after the warm-up."""
    chance, start = random.Random(seed), time.monotonic()
    at, visits, asking = start, [], set()
    while (at := at + chance.expovariate(factor * CAPACITY)) < start + WARM_UP_S + seconds:
        visit = Visit(at, chance.choice(PRIORITIES))
        await asyncio.sleep(at - time.monotonic())
        visits.append(visit)
        asking.add(asyncio.create_task(_visit(caller, visit)))
    await asyncio.gather(*asking)
    return [visit for visit in visits if visit.start >= start + WARM_UP_S or visit.end >= start + WARM_UP_S]


async def _visit(caller: Caller, visit: Visit) -> None:
    await caller.ask("how are you?", visit.heard, TIMEOUT_S, visit.priority)
    visit.end = time.monotonic()


async def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs every load against a Millrace of its own; returns one row for each."""
    slots, seconds = Slots(), options.seconds
    queue = "" if options.unbounded else QUEUE
    rows = []
    async with Upstream(slots.script) as upstream:
        with stand() as made:
            suite = made.millrace(MODELS.format(url=upstream.url, queue=queue))
            async with callers(suite.url, suite.inference) as all_callers:
                for caller in (one for one in all_callers if one.name in options.callers):
                    for factor in options.loads:
                        slots.count_max = 0
                        visits = await load(caller, factor, seconds, options.seed)
                        rows.append(_row(caller.name, factor, seconds, visits) | {"upstream_max": slots.count_max})
                        print(_line(rows[-1]), flush=True)
    return rows


def _row(caller: str, factor: float, seconds: float, visits: list[Visit]) -> dict[str, Any]:
    last = max(visit.start for visit in visits)
    served = [visit for visit in visits if visit.heard.finished]
    refused = [visit for visit in visits if visit.heard.error == REFUSED]
    errors = Counter(visit.heard.error or visit.heard.broken for visit in visits if not visit.heard.finished)
    return {
        "caller": caller,
        "load": factor,
        "goodput": round(sum(last - seconds <= visit.end < last for visit in served) / seconds / CAPACITY, 3),
        "served": len(served),
        "refused": len(refused),
        "refused_without_delay": sum(visit.heard.retry_after_s is None for visit in refused),
        "failed": {error: count for error, count in errors.items() if error != REFUSED},
        "served_ms": _times(served),
        "refused_ms": _times(refused),
        "served_share_by_priority": {str(one): _share(visits, one) for one in sorted(set(PRIORITIES), reverse=True)},
    }


def _times(visits: list[Visit]) -> dict[str, float | None]:
    times_ms = [visit.duration_ms for visit in visits]
    return {"p50": rounded(quantile(times_ms, 0.5)), "p99": rounded(quantile(times_ms, 0.99))}


def _share(visits: list[Visit], priority: int) -> float | None:
    chosen = [visit.heard.finished for visit in visits if visit.priority == priority]
    return rounded(sum(chosen) / len(chosen)) if chosen else None


HEADER = (
    f"{'caller':<16}{'load':>5}{'goodput':>9}{'served':>8}{'refused':>9}{'failed':>8}"
    f"{'served p50/p99 ms':>20}{'refused p50/p99 ms':>20}{'upstream max':>14}  served, by priority"
)


def _line(row: dict[str, Any]) -> str:
    served, refused = (f"{row[name]['p50']} / {row[name]['p99']}" for name in ("served_ms", "refused_ms"))
    return (
        f"{row['caller']:<16}{row['load']:>4g}x{row['goodput']:>9.1%}{row['served']:>8}{row['refused']:>9}"
        f"{sum(row['failed'].values()):>8}{served:>20}{refused:>20}{row['upstream_max']:>14}"
        f"  {row['served_share_by_priority']}"
    )


def failures(rows: list[dict[str, Any]], goodput_min: float) -> list[str]:
    """Which bars were missed."""
    missed = []
    for row in rows:
        name = f"{row['caller']} at {row['load']:g}x"
        if row["goodput"] < goodput_min:
            missed.append(f"{name}: goodput {row['goodput']:.1%}")
        if row["failed"] or row["refused_without_delay"]:
            missed.append(f"{name}: failed {row['failed']}, {row['refused_without_delay']} refused without a delay")
        if row["upstream_max"] > SLOTS:
            missed.append(f"{name}: {row['upstream_max']} requests at once for {SLOTS} slots")
    return missed


def main() -> None:
    """Measures, prints, and exits 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--callers", nargs="+", default=CALLERS)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--goodput", type=float, default=0.8)
    parser.add_argument("--unbounded", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(HEADER)
    rows = asyncio.run(measure(options))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if missed := failures(rows, options.goodput):
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
