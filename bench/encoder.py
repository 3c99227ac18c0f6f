"""How long a sentence embedding takes: the encoder of the services beside torch's, on the same texts.

    python -m bench.encoder [--threads 1] [--precision int8_blocks] [--rounds 200] [--json OUT]

Reports milliseconds of one text of 12 words, of the same among 16 callers at once, and of one of 250 tokens, the memory
that the encoder adds to a process, and how far its vectors are from those of sentence-transformers at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from bench.figures import quantile, rounded
from kit import minilm
from kit.encoder import Encoder, load
from kit.sentence_model import Precision

TEXT = "how do I change the email address on my bank account today"
LONG_TEXT = "word " * 248
WARM_UP_ROUNDS = 10
Record = dict[str, str | float | None]


def main() -> None:
    """Measures, prints, and writes the figures if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=get_args(Precision), default="float32")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    records = asyncio.run(measure(options.threads, options.precision, options.rounds))
    for record in records:
        print("  ".join(f"{name} {value}" for name, value in record.items()))
    if options.json:
        options.json.write_text(json.dumps(records, indent=1))


async def measure(threads: int, precision: Precision, rounds: int) -> list[Record]:
    """Runs the encoder alone, then torch, and compares their vectors."""
    before_mib = _resident_mib()
    encoder = Encoder(threads=threads, load=partial(load, precision=precision))
    await encoder.warm()
    memory_mib = _resident_mib() - before_mib
    records: list[Record] = [
        await _timed("12 words", lambda: encoder.encode([TEXT]), rounds),
        await _timed("12 words, 16 callers", lambda: _callers(encoder, 16), 20),
        await _timed("250 tokens", lambda: encoder.encode([LONG_TEXT]), 20),
        {"what": "memory of the encoder", "mib": memory_mib},
    ]
    ours = await encoder.encode([TEXT, LONG_TEXT, "hi"])
    await encoder.close()
    return [*records, *await _measure_torch(ours, threads, rounds)]


async def _measure_torch(ours: np.ndarray, threads: int, rounds: int) -> list[Record]:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    reference = SentenceTransformer(minilm.find(), device="cpu")

    async def encode() -> None:
        reference.encode([TEXT], show_progress_bar=False)

    record = await _timed("12 words, sentence-transformers", encode, rounds)
    theirs = reference.encode([TEXT, LONG_TEXT, "hi"], show_progress_bar=False)
    return [record, {"what": "largest difference", "value": float(np.abs(ours - theirs).max())}]


async def _callers(encoder: Encoder, count: int) -> None:
    await asyncio.gather(*(encoder.encode([TEXT]) for _ in range(count)))


async def _timed(what: str, call: Callable[[], Awaitable[object]], rounds: int) -> Record:
    times_ms = []
    for at in range(-WARM_UP_ROUNDS, rounds):
        begin = time.perf_counter()
        await call()
        if at >= 0:
            times_ms.append((time.perf_counter() - begin) * 1000)
    return {"what": what, **{f"p{share}_ms": rounded(quantile(times_ms, share / 100)) for share in (10, 50, 99)}}


def _resident_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
