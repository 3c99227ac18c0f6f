"""The options of `millrace bench engine`, apart from what they mean: reading them imports no library."""

from __future__ import annotations

import argparse
from pathlib import Path

PEERS = ("pipeline", "generate", "cb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares them."""
    parser.add_argument(
        "--model", default="random-gpt2", help="directory, hub name, embedded, or random-gpt2: 124M random weights"
    )
    parser.add_argument("--concurrency", default="1,8,32", metavar="N,...", help="callers at once (default: 1,8,32)")
    parser.add_argument("--prompt-tokens", type=int, default=64, metavar="N", help="length of each prompt")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N", help="length of each answer")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="answers for each caller")
    parser.add_argument("--precision", default="float32", metavar="P,...", help="of Millrace: float32,int8,bfloat16")
    parser.add_argument("--peer", action="append", choices=PEERS, default=[], help="measure it too; may be repeated")
    parser.add_argument("--long-prompt", type=int, metavar="N", help="also: N tokens that arrive beside the callers")
    parser.add_argument("--ttft-ms", type=float, default=1_000.0, help="limit of goodput: first token")
    parser.add_argument("--itl-ms", type=float, default=200.0, help="limit of goodput: mean between tokens")
    parser.add_argument(
        "--no-drafts", action="store_true", help="of Millrace: guess no tokens where text repeats itself"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of torch (default: one for each core)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as a list of flat records")
    parser.add_argument("--plot", type=Path, metavar="OUT.svg", help="write the chart (default: beside --json)")
