"""Decides for one tenant whether a kept answer may be given for a similar question, and learns from comparisons.

Three outcomes: it is given; it would be given but is held back, so that the fresh answer can be compared with it; or it
is not sure enough, and the comparison is free, for the answer is produced afresh anyway. Of would-be hits at most a
fixed share is held back, and those more often that are less certain. Texts, vectors and entries are none of its
business.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import msgspec

from services.cache.semantic.calibration import NEVER, Calibration, Saved, fit
from services.cache.semantic.drift import DriftWatch, ModelWatch
from services.cache.semantic.estimate import HeldBack
from services.cache.semantic.logistic import Floats

# Would-be hits are held back with at least and at most that probability, so that none stands for too many.
HOLD_MIN, HOLD_MAX = 0.03, 0.5
# What is aimed at, as a part of the most that may be held back: more would cost hits, for labels are kept long.
HOLD_AIM: Final = 0.6
# Weight of the past in the mean uncertainty of would-be hits, and what it is taken for before there were any.
MEMORY: Final = 0.99
UNCERTAINTY_START: Final = 0.15
# Would-be hits that are allowed for before there were any, so that the first ones can be held back at all.
HEADROOM: Final = 5
# An error bound of 1 allows everything: nothing is to be learned then, and nothing is held back.
UNBOUNDED: Final = 1.0
# Bounds that are kept; others are rounded down to one of them, for each needs evidence of its own.
BOUNDS: Final = tuple(round(digit * 10.0**power, 7) for power in range(-6, 0) for digit in (1, 1.5, 2, 3, 5, 7))


class Outcome(Enum):
    """What becomes of a candidate."""

    ACCEPTED = auto()
    HELD_BACK = auto()
    UNSURE = auto()


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a candidate, and what a comparison will need to be learned from.

    `probability` is that the answer fits, None where nothing was calculated; `error_max` is the bound that was kept to;
    `weight` is one over the probability with which it was held back.
    """

    outcome: Outcome
    seen: Floats
    probability: float | None
    error_max: float
    weight: float = 1.0


def kept_bound(error_max: float) -> float:
    """The bound that is kept where one is asked for: the next of BOUNDS below it, itself if it is one of them."""
    return BOUNDS[max(bisect_right(BOUNDS, error_max * (1 + 1e-6)) - 1, 0)]  # it may come rounded to 32 bits


class Verifier:
    """Decides by what one tenant's comparisons have taught.

    Args:
        held_share_max: Most would-be hits that are held back, 0 to 1.
        random: Numbers in [0, 1).
        saved: What was learned before a restart.
    """

    def __init__(self, held_share_max: float, random: Callable[[], float], saved: Saved | None = None) -> None:
        self._held_share_max, self._random = held_share_max, random
        self._watches: dict[float, DriftWatch] = {}
        self._model_watch = ModelWatch()
        self._uncertainty = UNCERTAINTY_START
        self.calibration = Calibration(saved)
        self.held_back = HeldBack(saved.held if saved else ())
        self.would_be_count = self.held_count = self.alarm_count = 0

    def decide(
        self, seen: Floats, error_max: float, *, restated: bool, strikes: int = 0, is_far: bool = False
    ) -> Decision:
        """Decides on a candidate.

        Args:
            seen: Its features.
            error_max: The bound of this lookup, the operator's or a stricter one.
            restated: Whether the questions are the same but for their form; such need no evidence.
            strikes: How often answers around this one were reported wrong; each halves the doubt that is allowed.
            is_far: Whether it is as far away as a question of another field: then it is compared, and never given.
        """
        if error_max >= UNBOUNDED:
            return Decision(Outcome.ACCEPTED, seen, None, error_max)
        error_max = kept_bound(error_max)
        probability = self.calibration.fitted.probability(seen)
        threshold = NEVER if self._model_watch.doubts else self.calibration.fitted.threshold(error_max)
        if threshold < NEVER:
            threshold = 1 - (1 - threshold) / 2**strikes
        if (probability < threshold or is_far) and not (restated and not strikes):
            return Decision(Outcome.UNSURE, seen, probability, error_max)
        self.would_be_count += 1
        chance = self._chance(probability)
        allowed = self.held_count + 1 <= self._held_share_max * (self.would_be_count + HEADROOM)
        if allowed and self._random() < chance:
            self.held_count += 1
            return Decision(Outcome.HELD_BACK, seen, probability, error_max, 1 / chance)
        self.calibration.give(seen, error_max)
        return Decision(Outcome.ACCEPTED, seen, probability, error_max)

    def learn(self, decision: Decision, *, fits: bool, drawn: bool = True) -> None:
        """Learns from a comparison, and forgets what no longer holds.

        One that was made because the answer was wrong is not `drawn`, and stands for itself only.
        """
        if decision.probability is None:
            return
        number = self.calibration.label_count
        self.calibration.learn(
            decision.seen, decision.probability, fits=fits, error_max=decision.error_max, drawn=drawn
        )
        # Before anything was fitted, it foretells by the prior.
        watched, model = drawn and self.calibration.fitted.curves, self._model_watch
        if watched and model.see(fits=fits, probability=decision.probability, number=number):
            self._forget_before(model.since)
        if decision.outcome is not Outcome.HELD_BACK:
            return
        self.held_back.add(decision.weight, fits=fits)
        watch = self._watch(decision.error_max)
        if watch.see(fits=fits, weight=decision.weight, number=number):
            self._forget_before(watch.since)

    def refit(self) -> None:
        """Fits to what was learned, if enough is new."""
        if self.calibration.due:
            self.calibration.fitted = fit(self.calibration.snapshot(), self.calibration.fitted)

    def save(self) -> Saved:
        """What to keep over a restart."""
        return msgspec.structs.replace(self.calibration.save(), held=list(self.held_back.samples))

    def _forget_before(self, number: int) -> None:
        self.alarm_count += 1
        self.calibration.forget_before(number)

    def _watch(self, error_max: float) -> DriftWatch:
        """The watch over lookups of one bound."""
        return self._watches.setdefault(error_max, DriftWatch(error_max, 1 / HOLD_MIN))

    def _chance(self, probability: float) -> float:
        """How probably a would-be hit is held back: in proportion to its uncertainty, the aim on average."""
        uncertainty = math.sqrt(probability * (1 - probability))
        chance = HOLD_AIM * self._held_share_max * uncertainty / max(self._uncertainty, 1e-6)
        self._uncertainty = MEMORY * self._uncertainty + (1 - MEMORY) * uncertainty
        return min(HOLD_MAX, max(HOLD_MIN, chance))
