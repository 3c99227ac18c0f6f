"""Times to the first token: the average follows what is recent, the percentile needs enough to say something."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.attempts.latency import KNOWN_S, REFRESH_COUNT, SAMPLE_COUNT_MAX, FirstTokenTimes
from tests.inference.clocks import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def times(clock: ManualClock) -> FirstTokenTimes:
    """Times of which nothing is known."""
    return FirstTokenTimes(clock)


def test_nothing_is_known_at_first(times: FirstTokenTimes):
    """Without a single time there is no average and no percentile."""
    assert (times.ewma_s, times.p95_s()) == (None, None)


def test_average_starts_with_the_first_and_follows(times: FirstTokenTimes):
    """The first time is the average; each later one pulls it by a fifth of the way."""
    times.record(1.0)
    assert times.ewma_s == 1.0

    times.record(2.0)
    assert times.ewma_s == pytest.approx(1.2)


def test_old_average_is_forgotten(times: FirstTokenTimes, clock: ManualClock):
    """A target that was slow long ago is unknown, and its next time is all that counts."""
    times.record(30.0)
    clock.turn(KNOWN_S - 1)
    assert times.ewma_s == 30.0

    clock.turn(1)
    assert times.ewma_s is None
    times.record(0.1)
    assert times.ewma_s == 0.1


def test_percentile_needs_twenty(times: FirstTokenTimes):
    """Nineteen times say nothing about the slowest twentieth."""
    for number in range(19):
        times.record(float(number))
    assert times.p95_s() is None

    times.record(19.0)
    assert times.p95_s() == 18.0


def test_percentile_is_of_the_recent(times: FirstTokenTimes):
    """What lies further back than two hundred calls has no weight."""
    for _ in range(1_000):
        times.record(9.0)
    for _ in range(SAMPLE_COUNT_MAX):
        times.record(1.0)

    assert times.p95_s() == 1.0


@given(st.lists(st.floats(0, 100), min_size=20, max_size=300))
def test_percentile_is_that_of_at_most_ten_calls_ago(seconds: list[float]):
    """It is the exact nearest rank of the recent times, as they are or as they were within the last ten calls."""
    times, exact = FirstTokenTimes(ManualClock()), []
    for count, one in enumerate(seconds, 1):
        times.record(one)
        recent = sorted(seconds[max(0, count - SAMPLE_COUNT_MAX) : count])
        exact.append(recent[math.ceil(0.95 * len(recent)) - 1])

        assert times.p95_s() in ([None] if count < 20 else exact[19:][-REFRESH_COUNT:])
