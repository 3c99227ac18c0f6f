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


def left_out(rows: Floats, outcomes: Floats, ridge: float, found: Floats) -> Floats:
    """Log odds of each row by the fit to all others: one Newton step away from the fit to all.

    Args:
        rows: Shape (rows, columns).
        outcomes: 0 or 1 for each row.
        ridge: As it was fitted with.
        found: The coefficients that were found.
    Source: approximate leave-one-out, Rad and Maleki 2020.
    """
    scores = rows @ found
    probabilities = sigmoid(scores)
    curvature = probabilities * (1 - probabilities)
    leverage = np.einsum("rc,rc->r", rows @ np.linalg.inv(_hessian(rows, curvature, ridge)), rows)
    without: Floats = scores - leverage * (outcomes - probabilities) / (1 - leverage * curvature)
    return without


def sigmoid(scores: Floats) -> Floats:
    """Turns log odds into probabilities, without overflow."""
    half: Floats = 0.5 * (1 + np.tanh(scores / 2))
    return half


def _newton_step(rows: Floats, outcomes: Floats, prior: Floats, ridge: float, at: Floats) -> Floats:
    probabilities = sigmoid(rows @ at)
    curvature = np.maximum(probabilities * (1 - probabilities), CURVATURE_MIN)
    gradient: Floats = rows.T @ (outcomes - probabilities) - ridge * (at - prior)
    return np.asarray(np.linalg.solve(_hessian(rows, curvature, ridge), gradient), np.float64)


def _hessian(rows: Floats, curvature: Floats, ridge: float) -> Floats:
    hessian: Floats = (rows * curvature[:, None]).T @ rows + ridge * np.eye(rows.shape[1])
    return hessian


def _loss(rows: Floats, outcomes: Floats, prior: Floats, ridge: float, at: Floats) -> float:
    scores = rows @ at
    penalty = 0.5 * ridge * np.sum((at - prior) ** 2)
    return float(np.logaddexp(0, scores).sum() - scores @ outcomes + penalty)
