"""The page of faults says what the wall proves."""

from __future__ import annotations

from pathlib import Path

from tests.faults.faults import FAULTS
from tests.faults.table import render

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_page_is_current() -> None:
    """`make docs-faults` was run after the last change of the faults."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_faults_are_told_apart() -> None:
    """Each has a name and a sentence of its own within the names of models, where a point would part them."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert not [fault.name for fault in FAULTS if "." in fault.name]
    assert len({(fault.says, fault.upstream) for fault in FAULTS}) == len(FAULTS)
