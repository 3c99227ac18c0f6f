"""What the benches of similar questions play and count, on questions made up so that every figure is known."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.semantic_bound import SKIPPED, Known, Played, Replay, best_static, known, measured, play_static
from bench.semantic_edits import KINDS, person_pairs, redated_pairs, reversed_pairs
from bench.semantic_scale import Stock, fill, refuse_other
from bench.semantic_sets import LabelledSet, intent_sets, mixed, pair_sets
from services.cache.semantic.encoding import Floats


def questions(group_count: int, of_each: int) -> LabelledSet:
    """Questions of some groups; two of one group have three words in common and five others each."""
    chance = random.Random(1)

    def word() -> str:
        return "".join(chance.choices("bdfgklmnprstvz", k=3)) + "".join(chance.choices("aeiou", k=2)) + "th"

    texts, groups = [], []
    for group in range(group_count):
        common = [word() for _ in range(3)]
        for _ in range(of_each):
            texts.append(" ".join([*common, *(word() for _ in range(5))]))
            groups.append(f"g{group}")
    return LabelledSet("made up", texts, groups)


def vectors_for(labelled: LabelledSet, spread: float) -> dict[str, Floats]:
    """Vectors that lie around the middle of their group."""
    chance = np.random.default_rng(1)
    middles = {group: chance.normal(size=32) for group in sorted(set(labelled.groups))}
    vectors = {}
    for text, group in zip(labelled.texts, labelled.groups, strict=True):
        vector = middles[group] + spread * chance.normal(size=32)
        vectors[text] = (vector / np.linalg.norm(vector)).astype(np.float32)
    return vectors


@pytest.fixture(scope="module")
def told_apart() -> Known:
    """Six groups of 200 questions that no cosine confuses."""
    labelled = questions(6, 200)
    return known(labelled, vectors_for(labelled, 0.2))


def test_neighbours_are_the_nearest_of_those_stored(told_apart: Known):
    """What was not asked yet is passed over, and a question is no neighbour of its own."""
    stored = np.zeros(1200, bool)
    stored[[3, 7, 900]] = True
    near = told_apart.neighbours(3, stored)

    assert [entry for entry, _ in near] == [7]
    assert 0.5 < near[0][1] <= 1


def test_a_threshold_counts_right_and_wrong(told_apart: Known):
    """Where groups lie apart, one miss a group is all; at a threshold that nothing reaches there are no hits."""
    assert play_static(told_apart, 0.5, seed=1) == Played(1200, 1194, 1194, 1200 - SKIPPED, 0, 0)
    assert play_static(told_apart, 1.1, seed=1) == Played(1200, 0, 0, 0, 0, 0)


def test_a_bounded_run_learns_and_keeps_its_bound(told_apart: Known):
    """Most is answered after a while, nothing wrongly, and at most a tenth is held back."""
    played = Replay(told_apart, 0.05, seed=1).play()

    assert played.lookups == 1200
    assert played.hits == played.right > 500
    assert played.wrong_late == 0
    assert played.held <= 0.1 * (played.hits + played.held + 5)


def test_the_same_seed_plays_the_same(told_apart: Known):
    """A figure can be repeated; another seed is another order."""
    assert Replay(told_apart, 0.05, 1).play() == Replay(told_apart, 0.05, 1).play()
    assert Replay(told_apart, 0.05, 1).play() != Replay(told_apart, 0.05, 2).play()


def test_a_static_threshold_is_the_best_of_those_within_the_error():
    """More right answers at a higher error do not count."""
    curve = [Played(100, 90, 60, 50, 20, 0), Played(100, 50, 45, 40, 4, 0), Played(100, 10, 10, 10, 0, 0)]

    assert best_static(curve, 0.1) == 0.45
    assert best_static(curve, 0.05) == 0.1
    assert best_static(curve[:1], 0.05) == 0


def test_a_set_is_told_by_bound(told_apart: Known, capsys: pytest.CaptureFixture[str]):
    """Each bound has a record, with the static thresholds beside it."""
    with ThreadPoolExecutor(1) as pool:
        [record] = measured(told_apart, [0.05], [1], pool)

    assert record["set"] == "made up"
    assert record["wrong_per_hit"] == 0
    assert record["static_hindsight"] > record["right"] > 0.4
    assert "bound 0.05" in capsys.readouterr().out


def test_pairs_are_grouped_through_others():
    """Two questions that are the same as a third are the same; those of a misleading pair are not."""
    rows = [
        {"a": "one", "b": "two", "same": True},
        {"a": "two", "b": "three", "same": True},
        {"a": "one", "b": "four", "same": False},
    ]
    easy, _, hard = pair_sets(rows)
    groups = dict(zip(hard.texts, hard.groups, strict=True))

    assert sorted(easy.texts) == ["one", "three", "two"]
    assert groups["one"] == groups["two"] == groups["three"] != groups["four"]


def test_intents_are_cut_in_several_ways():
    """Few, rare and fine intents, and strangers that share an answer with nobody, have the questions of the whole."""
    labelled = questions(40, 50)
    rows = [{"text": text, "group": group} for text, group in zip(labelled.texts, labelled.groups, strict=True)]
    whole, few, rare, fine, strange = intent_sets(rows, vectors_for(labelled, 0.5))

    assert len(set(whole.groups)) == 40
    assert len(set(few.groups)) == 30
    assert {rare.groups.count(group) for group in set(rare.groups)} == {40}
    assert len(set(fine.groups)) == 80
    assert len(set(strange.groups)) == 32 + 8 * 50
    assert len(mixed(whole, few, "both").texts) <= len(few.texts)


def test_edits_change_what_they_say():
    """Each kind of edit changes a text that has what it edits, and leaves others alone."""
    chance = random.Random(1)

    assert KINDS["negation"]("can I pay", chance) not in {None, "can I pay"}
    assert KINDS["number"]("pay 5 now", chance) not in {None, "pay 5 now"}
    assert KINDS["number"]("pay now", chance) is None
    for pairs in (reversed_pairs(), redated_pairs(), person_pairs()):
        assert all(one != other for one, other in pairs)


async def test_kept_entries_of_another_encoder_or_of_other_questions_are_refused(tmp_path: Path):
    """The bench of many entries says that a kept file holds others, in place of waiting for ever to find its own."""
    labelled, path = questions(2, 10), tmp_path / "entries.sqlite3"
    vectors = np.stack(list(vectors_for(labelled, 0.2).values()))
    stock = Stock(labelled.texts, vectors, 30)
    await fill(path, stock, "one")
    await refuse_other(path, stock, "one")

    for other, version, said in (
        (stock, "two", "another encoder"),
        (replace(stock, vectors=-vectors), "one", "another encoder"),
        (replace(stock, entry_count=31), "one", "these entries"),
        (replace(stock, texts=labelled.texts[::-1]), "one", "these entries"),
    ):
        with pytest.raises(SystemExit, match=said):
            await refuse_other(path, other, version)
