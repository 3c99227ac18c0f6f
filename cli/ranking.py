"""What a detector's scores and findings are worth against labels: areas, rates and spans. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Span(NamedTuple):
    """A labelled range of one text."""

    text_index: int
    start: int
    end: int


class Rates(NamedTuple):
    """Precision and recall and what is made of them; 0 where nothing was found or there was nothing to find."""

    precision: float
    recall: float

    def f(self, beta: float) -> float:
        """The F score; `beta` is how many times as much recall counts as precision."""
        weighted = beta**2 * self.precision + self.recall
        return (1 + beta**2) * self.precision * self.recall / weighted if weighted else 0.0


def auprc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """Average precision: the mean, over positives, of the precision down to each. Equal scores count together."""
    positives = sum(labels)
    total, seen, hits = 0.0, 0, 0
    for found, count in _levels(labels, scores):
        seen += count
        hits += found
        total += found * hits / seen
    return total / positives if positives else 0.0


def precision_recall(labels: Sequence[bool], scores: Sequence[float]) -> list[tuple[float, float]]:
    """Recall and precision at each score, from the highest down; empty without positives."""
    positives = sum(labels)
    points, seen, hits = [], 0, 0
    for found, count in _levels(labels, scores):
        seen += count
        hits += found
        points.append((hits / max(positives, 1), hits / seen))
    return points if positives else []


def roc_auc(labels: Sequence[bool], scores: Sequence[float]) -> float:
    """How often a positive scores above a negative; ties count half."""
    positives = sum(labels)
    negatives = len(labels) - positives
    above, total = 0, 0.0
    for found, count in _levels(labels, scores):
        total += (count - found) * (above + found / 2)
        above += found
    return total / (positives * negatives) if positives and negatives else 0.0


def rates(labels: Sequence[bool], flagged: Sequence[bool]) -> Rates:
    """Compares verdicts with labels."""
    hits = sum(label and flag for label, flag in zip(labels, flagged, strict=True))
    return Rates(hits / max(sum(flagged), 1), hits / max(sum(labels), 1))


def false_positive_rate(labels: Sequence[bool], flagged: Sequence[bool]) -> float:
    """The share of negatives that were flagged."""
    wrong = sum(flag and not label for label, flag in zip(labels, flagged, strict=True))
    return wrong / max(len(labels) - sum(labels), 1)


def span_rates(wanted: Iterable[Span], found: Iterable[Span], exact: bool) -> Rates:
    """Compares spans: equal ones match if `exact`, else any two that share a code point."""
    wanted, found = set(wanted), set(found)
    if exact:
        hits = len(wanted & found)
        return Rates(hits / max(len(found), 1), hits / max(len(wanted), 1))
    right = sum(any(_overlap(span, other) for other in wanted) for span in found)
    reached = sum(any(_overlap(span, other) for other in found) for span in wanted)
    return Rates(right / max(len(found), 1), reached / max(len(wanted), 1))


def _overlap(one: Span, other: Span) -> bool:
    return one.text_index == other.text_index and one.start < other.end and other.start < one.end


def _levels(labels: Sequence[bool], scores: Sequence[float]) -> Iterable[tuple[int, int]]:
    """Yields positives and rows of each score, from the highest."""
    levels: dict[float, list[bool]] = {}
    for label, score in zip(labels, scores, strict=True):
        levels.setdefault(score, []).append(bool(label))
    for score in sorted(levels, reverse=True):
        yield sum(levels[score]), len(levels[score])
