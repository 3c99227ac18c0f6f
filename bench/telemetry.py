"""What telemetry costs: CPU per request over all of Millrace's processes, everything on against everything off.

    python -m bench.telemetry [--seconds 2] [--pairs 10] [--json FILE]

On means what `millrace up` switches on and more: every service sends every span to the edge's store, counts its calls
and serves its metrics. Off is a suite without either. Both run at once and are loaded in turn, by 32 connections
against an upstream that answers at once, with policies on and every answer screened and stored: a request has fourteen
spans.
Each pair gives one difference; told is their median, their mean and its standard error. Turns are short, for what else
a machine does changes within seconds, but no shorter than the time between two exports of a busy service.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from bench.ports import free_port
from bench.stand import Stand, Suite, stand

SHAPES = {"whole": ("fake", False), "stream of 100": ("fake-n100", True)}
FRESH = ("-H", "Cache-Control: no-cache")
CONNECTIONS = "32"


def suites(made: Stand) -> dict[str, Suite]:
    """A suite without telemetry, and one with all of it."""
    off = made.millrace(policies=True, cache={"PATH": str(made.folder / "off.sqlite3")})
    port = str(free_port())
    on = made.millrace(
        policies=True,
        cache={"PATH": str(made.folder / "on.sqlite3")},
        each={"SPAN_STORE": f"127.0.0.1:{port}", "METRICS_PORT": "0"},
        edge={"SPAN_STORE_PORT": port},
    )
    return {"off": off, "on": on}


def cpu_ms(made: Stand, suite: Suite, shape: str, seconds: float) -> float:
    """CPU of one request, over all processes of a suite."""
    model, stream = SHAPES[shape]
    length = ("-d", str(seconds), "-w", "0.5")
    loaded = made.load(suite.url, model, "-c", CONNECTIONS, *length, *FRESH, stream=stream, pids=suite.pids.values())
    failed = loaded["bad"] + loaded["err"] + loaded["incomplete"]
    assert not failed, f"{failed} requests failed"
    return float(loaded["cpu_ms_all"])


def measure(made: Stand, shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures pairs; the order within a pair alternates."""
    pairs = []
    for number in range(options.pairs):
        order = ("off", "on") if number % 2 else ("on", "off")
        found = {name: cpu_ms(made, options.suites[name], shape, options.seconds) for name in order}
        pairs.append((found["off"], found["on"]))
    costs = [on - off for off, on in pairs]
    return {
        "shape": shape,
        "off_ms": round(statistics.median(off for off, _ in pairs), 3),
        "on_ms": round(statistics.median(on for _, on in pairs), 3),
        "cost_ms": round(statistics.median(costs), 3),
        "cost_ms_mean": round(statistics.mean(costs), 3),
        "cost_ms_error": round(statistics.stdev(costs) / math.sqrt(len(costs)), 3),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{'shape':<14} {'off ms':>8} {'on ms':>8} {'cost ms':>8} {'mean':>8} {'error':>6}")
    rows = []
    with stand() as made:
        options.suites = suites(made)
        for shape in SHAPES:
            row = measure(made, shape, options)
            rows.append(row)
            cells = f"{row['off_ms']:>8.2f} {row['on_ms']:>8.2f} {row['cost_ms']:>8.2f}"
            print(f"{shape:<14} {cells} {row['cost_ms_mean']:>8.2f} {row['cost_ms_error']:>6.2f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
