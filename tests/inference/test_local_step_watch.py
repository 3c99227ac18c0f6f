"""When a step is said to hang."""

from __future__ import annotations

import pytest

from services.inference.engines.local.step_watch import STUCK_S, StepWatch


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock at zero."""
    return Clock()


def take(watch: StepWatch, clock: Clock, seconds: float) -> None:
    """A step that lasts so long."""
    watch.begin()
    clock.now += seconds
    watch.end()


def test_a_step_that_lasts_too_long_hangs(clock: Clock) -> None:
    """What is left of its time runs down to nothing, and is whole again once it has ended."""
    watch = StepWatch(clock=clock)
    watch.begin()
    clock.now = STUCK_S - 1

    assert (watch.left_s, watch.is_stuck) == (1.0, False)
    clock.now = STUCK_S
    assert watch.is_stuck
    watch.end()
    assert not watch.is_stuck


def test_a_thread_that_sleeps_does_not_hang(clock: Clock) -> None:
    """Between steps nothing runs down, however long that lasts."""
    watch = StepWatch(clock=clock)
    take(watch, clock, 0.1)
    clock.now += 3_600

    assert watch.left_s == STUCK_S


def test_long_steps_are_no_hang_where_they_are_usual(clock: Clock) -> None:
    """Of a large model on a small machine: several times its longest step of late, until that is forgotten."""
    watch = StepWatch(clock=clock)
    take(watch, clock, 10.0)
    allowed_s = watch.left_s
    for _ in range(1_000):
        take(watch, clock, 0.1)

    assert allowed_s == 40.0
    assert watch.left_s == STUCK_S


def test_a_step_that_hung_does_not_make_an_hour_usual(clock: Clock) -> None:
    """What hung once may hang again, and is found out all the same."""
    watch = StepWatch(clock=clock)
    take(watch, clock, 3_600.0)

    assert watch.left_s == 4 * STUCK_S
