"""The options of `millrace bench cache`, apart from what they mean: reading them imports no library."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.bench_cache.policy import FORMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares them."""
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help='JSON lines {"id","text","group"} in order of arrival, or .gz'
    )
    parser.add_argument("--pairs", action="store_true", help='FILE has {"a","b","same"}: measure the verifier alone')
    parser.add_argument(
        "--latency", action="store_true", help="time ten questions and ten paraphrases instead; needs no --data"
    )
    parser.add_argument(
        "--upstream-ms", type=float, default=500.0, metavar="MS", help="what a model takes, with --latency"
    )
    parser.add_argument("--policy", action="append", metavar="POLICY", help=f"{FORMS}; may be given again")
    parser.add_argument("--store", choices=["embedded", "redis"], default="embedded", help="where entries are kept")
    parser.add_argument(
        "--shuffles", type=int, default=0, metavar="N", help="play N random orders instead of the file's own"
    )
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave the first N lookups out of the figures")
    parser.add_argument("--limit", type=int, metavar="N", help="play only the first N lines of each order")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as a list of flat records")
    parser.add_argument("--plot", type=Path, metavar="OUT.svg", help="write the chart (default: beside --json)")
