"""Logistic regression with a Gaussian prior, small and exact: a few thousand rows, two dozen columns.

Solved by Newton's method with step halving, for a plain Newton step overshoots where rows are nearly separable. This
module knows nothing of what the columns mean.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS_MAX: Final = 20
# A step that improves the log posterior by less, or has to be halved further, is the last.
GAIN_MIN: Final = 1e-3
STEP_MIN: Final = 1e-3
CURVATURE_MIN: Final = 1e-6


def fit(rows: Floats, outcomes: Floats, prior: Floats, ridge: float, start: Floats | None = None) -> Floats:
    """Finds the coefficients that are most probable a posteriori.

    Args:
        rows: Shape (rows, columns).
        outcomes: 0 or 1 for each row.
        prior: Mean of each coefficient.
        ridge: Precision of the prior, the same for each coefficient; above 0.
        start: Where to start; the prior if absent.
    """
    found = (prior if start is None else start).copy()
    loss = _loss(rows, outcomes, prior, ridge, found)
    for _ in range(STEPS_MAX):
        step = _newton_step(rows, outcomes, prior, ridge, found)
        size = 1.0
        while (next_loss := _loss(rows, outcomes, prior, ridge, found + size * step)) > loss and size > STEP_MIN:
            size /= 2
        if size <= STEP_MIN:
            break
        found += size * step
        if loss - next_loss < GAIN_MIN:
            break
        loss = next_loss
    return found


def sigmoid(scores: Floats) -> Floats:
    """Turns log odds into probabilities, without overflow."""
    half: Floats = 0.5 * (1 + np.tanh(scores / 2))
    return half


def _newton_step(rows: Floats, outcomes: Floats, prior: Floats, ridge: float, at: Floats) -> Floats:
    probabilities = sigmoid(rows @ at)
    curvature = np.maximum(probabilities * (1 - probabilities), CURVATURE_MIN)
    hessian: Floats = (rows * curvature[:, None]).T @ rows + ridge * np.eye(len(at))
    gradient: Floats = rows.T @ (outcomes - probabilities) - ridge * (at - prior)
    return np.asarray(np.linalg.solve(hessian, gradient), np.float64)


def _loss(rows: Floats, outcomes: Floats, prior: Floats, ridge: float, at: Floats) -> float:
    scores = rows @ at
    penalty = 0.5 * ridge * np.sum((at - prior) ** 2)
    return float(np.logaddexp(0, scores).sum() - scores @ outcomes + penalty)
