"""Heads: arrays that turn what is known of a text into a probability for each category.

A head is a weight per number of the vector, per counted hint and per hashed word and letter group. What is said in
many unlike ways (self-harm) is no half of a space, so some have anchors beside these: vectors of rows that were learned
from, each with a say as great as it is near. All of it fits into a small file and costs microseconds. The file is
refused unless it is the one that the code was written for. Heads are trained by tools/train_safety.py; how well they do
is in docs/safety-models.md.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from kit.errors import FailedPrecondition
from kit.sentence_model import Precision
from services.safety.learned.features import Counted, Floats

ARRAYS = Path(__file__).with_name("heads.npz")
# What the heads were trained on: half the time of float32, and no worse once they know it (docs/safety-models.md).
PRECISION: Precision = "int8"
# Surer is not told apart.
LOGIT_MAX = 30
# How fast the say of an anchor fades with the square of its distance, which is 4 at most.
GAMMA = 1.0
# Rows of anchors in one product. OpenBLAS copies operands first unless the product is small, under a million steps:
# for the four texts that a passage brings 50 us in place of 260, and nothing lost for forty.
ANCHOR_ROWS = 256
# How far the likeliest category goes to meet the head that knows whether. On unseen rows AUPRC of the highest score is
# 0.774 without, 0.817 with a quarter and 0.830 with a half, which costs the categories up to 0.03.
WHETHER_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Anchors:
    """A kernel machine over vectors: sums of Gaussians.

    Attributes:
        centre: What is usual in a text, float32, shape (vector,).
        points: Directions from the centre, float32, shape (anchors, vector), each of length 1.
        weights: float32, shape (anchors, categories); zeros for the categories that have none.
    """

    centre: Floats
    points: Floats
    weights: Floats

    def logits(self, vectors: Floats) -> Floats:
        """What the anchors say of vectors, shape (texts, vector): shape (texts, categories)."""
        away = vectors - self.centre
        away /= np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), 1e-6)
        turned = np.ascontiguousarray(away.T)
        blocks = [self.points[at : at + ANCHOR_ROWS] @ turned for at in range(0, len(self.points), ANCHOR_ROWS)]
        near = np.concatenate(blocks).T
        return np.asarray(np.exp(2 * GAMMA * (near - 1)) @ self.weights, np.float32)


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads over one set of features.

    Attributes:
        names: The categories, one for each column.
        dense: float32, shape (vector + hints, categories); the standardisation of training is folded in.
        sparse: float32, shape (2 * BUCKET_COUNT, categories); zeros for groups that training never saw.
        rarity: Inverse document frequency of each bucket, float32, shape (2 * BUCKET_COUNT,).
        bias: float32, shape (categories,).
        whether: The column that knows whether there is anything at all; -1 when there is none.
        anchors: What some categories have besides.
    """

    names: tuple[str, ...]
    dense: Floats
    sparse: Floats
    rarity: Floats
    bias: Floats
    whether: int = -1
    anchors: Anchors | None = None

    def scores(self, vectors: Floats, told: Floats) -> Floats:
        """Returns the probabilities for several texts, shape (texts, categories).

        Args:
            vectors: float32, shape (texts, vector).
            told: What `tell` said of them.
        """
        logits = told + vectors @ self.dense[: vectors.shape[1]]
        if self.anchors:
            logits += self.anchors.logits(vectors)
        return probabilities(logits, self.whether)

    def tell(self, counted: Counted, doubts: Sequence[float]) -> Floats:
        """Returns the part of the log odds that needs no vector, shape (texts, categories).

        Args:
            counted: What was counted in the texts.
            doubts: By how much the log odds of each are lowered.
        """
        logits = counted.hints @ self.dense[-counted.hints.shape[1] :] + self.bias
        logits -= np.array(doubts, np.float32)[:, None]
        values = counted.weights * self.rarity.take(counted.buckets)
        places = counted.places.tolist()
        for begin, end in pairwise(places):
            kind = values[begin:end]
            if squares := float(kind @ kind):
                kind /= squares**0.5
        for row, (begin, end) in enumerate(zip(places[::2], places[2::2], strict=False)):
            logits[row] += values[begin:end] @ self.sparse.take(counted.buckets[begin:end], axis=0)
        return np.asarray(logits, np.float32)


def probabilities(logits: Floats, whether: int) -> Floats:
    """Turns logits into probabilities, shape (texts, categories).

    Each category's own head knows its harm. One more, taught by the rows of all, knows whether there is any: the most
    likely category goes some way to meet it, so that the highest score of a text ranks texts by whether they do harm.
    """
    result = np.asarray(1 / (1 + np.exp(-np.clip(logits, -LOGIT_MAX, LOGIT_MAX))), np.float32)
    if whether >= 0:
        others = result.copy()
        others[:, whether] = -1
        rows, top = np.arange(len(result)), others.argmax(axis=1)
        own = result[rows, top]
        result[rows, top] = own + WHETHER_SHARE * (result[:, whether] - own)
    return result


def pooled(vectors: Sequence[Floats]) -> Floats:
    """The vector of several passages: their mean."""
    if len(vectors) == 1:
        return vectors[0]
    return np.asarray(np.mean(np.stack(vectors), axis=0), np.float32)


def load_heads(path: Path = ARRAYS) -> dict[str, Heads]:
    """Reads every set of heads of a file.

    Raises:
        FailedPrecondition: HEADS_NOT_GENUINE.
    """
    with np.load(io.BytesIO(genuine(path)), allow_pickle=False) as arrays:
        kinds = sorted({name.partition(".")[0] for name in arrays.files if name.endswith(".names")})
        return {kind: _heads(kind, arrays) for kind in kinds}


def genuine(path: Path) -> bytes:
    """Reads a file of arrays if it is the one whose digest lies beside it.

    Raises:
        FailedPrecondition: HEADS_NOT_GENUINE.
    """
    content = path.read_bytes()
    found, wanted = hashlib.sha256(content).hexdigest(), path.with_suffix(".sha256").read_text().strip()
    if found != wanted:
        message = f"{path} has SHA-256 {found}, not {wanted}; install the package anew or train the heads again"
        raise FailedPrecondition("HEADS_NOT_GENUINE", message)
    return content


def _heads(kind: str, arrays: np.lib.npyio.NpzFile) -> Heads:
    names = tuple(map(str, arrays[f"{kind}.names"]))
    dense, sparse, rarity, bias = (
        arrays[f"{kind}.{part}"].astype(np.float32) for part in ("dense", "sparse", "rarity", "bias")
    )
    anchors = None
    if f"{kind}.points" in arrays.files:
        anchors = Anchors(*(arrays[f"{kind}.{part}"].astype(np.float32) for part in ("centre", "points", "weights")))
    return Heads(names, dense, sparse, rarity, bias, int(arrays[f"{kind}.whether"]), anchors)
