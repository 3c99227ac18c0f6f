"""The regression finds what is there, and does not run away where the data would let it."""

import numpy as np
import pytest

from services.cache.semantic.logistic import fit, sigmoid

PRIOR = np.zeros(3)


def test_it_finds_the_coefficients():
    """With many rows the coefficients that made the outcomes are found."""
    random = np.random.default_rng(1)
    truth = np.array([-0.5, 1.5, -2.0])
    rows = np.column_stack([np.ones(20_000), random.normal(size=(20_000, 2))])
    outcomes = (random.random(20_000) < sigmoid(rows @ truth)).astype(float)

    assert fit(rows, outcomes, PRIOR, 1.0) == pytest.approx(truth, abs=0.1)


def test_separable_rows_stay_finite():
    """Rows that a line separates would send the coefficients to infinity; the prior holds them."""
    rows = np.array([[1.0, -5.0, 0.0], [1.0, 5.0, 0.0]] * 50)

    found = fit(rows, np.array([0.0, 1.0] * 50), PRIOR, 1.0)

    assert np.all(np.abs(found) < 10)
    assert sigmoid(rows @ found)[:2] == pytest.approx([0, 1], abs=0.05)


def test_a_strong_prior_wins():
    """Where little was seen, what was believed before stays."""
    prior = np.array([0.3, -0.2, 1.0])

    assert fit(np.ones((2, 3)), np.ones(2), prior, 1e6) == pytest.approx(prior, abs=1e-4)


@pytest.mark.parametrize("start", [np.full(3, 50.0), np.full(3, -50.0)])
def test_any_start_leads_to_the_same(start):
    """A start far off, where plain Newton steps overshoot, ends where the prior's does."""
    random = np.random.default_rng(2)
    rows = random.normal(size=(200, 3))
    outcomes = (random.random(200) < sigmoid(rows @ np.array([1.0, -1.0, 0.5]))).astype(float)

    found = fit(rows, outcomes, PRIOR, 1.0, start)

    assert found == pytest.approx(fit(rows, outcomes, PRIOR, 1.0), abs=0.05)
