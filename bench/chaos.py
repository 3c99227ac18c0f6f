"""Whether callers notice that an upstream is broken: one request in five meets a fault, a healthy fallback stands by.

    python -m bench.chaos [--requests 10000] [--fault-share 0.2] [--default-breaker] [--seed 1] [--json FILE]

Requests come in turn over the edge and over gRPC, streamed and whole. Each carries a nonce; the right answer repeats
it and tells which upstream gave it, so that a lost, doubled, mixed-up or spliced answer is seen. The seed draws which
requests meet which fault of `bench.faults` at the first upstream; the second is healthy. The first one's breaker never
opens, so that the faults are met; with `--default-breaker` it does, and some requests go to the second at once.

The success share is that of all requests but those whose caller had heard a part of the answer when the fault came (a
streamed call, a fault after the first token): these must end as errors that say so, and are counted apart. Whole calls
all count, wherever in its stream the upstream broke. It exits 1 if an answer was wrong, a call hung, a failure was not
told as one, the share is not above 99.9 %, or something has leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.callers import Caller, Heard, callers
from bench.faults import AFTER, EVERY
from bench.figures import Lag, quantile, rounded
from bench.leaks import Leaks, settled
from bench.stand import stand
from bench.upstream import Exchange, Upstream

SUCCESS_SHARE_MIN = 0.999
TIMEOUT_S = 10.0
HANG_S = TIMEOUT_S + 2  # a call that is not over by then has ignored its own deadline
WARM_UP_SHARE = 0.1
RSS_GROWTH_MB_MAX = 16.0  # what an allocator may keep after 10,000 requests; a request that leaked would cost more
PATIENT = ", breaker: {failures_in_a_row: 1000, failure_share: 1}"
# Short waits, so that silent upstreams do not decide how long the bench takes.
MODELS = """
version: 1
upstreams:
  first: {{base_url: "{first}"}}
  second: {{base_url: "{second}"}}
models:
  - name: bench
    targets:
      - {{engine: openai, upstream: first{breaker}}}
      - {{engine: openai, upstream: second}}
defaults:
  cache: {{enabled: false}}
  safety: {{profile: "off"}}
  deadlines: {{ttft_s: 2, inter_token_s: 1}}
