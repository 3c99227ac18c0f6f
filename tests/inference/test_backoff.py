"""The wait before a repeated try: jittered, doubled, bounded, and never shorter than what the target asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.attempts.backoff import backoff_s
from services.inference.routing.rules import RetryRule

RULE = RetryRule(backoff_s=0.25, backoff_s_max=5.0)


@pytest.mark.parametrize(("number", "bound_s"), [(0, 0.25), (1, 0.5), (2, 1.0), (4, 4.0), (5, 5.0), (10, 5.0)])
def test_bound_doubles_up_to_its_own(number: int, bound_s: float):
    """The draw is spread over the whole of a bound that doubles with each repeated try and then stays."""
    assert backoff_s(RULE, number, None, lambda: 0.0) == 0
    assert backoff_s(RULE, number, None, lambda: 0.5) == bound_s / 2


@given(
    st.integers(0, 10),
    st.none() | st.floats(0, 1e6),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.001, 100),
    st.floats(0.001, 100),
)
def test_wait_lies_between_what_was_asked_and_the_bound(
    number: int, asked_s: float | None, drawn: float, first_s: float, max_s: float
):
    """It is never shorter than what the target asked for, and longer only as far as the rule's bounds allow."""
    wait_s = backoff_s(RetryRule(backoff_s=first_s, backoff_s_max=max_s), number, asked_s, lambda: drawn)

    assert (asked_s or 0) <= wait_s <= max(asked_s or 0, min(max_s, first_s * 2**number))
