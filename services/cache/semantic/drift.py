"""Notices that hits have become wrong more often than is allowed.

The calibration learns slowly from what is held back; when the world changes (new meanings, a changed model) old labels
speak for hits that are wrong now. This bets against the bound with every would-be hit: the stake grows when those held
back turn out wrong, and shrinks when they fit. While wrong answers are within the bound no betting wins in the long
run, whatever the order of lookups, so a large stake is evidence that they are not, at any time and however often one
looks: an e-detector (Shin, Ramdas and Rinaldo 2022). It forgets nothing itself; its owner acts.
"""

from __future__ import annotations

from typing import Final

# The stake that is an alarm. While the bound holds, false alarms are at least that many would-be hits apart on average.
ALARM: Final = 1000.0
# What is bet: half of what would lose all at the least probable of holdings back.
BOLDNESS: Final = 0.5


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
