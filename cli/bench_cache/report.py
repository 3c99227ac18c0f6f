"""Shows the figures of `millrace bench cache`: tables for people, charts, and flat records for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.bench_cache.chart import Chart, Point, Series
from cli.bench_cache.curve import PRECISIONS, Curve
from cli.bench_cache.policy import Policy
from cli.bench_cache.tally import Tally, pooled, quantile, wilson


def show_policies(console: Console, runs: Mapping[Policy, Sequence[Tally]]) -> None:
    """Prints one row for each policy, over all of its runs."""
    table = Table(title="Wrong hits with their 95 % intervals; shadows are would-be hits held back", padding=(0, 0))
    table.add_column("policy", no_wrap=True)
    for name in ("lookups", "hits", "right", "wrong\n/ hits", "wrong\n/ lookups", "shadows", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for policy, tallies in runs.items():
        whole = pooled(tallies)
        table.add_row(
            policy.name,
            f"{whole.lookup_count:,}",
            f"{whole.hit_rate:.1%}",
            f"{whole.right_rate:.1%}",
            _estimate(whole.wrong_count, whole.hit_count),
            _estimate(whole.wrong_count, whole.lookup_count),
            f"{whole.shadow_share:.1%}",
            f"{quantile(whole.times_ms, 0.5):.2f}",
            f"{quantile(whole.times_ms, 0.99):.2f}",
        )
    console.print(table)
    failed = sum(tally.failed_count for tallies in runs.values() for tally in tallies)
    if failed:
        console.print(f"[red]{failed:,} lookups missed because the store did not answer: the figures are too low[/red]")


def policy_chart(runs: Mapping[Policy, Sequence[Tally]]) -> Chart:
    """Hit rate against error, a point for each policy."""
    bounded = [policy for policy in runs if policy.is_bounded]
    static = [policy for policy in runs if not policy.is_bounded]
    series = [
        Series(name, sorted((_point(policy, runs[policy]) for policy in policies), key=lambda point: point.x))
        for name, policies in (("bounded", bounded), ("static threshold", static))
        if policies
    ]
    return Chart("Answered from the cache, against how often that was wrong", "wrong hits / hits", "hits", series)


def show_curves(console: Console, curves: Sequence[Curve]) -> None:
    """Prints one row for each score."""
    table = Table(title="How well each score tells pairs that one answer fits")
    table.add_column("score")
    table.add_column("average precision", justify="right")
    for precision in PRECISIONS:
        table.add_column(f"recall at {precision:.0%} precision", justify="right")
    for each in curves:
        best = [each.best_at(precision) for precision in PRECISIONS]
        cells = [f"{level.recall:.1%} (from {level.threshold:.3f})" if level else "none" for level in best]
        table.add_row(each.name, f"{each.average_precision:.3f}", *cells)
    console.print(table)


def curve_chart(curves: Sequence[Curve]) -> Chart:
    """Precision against recall, a line for each score."""
    series = [Series(each.name, [Point(level.recall, level.precision) for level in each.levels]) for each in curves]
    return Chart("Pairs that mean the same", "recall", "precision", series)


def write(records: Sequence[Mapping[str, Any]], svg: str, json_path: Path | None, plot_path: Path | None) -> None:
    """Writes the records and the drawing where they are wanted."""
    if json_path:
        json_path.write_text(json.dumps(records, indent=1) + "\n")
    if plot_path:
        plot_path.write_text(svg)


def _point(policy: Policy, tallies: Sequence[Tally]) -> Point:
    whole = pooled(tallies)
    return Point(whole.wrong_per_hit, whole.hit_rate, policy.name, wilson(whole.wrong_count, whole.hit_count))


def _estimate(count: int, total: int) -> str:
    low, high = wilson(count, total)
    return f"{count / total if total else 0:.1%}\n{100 * low:.1f} to {100 * high:.1f}"
