"""What Millrace adds to an OpenAI-compatible upstream: CPU per request, and latency.

    python -m bench.overhead [--seconds 3] [--runs 3] [--json FILE]

CPU: a closed loop of 32 connections against an upstream that answers at once, summed over all of Millrace's
processes. Added latency: one connection, median, minus the median against the upstream itself in the same run. Whole
answers, and streams of 100 tokens. Policies off is edge + inference; policies on adds cache and safety: once with
every answer screened and stored (Cache-Control: no-cache), once answered from the cache. Medians of the runs;
`foreign` is the cores that anything else used.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.stand import Stand, Suite, stand

SHAPES = {"whole": ("fake", False), "stream of 100": ("fake-n100", True)}
FRESH = ("-H", "Cache-Control: no-cache")
CONNECTIONS = "32"


def measure(
    made: Stand, label: str, suite: Suite, headers: Sequence[str], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measures one set-up in both shapes."""
    rows = []
    for shape, (model, stream) in SHAPES.items():
        length = ("-d", str(options.seconds), "-w", "1", *headers)
        loaded = [
            made.load(suite.url, model, "-c", CONNECTIONS, *length, stream=stream, pids=suite.pids.values())
            for _ in range(options.runs)
        ]
        alone = made.load(suite.url, model, "-c", "1", *length, stream=stream)
        direct = made.load(made.upstream_url, model, "-c", "1", *length, stream=stream)
        rows.append(
            {
                "setup": label,
                "shape": shape,
                "cpu_ms": _median(loaded, "cpu_ms_all"),
                "rps": _median(loaded, "rps"),
                "added_p50_ms": round(alone["p50"] - direct["p50"], 2),
                "failed": sum(one["bad"] + one["err"] + one["incomplete"] for one in loaded),
                "foreign": _median(loaded, "foreign"),
            }
        )
        print(_line(rows[-1]), flush=True)
    return rows


def _median(runs: list[dict[str, Any]], field: str) -> float:
    return round(float(statistics.median(run[field] for run in runs)), 3)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['setup']:<28} {row['shape']:<14} {row['cpu_ms']:>8.2f} {row['rps']:>8.0f} {row['added_p50_ms']:>10.2f}"
        f" {row['failed']:>7} {row['foreign']:>8.2f}"
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'setup':<28} {'shape':<14} {'CPU ms':>8} {'req/s':>8} {'added ms':>10} {'failed':>7} {'foreign':>8}")
    with stand() as made:
        suite = made.millrace(policies=False)
        rows = measure(made, "policies off", suite, (), options)
        made.stop(suite.pids.values())
        suite = made.millrace(policies=True)
        rows += measure(made, "policies on, screened", suite, FRESH, options)
        rows += measure(made, "policies on, cached", suite, (), options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
