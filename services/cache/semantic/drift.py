"""Notices that hits have become wrong more often than is allowed, or that the model foretells nothing any more.

The calibration learns slowly from what is held back; when the world changes (new meanings, a changed model) old labels
speak for hits that are wrong now. This bets against the bound with every would-be hit: the stake grows when those held
back turn out wrong, and shrinks when they fit. While wrong answers are within the bound no betting wins in the long
run, whatever the order of lookups, so a large stake is evidence that they are not, at any time and however often one
looks: an e-detector (Shin, Ramdas and Rinaldo 2022). It forgets nothing itself; its owner acts.

Few would-be hits are held back, but all that is below the threshold is compared, and when the world changes that turns
wrong too. So a second bet goes against the model, with every comparison: that answers fit much less often than it says.
"""

from __future__ import annotations

from typing import Final

# The stake that is an alarm. While the bound holds, false alarms are at least that many would-be hits apart on average.
ALARM: Final = 1000.0
# What is bet: half of what would lose all at the least probable of holdings back.
BOLDNESS: Final = 0.5
# What part of the answers that the model foretells to fit must fit, or it is wrong: it may well be a little too sure.
TRUSTED: Final = 0.8
# What is bet against the model: that part of what would lose all.
MODEL_BOLDNESS: Final = 0.8
# Comparisons that decide whether a model that is doubted is refuted: so many that they are of several questions, and
# what part of those that it foretold to fit must have fitted, or it is.
DOUBTED: Final = 30
REFUTED: Final = 0.5
# Below that probability little was foretold that could be refuted.
FORETOLD_MIN: Final = 0.25


class DriftWatch:
    """Bets on one stream of would-be hits.

    Args:
        error_max: The share of wrong answers that is allowed.
        weight_max: Most that one that is held back may stand for.
    """

    def __init__(self, error_max: float, weight_max: float) -> None:
        self._error_max = error_max
        self._bet = BOLDNESS / (weight_max * error_max)
        self._stake = 1.0
        self.since = 0

    def see(self, *, fits: bool, weight: float, number: int) -> bool:
        """Takes in a would-be hit that was held back and compared; true is an alarm, and starts anew.

        Since when there was reason for it, `since` tells: the number of the first comparison of the streak.
        """
        if self._stake <= 1.0:
            self._stake, self.since = 1.0, number
        self._stake *= 1 + self._bet * weight * ((not fits) - self._error_max)
        if self._stake < ALARM:
            return False
        self._stake = 1.0
        return True


class ModelWatch:
    """Bets against one model with all that is compared, whether it was sure enough to be given or not.

    Who asks again asks soon, so that a few questions may win a bet. An alarm is therefore only doubt: nothing
    is to be given meanwhile, and what is compared next decides.
    """

    def __init__(self) -> None:
        self._stake = 1.0
        self._left = 0
        self._fitting = self._foretold = 0.0
        self.since = 0

    @property
    def doubts(self) -> bool:
        """Whether nothing is to be given, until more was compared."""
        return self._left > 0

    def see(self, *, fits: bool, probability: float, number: int) -> bool:
        """Takes in a comparison and how probably it was foretold to fit; true says that the model is refuted.

        Since when there was reason for it, `since` tells: the number of the first comparison of the streak.
        """
        if probability < FORETOLD_MIN:
            return False
        if self.doubts:
            return self._refuted(fits=fits, probability=probability)
        if self._stake <= 1.0:
            self._stake, self.since = 1.0, number
        allowed = 1 - TRUSTED * probability
        self._stake *= 1 + MODEL_BOLDNESS * ((not fits) / allowed - 1)
        if self._stake >= ALARM:
            self._stake, self._left = 1.0, DOUBTED
            self._fitting = self._foretold = 0.0
        return False

    def _refuted(self, *, fits: bool, probability: float) -> bool:
        """Whether less than a part of what was foretold did fit, once enough was compared."""
        self._fitting, self._foretold = self._fitting + fits, self._foretold + probability
        self._left -= 1
        return not self.doubts and self._fitting < REFUTED * self._foretold
