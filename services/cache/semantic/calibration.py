"""What one tenant's comparisons have taught: how probable it is that an answer fits, and from where on to trust that.

Each comparison of a kept answer with a fresh one is a label. Labels below the threshold cost nothing, for those lookups
are answered afresh anyway; above it some would-be hits are held back, each with a known probability, and count for as
many as they stand for. A logistic model turns features into a probability. It is fitted on halves, so that every label
is judged by a model that has not seen it; the threshold is then the lowest for which the share of wrong answers above
it, by an upper bound, is within the error that is allowed. docs/semantic-cache.md states what that guarantees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from services.cache.semantic import features, logistic
from services.cache.semantic.logistic import Floats

# Labels kept: those that were likely to fit teach most about the threshold and are rare, so they stay longer.
NEAR_MAX: Final = 3000
FAR_MAX: Final = 1000
FAR_PROBABILITY: Final = 0.25
# Before that many labels nothing is fitted; a fit then serves until there are so many more, or such a share more.
FIT_MIN: Final = 60
REFIT_EVERY: Final = 40
REFIT_SHARE: Final = 0.05
RIDGE: Final = 1.0
# One-sided confidence of the bound on wrong answers.
CONFIDENCE_Z: Final = 1.2816  # 90 %
# How far the model is trusted before wrong answers were counted: as if it had foretold that many of them, rightly.
TRUST: Final = 1.0
# Labels, by their effective number, below which no bound is believed.
EVIDENCE_MIN: Final = 20.0
# Above every probability: nothing is accepted.
NEVER: Final = 2.0


@dataclass(frozen=True, slots=True)
class Label:
    """One comparison: what was seen, whether the answer fitted, how many such lookups it stands for, and its number."""

    seen: Floats
    fits: bool
    weight: float
    number: int


# A label's fields as they are kept over a restart.
SavedLabel = tuple[list[float], bool, float, int]


class Saved(msgspec.Struct, frozen=True, array_like=True):
    """Labels as they are kept over a restart."""

    near: list[SavedLabel]
    far: list[SavedLabel]
    label_count: int
    held: list[tuple[float, bool]] = []


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model and what was seen of it, most probable first: item n of each array is for accepting n + 1 labels.

    Attributes:
        halves: The coefficients of each half.
        probabilities: Of each label, by the half that has not seen it.
        bounds: Upper bound on the share of wrong answers, by the model as corrected by what was counted.
        counted: Median of that share by what was counted alone.
        evidence: Effective number of labels.
    """

    halves: tuple[Floats, Floats]
    probabilities: Floats = field(default_factory=lambda: np.empty(0))
    bounds: Floats = field(default_factory=lambda: np.empty(0))
    counted: Floats = field(default_factory=lambda: np.empty(0))
    evidence: Floats = field(default_factory=lambda: np.empty(0))

    def probability(self, seen: Floats) -> float:
        """How probable it is that an answer fits."""
        return float(logistic.sigmoid(np.array((seen @ self.halves[0] + seen @ self.halves[1]) / 2)))

    def threshold(self, error_max: float) -> float:
        """The lowest probability from which on wrong answers are within the error; NEVER if there is none."""
        believed = self.evidence >= EVIDENCE_MIN
        exceeding = np.flatnonzero(believed & (self.bounds > error_max))
        within = np.flatnonzero((believed & (self.counted <= error_max))[: exceeding[0] if len(exceeding) else None])
        return float(self.probabilities[within[-1]]) if len(within) else NEVER


