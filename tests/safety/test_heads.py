"""Heads: probabilities from arrays, and arrays that are the ones they should be."""

import shutil

import numpy as np
import pytest

from kit.errors import FailedPrecondition
from services.safety.learned.assembly import INJECTION_NAMES, MODERATION_NAMES
from services.safety.learned.features import BUCKET_COUNT, Counted
from services.safety.learned.heads import ARRAYS, GAMMA, Anchors, Heads, load_heads, probabilities


def test_the_shipped_heads_know_every_category_that_is_reported():
    """What the detectors report, the arrays have a column for; and the file stays small."""
    heads = load_heads()

    assert MODERATION_NAMES.keys() <= set(heads["moderation"].names)
    assert INJECTION_NAMES.keys() <= set(heads["injection"].names)
    assert ARRAYS.stat().st_size < 3_000_000


def test_changed_arrays_are_refused(tmp_path):
    """One flipped bit keeps the heads from loading."""
    changed = tmp_path / ARRAYS.name
    content = bytearray(ARRAYS.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    shutil.copy(ARRAYS.with_suffix(".sha256"), tmp_path)

    with pytest.raises(FailedPrecondition) as refusal:
        load_heads(changed)

    assert refusal.value.reason == "HEADS_NOT_GENUINE"


def test_a_score_is_the_sum_of_its_parts():
    """Vector, hints, words and letters add up to the log odds; each kind of hashed feature has length 1."""
    sparse = np.zeros((2 * BUCKET_COUNT, 1), np.float32)
    sparse[3], sparse[BUCKET_COUNT + 5] = 2, 4
    heads = Heads(
        ("harm",), np.ones((3, 1), np.float32), sparse, np.ones(2 * BUCKET_COUNT, np.float32), np.float32([-8])
    )
    buckets = np.array([3, BUCKET_COUNT + 5] * 2, np.uint16)
    counted = Counted(buckets, np.float32([7, 9] * 2), np.arange(5), np.float32([[0.5], [0.5]]))
    vectors = np.float32([[0.5, 1], [0.5, 1]])

    told = heads.tell(counted, [0, 2])

    assert heads.scores(vectors, told)[:, 0] == pytest.approx([0.5, 0.1192], abs=1e-4)


def test_anchors_have_a_say_as_great_as_they_are_near():
    """One in the direction of the vector adds its whole weight, one at a right angle what distance leaves of it."""
    anchors = Anchors(np.float32([1, 1]), np.float32([[1, 0], [0, 1]]), np.float32([[3, 0], [5, 2]]))
    faded = np.exp(-2 * GAMMA)

    assert anchors.logits(np.float32([3, 1])) == pytest.approx([3 + 5 * faded, 2 * faded])
    assert anchors.logits(np.float32([[1, 1]])).shape == (1, 2)


def test_the_likeliest_category_meets_the_head_that_knows_whether():
    """Only the top category moves, a quarter of the way to the probability that there is any harm."""
    logits = np.log(np.array([[0.2, 0.6, 0.9]]) / (1 - np.array([[0.2, 0.6, 0.9]])))

    assert probabilities(logits, 2) == pytest.approx(np.array([[0.2, 0.675, 0.9]]))
    assert probabilities(logits, -1) == pytest.approx(np.array([[0.2, 0.6, 0.9]]))
