"""What one tenant's comparisons have taught: how probable it is that an answer fits, and from where on to trust that.

Each comparison of a kept answer with a fresh one is a label. Labels below the threshold cost nothing, for those lookups
are answered afresh anyway; above it some would-be hits are held back, and stand for those like them that were given. A
logistic model turns features into a probability, and every label is judged by a model that has seen nothing of its
time. The threshold of a bound is then the lowest for which the share of wrong answers above it, by an upper bound, is
within it. The model learns from all labels; what a bound is kept by are the lookups that asked for it, for who asks for
another one may ask otherwise. docs/semantic-cache.md states what that guarantees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from services.cache.semantic import features, logistic
from services.cache.semantic.logistic import Floats

Numbers = npt.NDArray[np.int64]

# Labels kept: those that were likely to fit teach most about the threshold and are rare, so they stay longer.
NEAR_MAX: Final = 3000
FAR_MAX: Final = 1000
FAR_PROBABILITY: Final = 0.25
# Lookups kept of those that were given an answer: when there are more, every other one, each for twice as many.
GIVEN_MAX: Final = 2000
# Labels among which each of those is shared out, the nearest by probability: fewer weigh unevenly, more blur.
ALIKE: Final = 20
# The present, by whose mix of scores wrong answers are counted: that share of the lookups, and at least so many. For
# what is kept grows, and later lookups are surer.
PRESENT_SHARE: Final = 1 / 3
PRESENT_MIN: Final = 100
# Before that many labels nothing is fitted; a fit then serves until there are so many more, or such a share more.
FIT_MIN: Final = 60
REFIT_EVERY: Final = 40
REFIT_SHARE: Final = 0.05
RIDGE: Final = 1.0
# Stretches of time whose labels are judged by the model of all others: who asks a question again does so soon.
STRETCHES: Final = 6
# One-sided confidence of the bound on wrong answers, of the share by the count alone, and of that count where it first
# has to hold: where a part is wrong without a sign, chance must not open what then takes hundreds of hits to close.
CONFIDENCE_Z: Final = 1.2816  # 90 %
COUNTED_Z: Final = 0.5244  # 70 %
FOUNDED_Z: Final = 1.0364  # 85 %
# How far the model is trusted before wrong answers were counted: as if it had foretold that many of them, rightly.
TRUST: Final = 1.0
# No answer is surer than that: a model that is surer has seen too little.
DOUBT_MIN: Final = 1e-6
# Labels, by their effective number, below which no bound is believed.
EVIDENCE_MIN: Final = 20.0
# Above every probability: nothing is accepted.
NEVER: Final = 2.0


@dataclass(frozen=True, slots=True)
class Label:
    """One comparison: what was seen, whether the answer fitted, its number, and the bound of the lookup.

    `drawn` is whether the answer's being wrong had no part in its being compared, as it has where a caller reports it.
    """

    seen: Floats
    fits: bool
    number: int
    error_max: float
    drawn: bool = True


@dataclass(frozen=True, slots=True)
class Given:
    """A lookup that was given the kept answer, which nobody compared, the number of the next label, and its bound."""

    seen: Floats
    number: int
    error_max: float


@dataclass(frozen=True, slots=True)
class Sample:
    """What to fit to: labels by number, and lookups that were given, each of them for so many."""

    labels: Sequence[Label]
    given: Sequence[Given]
    each: int


# A label's and a given lookup's fields as they are kept over a restart.
SavedLabel = tuple[list[float], bool, int, float, bool]
SavedGiven = tuple[list[float], int, float]


class Saved(msgspec.Struct, frozen=True, array_like=True):
    """Labels and given lookups as they are kept over a restart."""

    near: list[SavedLabel]
    far: list[SavedLabel]
    label_count: int
    given: list[SavedGiven]
    each: int
    held: list[tuple[float, bool]] = []


@dataclass(frozen=True, slots=True)
class Curve:
    """What was seen of the lookups of one bound, most probable first: item n is for accepting n + 1 labels.

    Attributes:
        probabilities: Of each label, by a model that has not seen it.
        bounds: Upper bound on the share of wrong answers, by the model as corrected by what was counted.
        counted: Upper bound on that share by what was counted alone, with less confidence.
        founded: The same with more confidence, the least down to there: what is most probable to fit has to be proven.
        evidence: Effective number of labels.
    """

    probabilities: Floats
    bounds: Floats
    counted: Floats
    founded: Floats
    evidence: Floats

    def threshold(self, error_max: float) -> float:
        """The lowest probability from which on wrong answers are within the error; NEVER if there is none."""
        believed = self.evidence >= EVIDENCE_MIN
        exceeding = np.flatnonzero(believed & (self.bounds > error_max))
        counted = believed & (self.counted <= error_max) & (self.founded <= error_max)
        within = np.flatnonzero(counted[: exceeding[0] if len(exceeding) else None])
        return float(self.probabilities[within[-1]]) if len(within) else NEVER


@dataclass(frozen=True, slots=True)
class Fitted:
    """A model's coefficients, and what was seen of it by the bound of the lookups."""

    coefficients: Floats
    curves: Mapping[float, Curve] = field(default_factory=dict)

    def probability(self, seen: Floats) -> float:
        """How probable it is that an answer fits."""
        return float(logistic.sigmoid(np.asarray(seen @ self.coefficients)))

    def threshold(self, error_max: float) -> float:
        """The probability from which on answers are given to lookups of a bound; NEVER if there is none."""
        curve = self.curves.get(error_max)
        return NEVER if curve is None else curve.threshold(error_max)


