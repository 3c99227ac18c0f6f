"""The threads that torch takes."""

from __future__ import annotations

import subprocess
import sys

from services.inference.engines.local.machine import (
    CACHE_BYTES_MAX,
    SMALL_PARAMETER_COUNT,
    cache_bytes,
    core_count,
    thread_count,
)


def test_setting_wins() -> None:
    """A setting is taken as it is, whatever the model."""
    assert thread_count(3, 1) == thread_count(3, SMALL_PARAMETER_COUNT) == 3


def test_small_models_take_one_and_large_ones_every_core() -> None:
    """Without a setting a small model has one thread and a large one a thread for each core it may use."""
    assert thread_count(0, SMALL_PARAMETER_COUNT - 1) == 1
    assert thread_count(0, SMALL_PARAMETER_COUNT) == core_count()


def test_models_load_side_by_side() -> None:
    """An engine and an embedder that warm at once in a fresh process both come up: loading is one at a time."""
    program = """
import asyncio
from services.inference.engines.local.embedder import LocalEmbedder
from services.inference.engines.local.engine import LocalEngine

async def main():
    parts = LocalEngine("embedded"), LocalEmbedder("all-minilm-l6-v2")
    await asyncio.gather(*(part.warm() for part in parts))
    await asyncio.gather(*(part.close() for part in parts))
    print("both")

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert done.stdout.strip() == "both", done.stderr[-2000:]


def test_cache_memory_is_a_share_of_what_is_free() -> None:
    """A setting is taken as it is; without one a cache gets a part of the free memory, within a bound."""
    assert cache_bytes(64) == 64 << 20
    assert 0 < cache_bytes(0) <= CACHE_BYTES_MAX
