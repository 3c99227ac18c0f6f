"""How well a score tells pairs that mean the same from those that do not: precision and recall at every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

# Precisions at which the recall is told: one wrong answer in 10, 20 and 50.
PRECISIONS = (0.90, 0.95, 0.98)


@dataclass(frozen=True, slots=True)
class Level:
    """What accepting all scores from a threshold upwards means."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Curve:
    """One score over all pairs.

    Attributes:
        name: What the score is.
        levels: From the highest threshold down.
    """

    name: str
    levels: Sequence[Level]

    @property
    def average_precision(self) -> float:
        """The precision, averaged over the recall."""
        steps = zip([0.0, *(level.recall for level in self.levels)], self.levels, strict=False)
        return sum((level.recall - before) * level.precision for before, level in steps)

    def best_at(self, precision: float) -> Level | None:
        """The level of highest recall that is at least so precise."""
        fitting = [level for level in self.levels if level.precision >= precision]
        return max(fitting, key=lambda level: level.recall, default=None)

    def record(self) -> dict[str, float | str]:
        """The curve as the JSON file has it."""
        record: dict[str, float | str] = {"score": self.name, "average_precision": round(self.average_precision, 6)}
        for precision in PRECISIONS:
            best = self.best_at(precision)
            record[f"recall_at_{precision:.2f}"] = round(best.recall, 6) if best else 0.0
        return record


def curve(name: str, scores: Sequence[float], same: Sequence[bool]) -> Curve:
    """Ranks pairs by a score and accepts one after the other; those of equal scores are accepted together."""
    levels, accepted, right, total = [], 0, 0, sum(same)
    ordered = sorted(zip(scores, same, strict=True), reverse=True)
    for score, group in groupby(ordered, key=lambda pair: pair[0]):
        fits = [fit for _, fit in group]
        accepted, right = accepted + len(fits), right + sum(fits)
        levels.append(Level(score, right / accepted, right / total if total else 0.0))
    return Curve(name, levels)
