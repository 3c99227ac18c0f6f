"""Whether the semantic cache keeps its bound on wrong hits, and what it answers at that, beside static thresholds.

    python -m bench.semantic_bound --intents intents.jsonl.gz --pairs pairs.jsonl.gz [--vectors KEPT.npz] [--json OUT]

Plays sets of several kinds (`bench.semantic_sets`) in random orders through the service's own guards, features and
verifier; only the neighbours are found by comparing with all, and groups make the comparisons. `millrace bench cache`
plays one file through the whole service. Best static thresholds are chosen in hindsight from all shuffles.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bench import semantic_sets
from bench.semantic_sets import LabelledSet
from services.cache.semantic.candidates import unopposed
from services.cache.semantic.encoding import Floats
from services.cache.semantic.estimate import wilson
from services.cache.semantic.features import Frequencies, Surroundings, describe
from services.cache.semantic.matcher import FAR_COSINE, NEIGHBOURS
from services.cache.semantic.verifier import Outcome, Verifier
from services.cache.semantic.words import Words, parse

BOUNDS: Final = (0.02, 0.05, 0.10)
# The first lookups are played and not counted for the error: there is no evidence yet, whatever the policy.
SKIPPED: Final = 500
HELD_SHARE_MAX: Final = 0.1
# Neighbours that are known of each question; those not yet asked are passed over.
KNOWN: Final = 300
COSINES: Final = (*np.arange(0.60, 0.86, 0.02).round(2).tolist(), *np.arange(0.86, 1.0, 0.005).round(3).tolist())


@dataclass(frozen=True, slots=True)
class Played:
    """One run. Late ones are those after the first lookups; held are would-be hits that were held back."""

    lookups: int
    hits: int
    right: int
    hits_late: int
    wrong_late: int
    held: int


@dataclass(frozen=True, slots=True)
class Known:
    """A set and the nearest others of each of its questions, nearest first."""

    labelled: LabelledSet
    order: npt.NDArray[np.int32]
    cosines: Floats

    def neighbours(self, question: int, stored: npt.NDArray[np.bool_]) -> list[tuple[int, float]]:
        """Those of the nearest that are stored."""
        order = self.order[question]
        at = np.flatnonzero(stored[order])[:NEIGHBOURS]
        return list(zip(order[at].tolist(), self.cosines[question][at].tolist(), strict=True))


class Replay:
    """Plays one order of a set under a bound.

    Args:
        known: The set.
        error_max: The bound.
        seed: Of the order, and of what is held back.
    """

    def __init__(self, known: Known, error_max: float, seed: int) -> None:
        self._known, self._error_max = known, error_max
        self._chance = random.Random(seed)
        self._verifier = Verifier(HELD_SHARE_MAX, self._chance.random)
        self._frequencies = Frequencies()
        count = len(known.labelled.texts)
        self._stored = np.zeros(count, bool)
        self._meanings = list(range(count))

    def play(self) -> Played:
        """Looks every question up; one that misses is stored."""
        order = list(range(len(self._meanings)))
        self._chance.shuffle(order)
        hits: list[tuple[int, bool]] = []
        for at, question in enumerate(order):
            right = self._look_up(question)
            if right is not None:
                hits.append((at, right))
                continue
            self._stored[question] = True
            self._frequencies.add(self._words(question).stems)
        late = [right for at, right in hits if at >= SKIPPED]
        held_count = self._verifier.held_count
        return Played(len(order), len(hits), sum(right for _, right in hits), len(late), late.count(False), held_count)

    def _look_up(self, question: int) -> bool | None:
        """Whether a hit is right; None for a miss, which is learned from."""
        near = self._known.neighbours(question, self._stored)
        ours, groups = self._words(question), self._known.labelled.groups
        for at in unopposed(ours, [self._words(entry) for entry, _ in near]):
            entry = near[at][0]
            theirs = self._words(entry)
            around = Surroundings([cosine for _, cosine in near], [self._meanings[other] for other, _ in near])
            seen = describe(ours, theirs, self._frequencies, around, at)
            restated, is_far = ours.tokens == theirs.tokens, near[at][1] < FAR_COSINE
            decision = self._verifier.decide(seen, self._error_max, restated=restated, is_far=is_far)
            fits = groups[entry] == groups[question]
            if decision.outcome is Outcome.ACCEPTED:
                return fits
            self._verifier.learn(decision, fits=fits)
            self._verifier.refit()
            if fits:
                self._meanings[question] = self._meanings[entry]
            return None
        return None

    def _words(self, question: int) -> Words:
        return parse(self._known.labelled.texts[question])


def play_static(known: Known, cosine: float, seed: int) -> Played:
    """The same with a fixed threshold and nothing else."""
    groups, order = known.labelled.groups, list(range(len(known.labelled.texts)))
    random.Random(seed).shuffle(order)
    stored = np.zeros(len(order), bool)
    hits: list[tuple[int, bool]] = []
    for at, question in enumerate(order):
        there = stored[known.order[question]]
        first = int(there.argmax())
        if there[first] and known.cosines[question][first] >= cosine:
            hits.append((at, groups[int(known.order[question][first])] == groups[question]))
        else:
            stored[question] = True
    late = [right for at, right in hits if at >= SKIPPED]
    return Played(len(order), len(hits), sum(right for _, right in hits), len(late), late.count(False), 0)


def known(labelled: LabelledSet, vectors: semantic_sets.Vectors) -> Known:
    """Finds the neighbours of every question."""
    points = np.stack([vectors[text] for text in labelled.texts])
    count = min(KNOWN, len(points) - 1)
    order = np.empty((len(points), count), np.int32)
    cosines = np.empty((len(points), count), np.float32)
    for row, point in enumerate(points):
        near = points @ point
        near[row] = -2
        best = np.argpartition(-near, count - 1)[:count]
        best = best[np.argsort(-near[best], kind="stable")]
        order[row], cosines[row] = best, np.minimum(near[best], 1)
    return Known(labelled, order, cosines)


def main() -> None:
    """Plays every set under every bound, and prints a row for each."""
    options = _options()
    records: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.processes, initializer=partial(os.nice, 10)) as pool:
        for labelled, vectors in _sets(options):
            if options.set and labelled.name not in options.set:
                continue
            begin = time.monotonic()
            seeds = range(1, options.shuffles + 1)
            records += measured(known(labelled, vectors), options.bounds, seeds, pool)
            print(f"# {labelled.name}: {time.monotonic() - begin:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n")


def measured(
    each: Known, bounds: Sequence[float], seeds: Sequence[int], pool: ProcessPoolExecutor
) -> Iterator[dict[str, Any]]:
    """Plays one set; yields and prints a record for each bound."""
    runs = {bound: [pool.submit(_play, each, bound, seed) for seed in seeds] for bound in bounds}
    statics = [pool.submit(_play_statics, each, seed) for seed in seeds]
    curve = [pooled(shuffles) for shuffles in zip(*(static.result() for static in statics), strict=True)]
    for bound, futures in runs.items():
        played = [future.result() for future in futures]
        record = {"set": each.labelled.name, "bound": bound, **told(played, bound, curve)}
        print("  ".join(f"{name} {value}" for name, value in record.items()), flush=True)
        yield record


def told(played: Sequence[Played], bound: float, curve: Sequence[Played]) -> dict[str, Any]:
    """The figures of some runs under one bound, beside those of the static thresholds."""
    whole = pooled(played)
    error = whole.wrong_late / max(1, whole.hits_late)
    low, high = wilson(error, max(1, whole.hits_late))
    same, hindsight = (best_static(curve, allowed) for allowed in (error, bound))
    return {
        "lookups": played[0].lookups,
        "right": round(whole.right / whole.lookups, 4),
        "wrong_per_hit": round(error, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "worst": round(max(each.wrong_late / max(1, each.hits_late) for each in played), 4),
        "median": round(statistics.median(each.wrong_late / max(1, each.hits_late) for each in played), 4),
        "wrong_per_lookup": round((whole.hits - whole.right) / whole.lookups, 4),
        "held": round(whole.held / max(1, whole.held + whole.hits), 4),
        "static_same_error": round(same, 4),
        "static_hindsight": round(hindsight, 4),
    }


def best_static(curve: Sequence[Played], error: float) -> float:
    """The most right answers of a static threshold with at most that share of wrong hits."""
    fitting = [each.right / each.lookups for each in curve if each.wrong_late <= error * each.hits_late]
    return max(fitting, default=0.0)


def pooled(played: Sequence[Played]) -> Played:
    """Several runs as one."""
    return Played(*(sum(getattr(each, name) for each in played) for name in Played.__slots__))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--intents", type=Path, help='JSON lines with "text" and "group"')
    parser.add_argument("--pairs", type=Path, help='JSON lines with "a", "b" and "same"')
    parser.add_argument("--set", action="append", help="only that set; may be given again")
    parser.add_argument("--bounds", type=float, nargs="+", default=BOUNDS)
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--vectors", type=Path, help="file to keep the vectors in, for the next time")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser.parse_args()


def _sets(options: argparse.Namespace) -> Iterator[tuple[LabelledSet, semantic_sets.Vectors]]:
    intents = semantic_sets.rows(options.intents) if options.intents else []
    pairs = semantic_sets.rows(options.pairs) if options.pairs else []
    texts = [row["text"] for row in intents] + [row[side] for row in pairs for side in ("a", "b")]
    vectors = semantic_sets.vectors_of(texts, options.vectors)
    sets = semantic_sets.intent_sets(intents, vectors) if intents else []
    sets += semantic_sets.pair_sets(pairs) if pairs else []
    if intents and pairs:
        sets.append(semantic_sets.mixed(sets[0], sets[-1], "intents and pairs"))
    for each in sets:
        yield each, vectors


def _play(each: Known, bound: float, seed: int) -> Played:
    return Replay(each, bound, seed).play()


def _play_statics(each: Known, seed: int) -> list[Played]:
    """One order under every threshold; a task of its own would cost more to send than to play."""
    return [play_static(each, cosine, seed) for cosine in COSINES]


if __name__ == "__main__":
    main()