"""


@dataclass
class Request:
    """One request, what was planned for it, and what became of it."""

    nonce: str
    caller: Caller
    fault: str
    piece_count: int
    met: str = ""
    heard: Heard = field(default_factory=Heard)
    duration_s: float = 0.0
    hung: bool = False

    def pieces(self, upstream: str) -> list[str]:
        """The right answer of an upstream."""
        return [f"{self.nonce}@{upstream}", *(f" {number}" for number in range(self.piece_count)), f" {self.nonce}"]

    @property
    def is_excused(self) -> bool:
        """Whether the fault came when a part of the answer had been heard, so that nothing could be mended."""
        return self.met in AFTER and bool(self.heard.text) and not self.heard.finished

    @property
    def outcome(self) -> str:
        """`right`, `error` (told as one), `hung`, `broken` (not told) or `wrong`."""
        if self.hung:
            return "hung"
        rights = ["".join(self.pieces(upstream)) for upstream in ("first", "second")]
        if self.heard.finished:
            return "right" if self.heard.text in rights and not self.heard.error else "wrong"
        if not any(right.startswith(self.heard.text) for right in rights):
            return "wrong"
        return "error" if self.heard.error else "broken"


class Plan:
    """All requests, and the two upstreams that know them."""

    def __init__(self, count: int, fault_share: float, seed: int) -> None:
        self.seed, self.count, self.fault_share = seed, count, fault_share
        self._requests: dict[str, Request] = {}

    def draw(self, asked_by: list[Caller]) -> list[Request]:
        """Draws the requests."""
        chance = random.Random(self.seed)
        for number in range(self.count):
            nonce = f"{number}-{chance.getrandbits(64):016x}"
            fault = chance.choice(list(EVERY)) if chance.random() < self.fault_share else ""
            caller = asked_by[number % len(asked_by)]
            self._requests[nonce] = Request(nonce, caller, fault, chance.randrange(1, 30))
        return list(self._requests.values())

    async def first(self, exchange: Exchange) -> None:
        """Goes wrong as planned."""
        request = self._requests[exchange.question]
        if request.fault:
            request.met = request.fault
            await EVERY[request.fault](exchange, request.pieces("first"))
        else:
            exchange.answer(request.pieces("first"))

    async def second(self, exchange: Exchange) -> None:
        """Answers."""
        exchange.answer(self._requests[exchange.question].pieces("second"))


async def measure(plan: Plan, concurrency: int, breaker: str = PATIENT) -> dict[str, Any]:
    """Runs the plan against a Millrace of its own; returns the figures."""
    lag = Lag()
    async with Upstream(plan.first) as first, Upstream(plan.second) as second:
        with stand() as made:
            suite = made.millrace(MODELS.format(first=first.url, second=second.url, breaker=breaker))
            async with callers(suite.url, suite.inference) as asked_by, lag.watched():
                requests = plan.draw(asked_by)
                warm_up = int(len(requests) * WARM_UP_SHARE)
                await _ask_all(iter(requests[:warm_up]), concurrency)
                rss = [suite.rss_mb()]
                start = time.monotonic()
                for tenth in range(warm_up, len(requests), max(1, warm_up)):
                    await _ask_all(iter(requests[tenth : tenth + max(1, warm_up)]), concurrency)
                    rss.append(suite.rss_mb())
                took_s = time.monotonic() - start
            leaks = await settled(suite, [first, second])
    rate = round((len(requests) - warm_up) / took_s)
    asked = {"first": first.asked_count, "second": second.asked_count}
    run = {"seed": plan.seed, "requests_per_s": rate, "upstreams_asked": asked, "bench_lag_max_s": rounded(lag.max_s)}
    return _figures(requests, rss, leaks) | run


async def _ask_all(requests: Iterator[Request], concurrency: int) -> None:
    async def work() -> None:
        for request in requests:
            await _ask(request)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())


async def _ask(request: Request) -> None:
    start = time.monotonic()
    try:
        async with asyncio.timeout(HANG_S):
            await request.caller.ask(request.nonce, request.heard, TIMEOUT_S)
    except TimeoutError:
        request.hung = True
    request.duration_s = time.monotonic() - start


def _figures(requests: list[Request], rss: list[dict[str, float]], leaks: Leaks) -> dict[str, Any]:
    counted = [request for request in requests if not request.is_excused]
    excused = [request for request in requests if request.is_excused]
    outcomes = Counter(request.outcome for request in requests)
    right = sum(request.outcome == "right" for request in counted)
    return {
        "requests": len(requests),
        "faults_planned": sum(bool(request.fault) for request in requests),
        "faults_met": sum(bool(request.met) for request in requests),
        "counted": len(counted),
        "success_share": right / len(counted),
        "after_first_token": len(excused),
        "after_first_token_told_as_error": sum(request.outcome == "error" for request in excused),
        "wrong": outcomes["wrong"],
        "hung": outcomes["hung"],
        "not_told": outcomes["broken"],
        "rss_mb": rss,
        "rss_growth_mb": {name: round(rss[-1][name] - rss[0][name], 1) for name in rss[0]},
        "leaks": asdict(leaks),
        "by_fault": [_row(fault, requests) for fault in ("", *EVERY)],
        "strays": [_stray(request) for request in requests if not _is_good(request)][:20],
    }


def _row(fault: str, requests: list[Request]) -> dict[str, Any]:
    chosen = [request for request in requests if request.met == fault]
    outcomes = Counter(request.outcome for request in chosen)
    times_ms = [request.duration_s * 1000 for request in chosen]
    return {
        "fault": fault or "none",
        "met": len(chosen),
        **{outcome: outcomes[outcome] for outcome in ("right", "error", "wrong", "hung", "broken")},
        "p50_ms": rounded(quantile(times_ms, 0.5)),
        "max_ms": rounded(quantile(times_ms, 1.0)),
    }


def _is_good(request: Request) -> bool:
    return request.outcome == ("error" if request.is_excused else "right")


def _stray(request: Request) -> dict[str, str]:
    heard = request.heard
    said = {"text": heard.text, "error": heard.error, "broken": heard.broken}
    return {
        "nonce": request.nonce,
        "caller": request.caller.name,
        "met": request.met,
        "outcome": request.outcome,
    } | said


def failures(figures: dict[str, Any]) -> list[str]:
    """Which bars were missed."""
    missed = [f"{figures[name]} {name}" for name in ("wrong", "hung", "not_told") if figures[name]]
    if figures["success_share"] <= SUCCESS_SHARE_MIN:
        missed.append(f"success share {figures['success_share']:.4%}")
    if figures["after_first_token"] != figures["after_first_token_told_as_error"]:
        missed.append("a broken stream that did not end as an error")
    missed += [f"{name} grew by {grown} MB" for name, grown in figures["rss_growth_mb"].items() if _has_grown(grown)]
    return missed + Leaks(**figures["leaks"]).told()


def _has_grown(megabytes: float) -> bool:
    return megabytes > RSS_GROWTH_MB_MAX


def _print(figures: dict[str, Any]) -> None:
    columns = ("met", "right", "error", "wrong", "hung", "broken", "p50_ms", "max_ms")
    print(f"{'fault met':<26}" + "".join(f"{column:>9}" for column in columns))
    for row in figures["by_fault"]:
        print(f"{row['fault']:<26}" + "".join(f"{row[column]!s:>9}" for column in columns))
    for name, value in figures.items():
        if name != "by_fault" and value != []:
            print(f"{name}: {value}")


def main() -> None:
    """Measures, prints, and exits 1 if a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--fault-share", type=float, default=0.2)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--default-breaker", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    plan = Plan(options.requests, options.fault_share, options.seed)
    breaker = "" if options.default_breaker else PATIENT
    figures = asyncio.run(measure(plan, options.concurrency, breaker))
    _print(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    if missed := failures(figures):
        raise SystemExit("missed: " + "; ".join(missed))


if __name__ == "__main__":
    main()
