"""Limits over several replicas on one Redis: the bench of them, small and with bounds that a busy machine meets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.flow.test_benches import run


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
async def test_limits_are_exact_and_nothing_stays_held(tmp_path: Path) -> None:
    """Three replicas let in exactly the limit and spend no more than the budget; who left or died holds nothing."""
    figures = await run(tmp_path, "limits", "--calls", "200", "--losses", "20", "--hold-s", "1", "--more-ms", "10000")

    assert (figures["rate"]["let_in"], figures["rate"]["limit"]) == (40, 40)
    assert figures["budget"]["spent"] == figures["budget"]["counted"] <= figures["budget"]["budget"]
    assert figures["loss"]["killed"] == 2
    assert (figures["loss"]["claims"], figures["loss"]["slots"], figures["loss"]["open"]) == (0, 0, 0)
