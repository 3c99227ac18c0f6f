"""Measures the local engine and its peers in one run, each alone on the machine, and prints them side by side.

Every caller asks again as soon as it has its answer. Prompts are random and all begin differently, so that nothing is
reused; answers have the length that was asked for. On a busy machine only the ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli import screen
from cli.bench_engine import chart, load, machine
from cli.bench_engine.options import PEERS
from cli.bench_engine.record import Limits
from cli.errors import CommandError
from kit import openmp

COLUMNS = {
    "tokens_per_s": "tok/s",
    "ttft_p50_ms": "ttft",
    "itl_p50_ms": "itl",
    "itl_p99_ms": "itl p99",
    "goodput_per_s": "good/s",
    "cpu_ms_per_token": "cpu/tok",
}
BAR_WIDTH = 10


def run(args: argparse.Namespace) -> int:
    """Runs the measurements, prints a table with bars, and writes the records and a chart."""
    openmp.wait_asleep()
    from transformers.utils.logging import disable_progress_bar

    from cli.bench_engine import peers

    if "cb" in args.peer and not find_spec("psutil"):  # without it, it never answers on a processor
        why = "it sizes its batches by the memory of the machine"
        raise CommandError(f"--peer cb: transformers' batching needs psutil: {why}; pip install psutil")
    disable_progress_bar()  # its bars would stand between the figures
    levels = _levels(args.concurrency)
    limits = Limits(args.ttft_ms, args.itl_ms)
    records: list[dict[str, Any]] = []
    console = screen.console()
    with _model(args.model) as directory:
        prompts = load.Prompts(directory, args.prompt_tokens)
        records += machine.limits(directory, levels, args.threads)
        for precision in args.precision.split(","):
            engine = load.Load(directory, precision, max(levels), args.threads, drafts=not args.no_drafts)
            asked = asyncio.run(engine.measure(prompts, args.new_tokens, levels, args.rounds, limits, args.long_prompt))
            records += asked
            console.print(f"millrace {precision}: {[one['tokens_per_s'] for one in asked]} tokens/s")
        for peer in [peer for peer in PEERS if peer in args.peer]:
            for level in levels:
                records += peers.measure(peer, directory, prompts, args, level, limits)
    _print(console, records)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n")
    if plot := args.plot or (args.json and args.json.with_suffix(".svg")):
        plot.write_text(chart.svg(records))
    return 0


def _levels(text: str) -> list[int]:
    try:
        levels = [int(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or min(levels) < 1:
        raise CommandError(f"--concurrency {text}: give numbers of callers, as 1,8,32")
    return levels


@contextmanager
def _model(name: str) -> Iterator[str]:
    """A directory or name that transformers can load; a random model is made for the time of the run."""
    if name != "random-gpt2":
        from services.inference.engines.local.model import EMBEDDED, EMBEDDED_DIRECTORY

        yield str(EMBEDDED_DIRECTORY) if name == EMBEDDED else name
        return
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as directory:
        machine.write_random_gpt2(Path(directory))
        yield directory


def _print(console: Console, records: list[dict[str, Any]]) -> None:
    table = Table(title="Tokens per second, and medians in ms, by engine and callers", padding=(0, 0))
    for name in ("engine", "type", "calls"):
        table.add_column(name, no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    best = max(one["tokens_per_s"] for one in records if one["engine"] != machine.NAME)
    for one in sorted(records, key=lambda each: each["concurrency"]):
        bar = "█" * min(round(BAR_WIDTH * one["tokens_per_s"] / best), BAR_WIDTH)
        cells = ["" if one.get(name) is None else f"{one[name]:.4g}" for name in COLUMNS]
        table.add_row(one["engine"], one["precision"], str(one["concurrency"]), *cells, bar)
    console.print(table)
