"""The sum of a sliding window: what is older than the window is out, what is younger than nine tenths of it is in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.attempts.sliding_sum import SlidingSum

WINDOW_S = 10.0
STEPS = st.lists(st.tuples(st.floats(0, 15), st.integers(0, 100)), max_size=60)


@given(STEPS)
def test_what_is_recent_counts_and_what_is_old_does_not(steps: list[tuple[float, int]]):
    """The sum lies between those of the last nine tenths of the window and of the whole window."""
    kept, now, added = SlidingSum(WINDOW_S), 5_000.0, []
    for wait_s, amount in steps:
        now += wait_s
        kept.add(now, amount)
        added.append((now, amount))

        least = sum(amount for at, amount in added if now - at < 0.9 * WINDOW_S - 1e-6)
        most = sum(amount for at, amount in added if now - at <= WINDOW_S)
        assert least <= kept.total(now) <= most


def test_an_idle_window_is_empty():
    """What was added is forgotten after the window without anything being added, however long that is."""
    kept = SlidingSum(WINDOW_S)
    kept.add(100.0, 3)

    assert (kept.total(108.9), kept.total(110.0), kept.total(1e9)) == (3, 0, 0)


def test_forgotten_amounts_leave_no_crumbs():
    """Amounts that no float holds exactly are forgotten exactly."""
    kept = SlidingSum(WINDOW_S)
    for number in range(1_000):
        kept.add(100.0 + number / 10, 0.1)

    assert kept.total(200.0) == pytest.approx(9.0)  # of 199.9 and nine seconds before
    assert kept.total(300.0) == 0


def test_cleared_sum_counts_anew():
    """Clearing forgets the whole window at once."""
    kept = SlidingSum(WINDOW_S)
    kept.add(100.0, 3)
    kept.clear()
    kept.add(100.5)

    assert kept.total(101.0) == 1
