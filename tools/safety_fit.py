"""Fits linear heads and says what they are worth on rows that they have not seen.

A head is the sum of two logistic regressions, one over vector and hints and one over hashed words and letter groups:
fitted together, the many rare groups would drown the few dense numbers. Some add a support vector machine over the
vector. Folds decide how the sum is turned into a probability, so that nothing is calibrated on what was fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import SVC

from services.safety.learned.features import BUCKET_COUNT, Floats
from services.safety.learned.heads import GAMMA, Anchors, Heads
from tools.safety_rows import Row

# Found by cross-validation on moderation-openai-half.
DENSE_C, SPARSE_C = 0.1, 5.0
VECTOR_SCALE, HINTS_SCALE = 4.0, 3.0
SPARSE_SHARE = 0.7
HINT_SPREAD_MIN = 0.1
# Whose heads have anchors, and how much these count beside the rest. By folds of three seeds self-harm rose from 0.74
# to 0.83 and violence from 0.50 to 0.54; sexual fell from 0.942 to 0.932, hate and harassment gained 0.01 at most.
ANCHOR_SHARES = {"self-harm": 2.0, "violence": 0.7}
ANCHOR_C = 3.0
# How far the weight of rare positives is raised towards that of the negatives; 1 is all the way.
BALANCE = 0.75
FOLD_COUNT = 5
# One split alone moves AUPRC by up to 0.02, and changes with every lesson that is added.
SPLIT_COUNT = 3
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Lesson:
    """Rows as matrices: dense and sparse features, labels by category (UNKNOWN where they say nothing), weights."""

    rows: Sequence[Row]
    dense: Floats
    sparse: Any
    labels: Any
    weights: Floats

    @classmethod
    def of(cls, rows: Sequence[Row], names: Sequence[str], weight_of: Mapping[str, float]) -> Lesson:
        """Gathers filled rows; `weight_of` says what a row of each source weighs."""
        counts = np.cumsum([0, *(len(row.buckets) for row in rows)])
        values = np.concatenate([row.weights for row in rows])
        buckets = np.concatenate([row.buckets for row in rows])
        sparse = scipy.sparse.csr_matrix((values, buckets, counts), shape=(len(rows), 2 * BUCKET_COUNT))
        dense = np.stack([np.concatenate([row.vector, row.hints]) for row in rows])
        labels = np.array([[row.labels.get(name, UNKNOWN) for name in names] for row in rows])
        return cls(rows, dense, sparse, labels, np.array([weight_of[row.source] for row in rows], np.float64))

    def folds(self, split: int) -> list[tuple[Any, Any]]:
        """Splits the rows so that those of one group stay together; the same each time for the number of a split."""
        groups = [row.group or row.text for row in self.rows]
        kinds = [f"{row.source} {max(row.labels.values(), default=0)}" for row in self.rows]
        splitter = StratifiedGroupKFold(FOLD_COUNT, shuffle=True, random_state=split)
        return list(splitter.split(self.dense, kinds, groups))

    def foremost(self, at: Any) -> Any:
        """Picks the rows of the greatest weight among some."""
        return at[self.weights[at] == self.weights[at].max()]


def fit(lesson: Lesson, names: Sequence[str], at: Any | None = None, whether: int = -1) -> Heads:
    """Fits heads to the rows at some places, or to all. Their sums are logits of no scale yet.

    What is usual in a text, by which features are scaled, is learned from the rows of the greatest weight alone: those
    of other sets teach what they know, and not how texts look.
    """
    at = np.arange(len(lesson.rows)) if at is None else at
    vector_size = lesson.dense.shape[1] - len(lesson.rows[0].hints)
    own = lesson.foremost(at)
    mean, spread = lesson.dense[own].mean(axis=0), lesson.dense[own].std(axis=0) + 1e-6
    # A hint that hardly any of them gives must not weigh the more for that.
    spread[vector_size:] = np.maximum(spread[vector_size:], HINT_SPREAD_MIN)
    hints_size = lesson.dense.shape[1] - vector_size
    scale = (
        np.repeat([VECTOR_SCALE / vector_size**0.5, HINTS_SCALE / hints_size**0.5], [vector_size, hints_size]) / spread
    )
    dense = (lesson.dense - mean) * scale
    rarity = np.concatenate([_rarity(part[own]) for part in _kinds(lesson.sparse)])
    sparse = weighted(lesson.sparse, rarity)
    columns = [_column(lesson, number, dense, sparse, at) for number in range(len(names))]
    weights = np.stack([column[0] for column in columns], axis=1) * scale[:, None]
    bias = np.array([column[2] for column in columns]) - mean @ weights
    sparse_weights = np.stack([column[1] for column in columns], axis=1)
    anchors, shifts = _anchors(lesson, names, at, mean[:vector_size])
    return Heads(tuple(names), weights, sparse_weights, rarity, bias + shifts, whether, anchors)


def logits(heads: Heads, lesson: Lesson, at: Any) -> Floats:
    """Computes the sums of all heads for many rows at once, shape (rows, categories)."""
    sparse = weighted(lesson.sparse[at], heads.rarity)
    sums = np.asarray(lesson.dense[at] @ heads.dense + sparse @ heads.sparse + heads.bias)
    return sums + heads.anchors.logits(lesson.dense[at, : heads.anchors.centre.size]) if heads.anchors else sums


def unseen_logits(lesson: Lesson, names: Sequence[str]) -> Floats:
    """The sums for each row by heads that were fitted without its fold, shape (splits, rows, categories)."""
    result = np.zeros((SPLIT_COUNT, len(lesson.rows), len(names)))
    for split in range(SPLIT_COUNT):
        for seen, unseen in lesson.folds(split):
            result[split, unseen] = logits(fit(lesson, names, seen), lesson, unseen)
    return cast("Floats", result)


def calibrated(heads: Heads, lesson: Lesson, unseen: Floats, judges: Any) -> tuple[Heads, Floats]:
    """Scales heads, and the unseen sums, to log odds on the rows that `judges` picks, by the first split."""
    slopes, shifts = np.ones(len(heads.names)), np.zeros(len(heads.names))
    for number in range(len(heads.names)):
        known = judges & (lesson.labels[:, number] != UNKNOWN)
        model = LogisticRegression(C=10.0).fit(unseen[0, known, number, None], lesson.labels[known, number])
        slopes[number], shifts[number] = model.coef_[0, 0], model.intercept_[0]
    dense, sparse = cast("Floats", heads.dense * slopes), cast("Floats", heads.sparse * slopes)
    bias = cast("Floats", heads.bias * slopes + shifts)
    anchors = heads.anchors and replace(heads.anchors, weights=cast("Floats", heads.anchors.weights * slopes))
    scaled = replace(heads, dense=dense, sparse=sparse, bias=bias, anchors=anchors)
    return scaled, cast("Floats", unseen * slopes + shifts)


def weighted(sparse: Any, rarity: Floats) -> Any:
    """Weighs groups by how rare they are and brings words and letters to length 1 each."""
    parts = []
    for part, weights in zip(_kinds(sparse), (rarity[:BUCKET_COUNT], rarity[BUCKET_COUNT:]), strict=True):
        product = part.multiply(weights).tocsr()
        length = np.sqrt(product.multiply(product).sum(axis=1)).A1 if product.nnz else np.ones(product.shape[0])
        parts.append(scipy.sparse.diags(1 / np.maximum(length, 1e-12)) @ product)
    return scipy.sparse.hstack(parts).tocsr()


def _kinds(sparse: Any) -> tuple[Any, Any]:
    return sparse[:, :BUCKET_COUNT], sparse[:, BUCKET_COUNT:]


def _rarity(sparse: Any) -> Floats:
    return np.asarray(TfidfTransformer().fit(sparse).idf_, np.float32)


def _known(lesson: Lesson, number: int, at: Any) -> tuple[Any, Any, Any]:
    """The rows at some places that say something of a category, their labels and weights."""
    rows = at[lesson.labels[at, number] != UNKNOWN]
    labels = lesson.labels[rows, number]
    weights = lesson.weights[rows].copy()
    positive = weights[labels == 1].sum()
    weights[labels == 1] *= (weights[labels == 0].sum() / positive) ** BALANCE
    return rows, labels, weights


def _anchors(lesson: Lesson, names: Sequence[str], at: Any, centre: Floats) -> tuple[Anchors | None, Floats]:
    """Fits what some heads have besides, and what that adds to each bias."""
    shifts = np.zeros(len(names))
    machines = {}
    points = lesson.dense[:, : centre.size] - centre
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for number, name in enumerate(names):
        if name in ANCHOR_SHARES:
            rows, labels, weights = _known(lesson, number, at)
            machine = SVC(C=ANCHOR_C, gamma=GAMMA).fit(points[rows], labels, weights)
            share = ANCHOR_SHARES[name] / machine.decision_function(points[lesson.foremost(rows)]).std()
            shifts[number] = machine.intercept_[0] * share
            machines[number] = rows[machine.support_], machine.dual_coef_[0] * share
    if not machines:
        return None, cast("Floats", shifts)
    chosen = np.unique(np.concatenate([rows for rows, _ in machines.values()]))
    weights = np.zeros((len(chosen), len(names)))
    for number, (rows, values) in machines.items():
        weights[np.searchsorted(chosen, rows), number] = values
    return Anchors(centre, points[chosen], cast("Floats", weights)), cast("Floats", shifts)


def _column(lesson: Lesson, number: int, dense: Floats, sparse: Any, at: Any) -> tuple[Floats, Floats, float]:
    """Fits one head: its dense weights, its sparse weights and its bias."""
    rows, labels, weights = _known(lesson, number, at)
    first = LogisticRegression(C=DENSE_C, max_iter=300).fit(dense[rows], labels, weights)
    second = LogisticRegression(C=SPARSE_C, solver="liblinear", dual=True, tol=0.01, random_state=0).fit(
        sparse[rows], labels, weights
    )
    own = lesson.foremost(rows)
    shares = (
        1 / first.decision_function(dense[own]).std(),
        SPARSE_SHARE / second.decision_function(sparse[own]).std(),
    )
    bias = first.intercept_[0] * shares[0] + second.intercept_[0] * shares[1]
    return first.coef_[0] * shares[0], second.coef_[0] * shares[1], float(bias)
