"""The retry budget: repeated tries stay a share of recent calls, and rare traffic may retry all the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.inference.attempts.retry_budget import WINDOW_S, RetryBudget
from services.inference.routing.rules import RetryRule
from tests.inference.clocks import ManualClock


def withdrawals(budget: RetryBudget, tries: int) -> int:
    return sum(budget.withdraw() for _ in range(tries))


def test_rare_calls_may_retry():
    """A target of no traffic at all has the smallest budget, no more."""
    assert withdrawals(RetryBudget(RetryRule(), ManualClock()), 100) == 10


def test_budget_is_a_share_of_calls():
    """A dead target of a thousand calls sees a fifth of them again, beside the smallest budget."""
    budget = RetryBudget(RetryRule(), ManualClock())
    for _ in range(1_000):
        budget.deposit()

    assert withdrawals(budget, 1_000) == 210


def test_budget_comes_back():
    """What was taken is there again after the window, and old calls give nothing any more."""
    clock = ManualClock()
    budget = RetryBudget(RetryRule(), clock)
    for _ in range(1_000):
        budget.deposit()
    assert withdrawals(budget, 1_000) == 210

    clock.turn(WINDOW_S)
    assert withdrawals(budget, 1_000) == 10


def test_no_budget():
    """A rule without share and minimum forbids every repeated try."""
    budget = RetryBudget(RetryRule(budget_share=0, budget_count_min=0), ManualClock())
    budget.deposit()

    assert not budget.withdraw()


def test_another_rule_holds_at_once():
    """A new rule is measured against what was taken under the old one."""
    budget = RetryBudget(RetryRule(budget_count_min=10), ManualClock())
    assert withdrawals(budget, 6) == 6

    budget.rule = RetryRule(budget_count_min=7)
    assert withdrawals(budget, 10) == 1


STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 2.0, 9.5]), st.integers(0, 8), st.integers(0, 4)), max_size=80)


@given(STEPS, st.floats(0, 1), st.integers(0, 5))
def test_retries_never_exceed_the_share(steps: list[tuple[float, int, int]], share: float, least: int):
    """In the window of any withdrawal there are at most as many as the share of its calls and the minimum allow."""
    clock = ManualClock()
    budget = RetryBudget(RetryRule(budget_share=share, budget_count_min=least), clock)
    called: list[float] = []
    taken: list[float] = []
    for wait_s, calls, tries in steps:
        clock.turn(wait_s)
        for _ in range(calls):
            budget.deposit()
            called.append(clock())
        for _ in range(tries):
            if budget.withdraw():
                taken.append(clock())
                recent = sum(clock() - at < 0.9 * WINDOW_S - 1e-6 for at in taken)
                assert recent <= share * sum(clock() - at <= WINDOW_S for at in called) + least + 1e-9
