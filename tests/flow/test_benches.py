"""The benches of broken upstreams, leaving callers and too many of them, small and with generous bounds.

They notice when something breaks; how good it is, the benches themselves tell.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path
from typing import Any

DEADLINE_S = 120.0


async def run(folder: Path, program: str, *arguments: str) -> Any:
    """Runs a bench, which must reach its bars; returns its figures."""
    figures = folder / f"{program}.json"
    command = [sys.executable, "-m", f"bench.{program}", *arguments, "--json", str(figures)]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=STDOUT)
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
    assert process.returncode == 0, output.decode()
    return json.loads(figures.read_text())


async def test_callers_do_not_notice_a_broken_upstream(tmp_path: Path) -> None:
    """With one request in five broken, every answer is right, or told as broken where a part of it had left."""
    figures = await run(tmp_path, "chaos", "--requests", "500")

    assert figures["faults_met"] > 50
    assert figures["wrong"] == figures["hung"] == figures["not_told"] == 0
    assert figures["success_share"] == 1


async def test_upstreams_learn_that_a_caller_has_gone(tmp_path: Path) -> None:
    """Hanging up closes the upstream's connection within a second, in every phase and over every way of asking."""
    figures = await run(tmp_path, "disconnect", "--trials", "20", "--p99-ms", "1000")

    assert [row["failed"] for row in figures["cases"]] == [[]] * 12
    assert not any(figures["leaks"].values())


async def test_overload_is_refused_and_the_rest_served(tmp_path: Path) -> None:
    """Twice the capacity is half refused, at once and with a delay, while most of the capacity is used well."""
    arguments = ("--seconds", "3", "--loads", "2", "--callers", "gRPC, whole", "--goodput", "0.5")
    [row] = await run(tmp_path, "overload", *arguments)

    assert row["refused"] > 100
    assert row["served_share_by_priority"]["10"] > row["served_share_by_priority"]["-10"]


async def test_nothing_unscreened_leaves_when_safety_dies(tmp_path: Path) -> None:
    """Under a closed rule streams that lose safety end as errors, under an open one they go on and say so."""
    figures = await run(tmp_path, "safety_faults", "--trials", "12", "--streams", "6")

    assert (figures["trials"], figures["wrong"]) == (12, 0)


async def test_a_hit_is_fast_and_a_frozen_redis_is_not_waited_for(tmp_path: Path) -> None:
    """A hit through the edge is 30 times faster than its upstream; without Redis all are answered by the upstream."""
    figures = await run(tmp_path, "cache_edge", "--questions", "10")

    assert figures["speed_up"] >= 30
    assert figures["outcomes"] == ["unavailable"]
