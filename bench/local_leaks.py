"""What the local engine keeps after thousands of requests that end in every way: nothing, and memory stays flat.

    python -m bench.local_leaks [--requests 10000] [--callers 32]

Callers cancel, run into deadlines, stop at strings or at their length, at random. Every position of the cache must be
free or kept for reuse at the end, and the memory of the process flat once it is warm.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import Counter
from contextlib import aclosing, suppress

from kit.errors import DeadlineExceeded
from kit.process import resident_mib
from services.inference.engines.local.batch import Batch
from services.inference.engines.local.engine import LocalEngine
from services.inference.generation import ChoiceFinished, Prompt, Sampling

TOPICS = ("the edge", "the cache", "safety", "a lease", "the ledger", "a route", "an engine", "a verdict")
REPORT_COUNT = 10


async def main(request_count: int, caller_count: int) -> None:
    """Asks, and tells how memory goes."""
    engine = LocalEngine("embedded", active_max=16, queue_max=caller_count, cache_mib=8, threads=1)
    await engine.warm()
    work = engine._serving.work if engine._serving else None
    assert isinstance(work, Batch)
    ends: Counter[str] = Counter()
    left = iter(range(request_count))
    begin = time.monotonic()

    async def call(seed: int) -> None:
        rng = random.Random(seed)
        for number in left:
            ends[await _ask(engine, rng)] += 1
            if number % (request_count // REPORT_COUNT) == 0:
                held = work.scheduler.used_token_count
                print(f"{number:6} requests  {resident_mib():5} MiB  {held:6} positions held  {dict(ends)}", flush=True)

    await asyncio.gather(*(call(seed) for seed in range(caller_count)))
    async with asyncio.timeout(10):
        while engine.job_count:  # noqa: ASYNC110 - the model's thread tells no event loop
            await asyncio.sleep(0.01)
    work.scheduler.check()
    assert engine.running_count == engine.waiting_count == work.scheduler.used_token_count == 0
    took_s = time.monotonic() - begin
    print(f"{request_count} requests in {took_s:.0f} s, nothing left; {resident_mib()} MiB; {dict(ends)}")
    await engine.close()


async def _ask(engine: LocalEngine, rng: random.Random) -> str:
    """One request; returns how it ended."""
    stop = (rng.choice("aeiou"),) if rng.random() < 0.3 else ()
    sampling = Sampling(max_tokens=rng.randint(1, 12), stop=stop, temperature=1.0, n=rng.choice((1, 1, 1, 2)))
    prompt = Prompt(raw_prompt=f"What is {rng.choice(TOPICS)}?", sampling=sampling, tenant=rng.choice("ab"))
    deadline = time.monotonic() + rng.uniform(0.01, 0.3) if rng.random() < 0.3 else None
    leaves_after = rng.randint(1, 4) if rng.random() < 0.3 else 0
    last = "nothing"
    with suppress(DeadlineExceeded):
        async with aclosing(engine.generate(prompt, deadline)) as batches:
            async for batch in batches:
                leaves_after -= 1
                if leaves_after == 0:
                    return "cancelled"
                last = next((one.finish_reason.name for one in batch if isinstance(one, ChoiceFinished)), last)
        return last
    return "too late"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=32)
    options = parser.parse_args()
    asyncio.run(main(options.requests, options.callers))