class Calibration:
    """The labels of one tenant and the model fitted to them."""

    def __init__(self, saved: Saved | None = None) -> None:
        self._near: deque[Label] = deque(map(_read, saved.near if saved else ()), NEAR_MAX)
        self._far: deque[Label] = deque(map(_read, saved.far if saved else ()), FAR_MAX)
        self._given = deque(Given(np.array(seen), n, bound) for seen, n, bound in (saved.given if saved else ()))
        self._each = saved.each if saved else 1
        self._passed_count = 0
        self.label_count = saved.label_count if saved else 0
        self._fit_at = FIT_MIN
        self.fitted = Fitted(features.PRIOR)

    @property
    def due(self) -> bool:
        """Whether there is enough that is new to fit again."""
        return self.label_count >= self._fit_at

    def learn(self, seen: Floats, probability: float, *, fits: bool, error_max: float, drawn: bool = True) -> None:
        """Adds a label."""
        label = Label(seen, fits, self.label_count, error_max, drawn)
        (self._far if probability < FAR_PROBABILITY else self._near).append(label)
        self.label_count += 1

    def give(self, seen: Floats, error_max: float) -> None:
        """Notes a lookup that was given its answer: labels like it stand for it."""
        self._passed_count += 1
        if self._passed_count % self._each:
            return
        self._given.append(Given(seen, self.label_count, error_max))
        if len(self._given) > GIVEN_MAX:
            self._given = deque(list(self._given)[::2])
            self._each *= 2

    def snapshot(self) -> Sample:
        """What to fit to; takes it as fitted."""
        self._fit_at = self.label_count + max(REFIT_EVERY, round(self.label_count * REFIT_SHARE))
        if len(self._near) == NEAR_MAX:
            self._forget_given_before(self._near[0].number)
        labels = sorted([*self._near, *self._far], key=lambda label: label.number)
        return Sample(labels, list(self._given), self._each)

    def forget_before(self, number: int) -> None:
        """Forgets what came before a label, and trusts nothing until there are enough again."""
        self._near = deque((label for label in self._near if label.number >= number), NEAR_MAX)
        self._far = deque((label for label in self._far if label.number >= number), FAR_MAX)
        self._forget_given_before(number)
        self.fitted = Fitted(self.fitted.coefficients)
        self._fit_at = self.label_count + FIT_MIN

    def save(self) -> Saved:
        """What to keep over a restart."""
        given = [
            (row, given.number, given.error_max) for row, given in zip(_rounded(self._given), self._given, strict=True)
        ]
        return Saved(_written(self._near), _written(self._far), self.label_count, given, self._each)

    def _forget_given_before(self, number: int) -> None:
        """Keeps to the time from which labels are kept, so that they stand for that time's lookups."""
        while self._given and self._given[0].number < number:
            self._given.popleft()


def fit(sample: Sample, start: Fitted) -> Fitted:
    """Fits a model, and bounds the wrong answers by what models foretell that have not seen the labels.

    Takes some 15 ms for 4,000 labels, and may run in a thread.
    """
    seen = np.stack([label.seen for label in sample.labels])
    fits = np.array([label.fits for label in sample.labels], float)
    coefficients = logistic.fit(seen, fits, features.PRIOR, RIDGE, start.coefficients)
    scores = _unseen(seen, fits, coefficients)
    given = np.stack([given.seen for given in sample.given]) @ coefficients if sample.given else np.empty(0)
    given_bounds = np.array([given.error_max for given in sample.given])
    given_numbers = np.array([given.number for given in sample.given])
    numbers = np.array([label.number for label in sample.labels])
    drawn = np.array([label.drawn for label in sample.labels], bool)
    bounds = np.array([label.error_max for label in sample.labels])
    curves = {}
    for bound in np.unique(bounds[drawn]).tolist():
        asked = drawn & (bounds == bound)
        passed = given_bounds == bound
        since = _present(numbers[asked], given_numbers[passed], sample.each)
        weights = np.ones(len(scores))
        weights[asked] = _shares(scores[asked], scores[asked & (numbers >= since)])
        weights[asked] += sample.each * _shares(scores[asked], given[passed & (given_numbers >= since)])
        order = np.flatnonzero((asked | ~drawn) & (weights > 0))
        order = order[np.argsort(-scores[order], kind="stable")]
        curves[bound] = _curve(logistic.sigmoid(scores[order]), fits[order], weights[order])
    return Fitted(coefficients, curves)


