"""`millrace bench cache`: how much a cache answers, and how much of that is wrong, for each policy.

Every run gets a service of its own with an empty store, and the same questions in the same order, so that runs differ
in nothing but the policy. Nothing is measured inside the service: it is asked as callers ask it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli import screen
from cli.bench_cache import latency
from cli.bench_cache import policy as policies
from cli.bench_cache.curve import curve
from cli.bench_cache.data import Lookup, read_lookups, read_pairs
from cli.bench_cache.drive import CacheDriver
from cli.bench_cache.policy import Policy
from cli.bench_cache.report import curve_chart, policy_chart, show_curves, show_policies, write
from cli.bench_cache.service import cache_service
from cli.bench_cache.tally import Tally
from cli.errors import CommandError
from millrace.cache.v1.lookup_pb2 import Acceptance

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.cache.v1.cache_service_pb2_grpc import CacheServiceAsyncStub

# Takes every likeness, so that each pair gets its cosine.
EVERYTHING = Policy("everything", similarity_min=0.0, error_max=1.0)
# Takes what a static threshold would, behind the guards.
ALIKE = Policy("alike", similarity_min=0.7, error_max=1.0)
# Takes none, so that each pair gets its probability, is compared, and teaches what the next ones are judged by.
NOTHING = Policy("nothing", error_max=1e-6)


class StartsService(Protocol):
    """Starts a cache service on a store, with its guards or without, for the length of a block."""

    def __call__(self, store: str, *, guards: bool) -> AbstractAsyncContextManager[CacheServiceAsyncStub]:
        """Returns the block."""


def run(args: argparse.Namespace, start: StartsService = cache_service, console: Console | None = None) -> int:
    """Measures, shows and writes; returns the exit code.

    Raises:
        CommandError: The data, a policy or the service is not as it should be.
    """
    console = console or screen.console()
    plot_path = args.plot or (args.json.with_suffix(".svg") if args.json else None)
    try:
        if args.latency:
            return asyncio.run(_run_latency(args, start, console, plot_path))
        if args.data is None:
            raise CommandError("--data FILE is needed, or --latency")
        if args.pairs:
            return asyncio.run(_run_pairs(args, start, console, plot_path))
        return asyncio.run(_run_policies(args, start, console, plot_path))
    except grpc.aio.AioRpcError as error:
        raise CommandError(f"the cache service failed: {error.code().name}: {error.details()}") from error


async def _run_policies(args: argparse.Namespace, start: StartsService, console: Console, plot: Path | None) -> int:
    chosen = [policies.parse(name) for name in args.policy or policies.DEFAULT]
    lookups = read_lookups(args.data)
    orders = {seed: _ordered(lookups, seed, args.limit) for seed in (range(1, args.shuffles + 1) or [0])}
    if args.skip >= min(map(len, orders.values())):
        raise CommandError(f"--skip {args.skip} leaves nothing of {args.data} to count")
    runs: dict[Policy, dict[int, Tally]] = {policy: {} for policy in chosen}
    with _progress(console) as progress:
        for policy in chosen:
            for seed, order in orders.items():
                task = progress.add_task(f"{policy.name} seed {seed}", total=len(order))
                async with start(args.store, guards=not policy.is_static) as stub:
                    driver = CacheDriver(stub, policy, "bench")
                    runs[policy][seed] = await driver.play(order, args.skip, partial(progress.advance, task))
    tallies = {policy: list(by_seed.values()) for policy, by_seed in runs.items()}
    chart = policy_chart(tallies)
    show_policies(console, tallies)
    console.print(chart.text(), highlight=False, markup=False)
    records = [each.record(policy.name, seed) for policy, by_seed in runs.items() for seed, each in by_seed.items()]
    write(records, chart.svg(), args.json, plot)
    return 0


async def _run_pairs(args: argparse.Namespace, start: StartsService, console: Console, plot: Path | None) -> int:
    pairs = read_pairs(args.data)[: args.limit]
    curves = []
    with _progress(console) as progress:
        for policy, score, guards in ((NOTHING, _fit, True), (EVERYTHING, _cosine, False)):
            name = "cosine" if policy.is_static else "verifier"
            task = progress.add_task(name, total=len(pairs))
            async with start(args.store, guards=guards) as stub:
                driver = CacheDriver(stub, policy, "bench")
                scores = []
                for number, pair in enumerate(pairs):
                    scores.append(score(await driver.compare(pair, number)))
                    progress.advance(task)
            curves.append(curve(name, scores, [pair.same for pair in pairs]))
    chart = curve_chart(curves)
    show_curves(console, curves)
    console.print(chart.text(), highlight=False, markup=False)
    write([each.record() for each in curves], chart.svg(), args.json, plot)
    return 0


async def _run_latency(args: argparse.Namespace, start: StartsService, console: Console, plot: Path | None) -> int:
    async with start(args.store, guards=True) as stub:
        driver = CacheDriver(stub, ALIKE, "bench")
        await driver.find("a question that nobody asked")  # the first call finds the service cold
        waited = await latency.measure(driver, args.upstream_ms / 1000)
    latency.show(console, waited, args.upstream_ms)
    write([each.record() for each in waited], latency.svg(waited), args.json, plot)
    return 0


def _fit(acceptance: Acceptance) -> float:
    return acceptance.fit_probability


def _cosine(acceptance: Acceptance) -> float:
    return acceptance.similarity


def _ordered(lookups: Sequence[Lookup], seed: int, limit: int | None) -> list[Lookup]:
    """The order of arrival for seed 0, and a random one for each other seed."""
    order = list(lookups)
    if seed:
        random.Random(seed).shuffle(order)
    return order[:limit]


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