class Calibration:
    """The labels of one tenant and the model fitted to them."""

    def __init__(self, saved: Saved | None = None) -> None:
        self._near: deque[Label] = deque(map(_read, saved.near if saved else ()), NEAR_MAX)
        self._far: deque[Label] = deque(map(_read, saved.far if saved else ()), FAR_MAX)
        self.label_count = saved.label_count if saved else 0
        self._fit_at = FIT_MIN
        self.fitted = Fitted((features.PRIOR, features.PRIOR))

    @property
    def due(self) -> bool:
        """Whether there is enough that is new to fit again."""
        return self.label_count >= self._fit_at

    def learn(self, seen: Floats, probability: float, *, fits: bool, weight: float = 1.0) -> None:
        """Adds a label; `weight` is one over the probability with which the lookup was chosen to be compared."""
        label = Label(seen, fits, weight, self.label_count)
        (self._far if probability < FAR_PROBABILITY else self._near).append(label)
        self.label_count += 1

    def snapshot(self) -> list[Label]:
        """The labels to fit to; takes them as fitted."""
        self._fit_at = self.label_count + max(REFIT_EVERY, round(self.label_count * REFIT_SHARE))
        return sorted([*self._near, *self._far], key=lambda label: label.number)

    def forget_before(self, number: int) -> None:
        """Forgets the labels before one, and trusts nothing until there are enough again."""
        self._near = deque((label for label in self._near if label.number >= number), NEAR_MAX)
        self._far = deque((label for label in self._far if label.number >= number), FAR_MAX)
        self.fitted = Fitted(self.fitted.halves)
        self._fit_at = self.label_count + FIT_MIN

    def save(self) -> Saved:
        """What to keep over a restart."""
        return Saved(list(map(_write, self._near)), list(map(_write, self._far)), self.label_count)


def fit(labels: Sequence[Label], start: Fitted) -> Fitted:
    """Fits a model on each half of the labels, and bounds the wrong answers by the half that it has not seen.

    Takes some 10 ms for 4,000 labels, and may run in a thread.
    """
    seen = np.stack([label.seen for label in labels])
    fits = np.array([label.fits for label in labels], float)
    weights = np.array([label.weight for label in labels])
    odd = np.array([label.number % 2 for label in labels], bool)
    halves = tuple(
        logistic.fit(seen[half], fits[half], features.PRIOR, RIDGE, start.halves[which])
        for which, half in enumerate((~odd, odd))
    )
    unseen = np.where(odd, seen @ halves[0], seen @ halves[1])
    order = np.argsort(-unseen, kind="stable")
    probabilities = logistic.sigmoid(unseen[order])
    return Fitted((halves[0], halves[1]), probabilities, *_bounds(probabilities, fits[order], weights[order]))


def _read(saved: SavedLabel) -> Label:
    seen, fits, weight, number = saved
    return Label(np.array(seen), fits, weight, number)


def _write(label: Label) -> SavedLabel:
    return np.round(label.seen, 4).tolist(), label.fits, label.weight, label.number


def _bounds(probabilities: Floats, fits: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
    """Bounds and counts of wrong answers among the first of the labels, and the evidence for each.

    The model foretells a share; wrong answers that were counted correct it. Their rate over what was foretold has a
    Gamma posterior (Poisson counts, prior Gamma(TRUST, TRUST)), whose upper quantile multiplies the share. Where a
    part of the answers is wrong without a sign, no model foretells it: so the count by itself has a say too.
    """
    total = np.cumsum(weights)
    evidence = total**2 / np.cumsum(weights**2)
    foretold_share = np.cumsum(weights * (1 - probabilities)) / total
    wrong = np.cumsum(weights * (1 - fits)) / total * evidence
    foretold = foretold_share * evidence
    bounds = foretold_share * gamma_quantile(wrong + TRUST, CONFIDENCE_Z) / (foretold + TRUST)
    return bounds, gamma_quantile(wrong + 1, 0.0) / evidence, evidence


def gamma_quantile(shape: Floats, z: float) -> Floats:
    """The quantile of Gamma(shape, 1) at a normal deviate, for shapes of 1 and more within 1 %.

    Source: Wilson and Hilferty 1931.
    """
    quantile: Floats = shape * (1 - 1 / (9 * shape) + z / (3 * np.sqrt(shape))) ** 3
    return quantile