def _present(labels: Numbers, given: Numbers, each: int) -> int:
    """The number of the label with which the present begins, by the numbers of labels and of given lookups."""
    numbers = np.concatenate([labels, np.repeat(given, each)])
    return int(np.sort(numbers)[-min(len(numbers), max(PRESENT_MIN, round(PRESENT_SHARE * len(numbers))))])


def _unseen(seen: Floats, fits: Floats, coefficients: Floats) -> Floats:
    """The score of each label by the model that the labels of other stretches of time give.

    A question that is asked several times in a row makes labels that know each other: left out one by one, each would
    be foretold by its twins, and skill be seen that new questions do not meet.
    """
    stretch = np.arange(len(fits)) * STRETCHES // len(fits)
    scores = np.empty(len(fits))
    for number in range(STRETCHES):
        own = stretch == number
        scores[own] = seen[own] @ logistic.fit(seen[~own], fits[~own], features.PRIOR, RIDGE, coefficients)
    return scores


def _read(saved: SavedLabel) -> Label:
    seen, fits, number, error_max, drawn = saved
    return Label(np.array(seen), fits, number, error_max, drawn)


def _written(labels: Sequence[Label]) -> list[SavedLabel]:
    return [
        (row, label.fits, label.number, label.error_max, label.drawn)
        for row, label in zip(_rounded(labels), labels, strict=True)
    ]


def _rounded(kept: Iterable[Label | Given]) -> list[list[float]]:
    rows: list[list[float]] = np.round([one.seen for one in kept], 4).tolist()
    return rows


def _shares(scores: Floats, given: Floats) -> Floats:
    """How many of some lookups each label stands for, by the scores of both.

    Whether an answer fits does not depend on when or whether it was compared, given its score. So a label needs not
    stand for one over the probability with which it was chosen at its moment, which leaps as the threshold moves: each
    lookup is shared out among the labels nearest to it in score, so that a label stands for its part of all lookups
    like it, as if chosen with their mean probability (the balance heuristic of multiple importance sampling, Veach and
    Guibas 1995; as weights of strata, Holt and Smith 1979). A label's score is that of a model that has not seen it,
    as no model has seen the given ones: its own would lie on the side of its outcome.
    """
    order = np.argsort(-scores, kind="stable")
    # The middle of those that are equal, so that which of them was first has no say.
    at = (np.searchsorted(-scores[order], -given, "left") + np.searchsorted(-scores[order], -given, "right")) // 2
    alike = min(ALIKE, len(order))
    first = np.clip(at - alike // 2, 0, len(order) - alike)
    begun, ended = (np.bincount(steps, minlength=len(order) + 1) for steps in (first, first + alike))
    shares = np.empty(len(order))
    shares[order] = np.cumsum(begun - ended)[:-1] / alike
    return shares


def _curve(probabilities: Floats, fits: Floats, weights: Floats) -> Curve:
    """Bounds on wrong answers among the first of the labels, by model and by count, and the evidence for each.

    The model foretells a share; wrong answers that were counted correct it. Their rate over what was foretold has a
    Gamma posterior (Poisson counts, prior Gamma(TRUST, TRUST)), whose upper quantile multiplies the share. Of weighted
    counts the unit is the mean weight of those that are wrong, here as foretold (Fay and Feuer 1997): sure answers that
    stand for many each say little of how surely the share is known. Where a part of the answers is wrong without a
    sign, no model foretells it: so the count by itself has a say too.
    """
    total = np.cumsum(weights)
    evidence = total**2 / np.cumsum(weights**2)
    doubts = np.maximum(1 - probabilities, DOUBT_MIN)
    foretold, wrong = np.cumsum(weights * doubts), np.cumsum(weights * (1 - fits))
    each = np.cumsum(weights**2 * doubts) / foretold
    bounds = foretold / total * gamma_quantile(wrong / each + TRUST, CONFIDENCE_Z) / (foretold / each + TRUST)
    counted, surely = (gamma_quantile(wrong / total * evidence + 1, z) / evidence for z in (COUNTED_Z, FOUNDED_Z))
    founded = np.minimum.accumulate(np.where(evidence >= EVIDENCE_MIN, surely, np.inf))
    return Curve(probabilities, bounds, counted, founded, evidence)


def gamma_quantile(shape: Floats, z: float) -> Floats:
    """The quantile of Gamma(shape, 1) at a normal deviate, for shapes of 1 and more within 1 %.

    Source: Wilson and Hilferty 1931.
    """
    quantile: Floats = shape * (1 - 1 / (9 * shape) + z / (3 * np.sqrt(shape))) ** 3
    return quantile
