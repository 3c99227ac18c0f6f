"""Deadlines: what a call's rules, wishes and own deadline leave to each attempt."""

from __future__ import annotations

from typing import Any

import pytest

from services.inference.attempts.deadline import DeadlineBudget
from services.inference.routing.rules import DeadlineRule
from tests.inference.parts import request

RULE = DeadlineRule(ttft_s=10, inter_token_s=30, total_s=600)


class Clock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("wishes", "first_token_at", "total_at"),
    [
        ({}, 110, 700),
        ({"ttft_max_s": 4.0}, 104, 700),
        ({"ttft_max_s": 40.0}, 110, 700),
        ({"deadline": 103.0}, 102.9, 102.9),
        ({"deadline": 101.0}, 100.95, 100.95),
        ({"deadline": 900.0}, 110, 700),
    ],
)
def test_the_tightest_bound_holds(wishes: dict[str, Any], first_token_at: float, total_at: float) -> None:
    """The caller's wishes and the call's deadline cut the rule, and never widen it."""
    budget = DeadlineBudget(RULE, request(**wishes), Clock())

    assert (budget.first_token_at, budget.total_at) == pytest.approx((first_token_at, total_at))


def test_a_waiting_target_gets_half_of_what_is_left() -> None:
    """So a silent first target never takes all the time; the last one may."""
    clock = Clock()
    budget = DeadlineBudget(RULE, request(), clock)

    assert budget.first_token_until(another_waits=True) == 105
    clock.now = 106
    assert budget.first_token_until(another_waits=True) == 108
    assert budget.first_token_until(another_waits=False) == 110


def test_attempts_share_the_time_to_the_first_token() -> None:
    """It runs on whoever is asked, until it is over."""
    clock = Clock()
    budget = DeadlineBudget(RULE, request(), clock)
    clock.now = 109.9
    assert not budget.is_over
    clock.now = 110
    assert budget.is_over

    budget.restart()
    assert budget.first_token_at == 120


def test_a_restart_ends_with_the_call() -> None:
    """An answer that broke half-way may begin again within the call's own deadline only."""
    clock = Clock()
    budget = DeadlineBudget(RULE, request(deadline=112.0), clock)
    clock.now = 111
    budget.restart()

    assert budget.first_token_at == pytest.approx(111.9)


def test_the_next_token_is_due_before_the_end() -> None:
    """Silence between tokens is bounded by the rule, the wish, and the end of the call."""
    clock = Clock()
    assert DeadlineBudget(RULE, request(), clock).next_token_until() == 130
    assert DeadlineBudget(RULE, request(inter_token_max_s=5.0), clock).next_token_until() == 105
    assert DeadlineBudget(RULE, request(deadline=102.0), clock).next_token_until() == pytest.approx(101.9)


@pytest.mark.parametrize(
    ("silent_s", "usual_ttft_s", "between_tokens", "is_long"),
    [
        (0.05, None, False, False),
        (0.7, None, False, False),
        (0.95, None, False, True),
        (0.4, 0.1, False, False),
        (0.5, 0.1, False, True),
        (1.0, 0.8, False, False),
        (1.6, 0.8, False, True),
        (10.0, 60.0, False, True),
        (10.0, 60.0, True, False),
        (30.0, 60.0, True, True),
    ],
)
def test_a_hurried_caller_says_nothing_about_the_target(
    silent_s: float, usual_ttft_s: float | None, between_tokens: bool, is_long: bool
) -> None:
    """A silence counts from twice the usual time on, half a second at least, or from the operator's own bound on."""
    budget = DeadlineBudget(RULE, request(), Clock())

    assert budget.is_silence_long(silent_s, usual_ttft_s, between_tokens) is is_long
