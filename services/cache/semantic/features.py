"""How two questions relate, in numbers: what the calibrated model decides by.

Three kinds: how near the vectors are, and how that compares with the other entries around (a margin over entries of
another meaning; where many share one meaning, what counts is how many agree); how much of the words is shared, each
weighed by how rare it is here; and the form of the questions. Which of these matter differs from one namespace to the
next and is learned there (`calibration`). What must never differ is none of this module's business (`guards`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from services.cache.semantic.guards import MISSPELT_FROM, misspelt
from services.cache.semantic.words import FUNCTION_WORDS, Words, stem

Floats = npt.NDArray[np.float64]

# Raise it when a feature changes: what was learned with others is then forgotten.
VERSION: Final = 2
# Function words differ in every paraphrase, so that they count little.
FUNCTION_WEIGHT: Final = 0.25
# How fast an entry's say in the share of its meaning falls with its distance.
SHARE_TEMPERATURE: Final = 0.05
MARGIN_MIN, MARGIN_MAX = -0.1, 0.3
# What comes first in a question tells what is asked for.
ASKING: Final = frozenset(
    map(stem, "what how why when where who which can is do does should could will are did i".split())
)
# Name, centre and scale of each feature: a rough guess at mean and spread, so that one ridge suits all.
SCALES: Final = (
    ("bias", 0.0, 1.0),
    ("cosine", 0.8, 0.12),
    ("nearness", 1.9, 0.7),
    ("margin", 0.05, 0.06),
    ("share", 0.5, 0.35),
    ("agreeing", 0.7, 0.7),
    ("overlap", 0.35, 0.25),
    ("ours_rarest", 0.4, 0.3),
    ("theirs_rarest", 0.4, 0.3),
    ("lesser_rest", 0.5, 0.4),
    ("greater_rest", 1.0, 0.8),
    ("length_gap", 0.3, 0.3),
    ("length", 1.05, 0.2),
    ("pairs", 0.15, 0.2),
    ("same_first", 0.4, 0.5),
    ("asking_gap", 0.5, 0.35),
    ("rarest_of_both", 0.3, 0.25),
    ("one_for_one", 0.1, 0.3),
    ("one_sided", 0.2, 0.4),
    ("nothing_left", 0.1, 0.3),
    ("names", 0.1, 0.35),
    ("same_last", 0.3, 0.5),
    ("density", 0.12, 0.08),
)
NAMES: Final = tuple(name for name, _, _ in SCALES)
CENTRES: Final = np.array([centre for _, centre, _ in SCALES])
SPREADS: Final = np.array([spread for _, _, spread in SCALES])
# What is believed before anything was learned: nearness, shared words and agreement speak for an answer. Set by hand;
# learned priors were no better, for the namespaces differ more than the prior helps.
PRIOR: Final = np.array(
    [
        {"bias": -0.5, "cosine": 0.7, "nearness": 1.0, "margin": 0.2, "share": 0.2, "overlap": 0.4}.get(n, 0)
        for n in NAMES
    ]
)


class Frequencies:
    """In how many of a partition's entries each word stands."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._entry_count = 0

    def add(self, stems: Iterable[str]) -> None:
        """Counts an entry."""
        self._counts.update(set(stems))
        self._entry_count += 1

    def remove(self, stems: Iterable[str]) -> None:
        """Takes an entry out again."""
        for word in set(stems):
            self._counts[word] -= 1
            if self._counts[word] <= 0:
                del self._counts[word]
        self._entry_count -= 1

    def weights(self, words: Words) -> dict[str, float]:
        """How telling each word of a text is: the logarithm of how rare it is here."""
        whole = self._entry_count + 2
        return {
            word: 0.05
            + math.log(whole / (self._counts[word] + 1)) * (FUNCTION_WEIGHT if token in FUNCTION_WORDS else 1.0)
            for word, token in zip(words.stems, words.tokens, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The entries around a question, nearest first: their cosines, and what each of them means.

    Entries of one meaning are known to have fitted the same questions; an entry known with no other is a meaning of its
    own.
    """

    cosines: Sequence[float]
    meanings: Sequence[object]

    def relations(self, at: int) -> list[float]:
        """How the entry at a position stands among the others: cosine, nearness, margin, share, agreeing."""
        cosine = min(self.cosines[at], 1.0)
        says = [math.exp((other - self.cosines[0]) / SHARE_TEMPERATURE) for other in self.cosines]
        agree = [meaning == self.meanings[at] for meaning in self.meanings]
        others = [other for other, same in zip(self.cosines, agree, strict=True) if not same]
        margin = cosine - (others[0] if others else self.cosines[-1] - 0.02)
        share = sum(say for say, same in zip(says, agree, strict=True) if same) / sum(says)
        return [
            cosine,
            -math.log(1.01 - cosine),
            max(MARGIN_MIN, min(margin, MARGIN_MAX)),
            share,
            math.log(sum(agree)),
        ]


def describe(ours: Words, theirs: Words, frequencies: Frequencies, around: Surroundings, at: int) -> Floats:
    """Describes a question and the entry at a position of its surroundings, in the order of `NAMES`."""
    raw = [
        1.0,
        *around.relations(at),
        *_rest(ours, theirs, frequencies),
        around.cosines[0] - around.cosines[-1],
    ]
    described: Floats = (np.array(raw) - CENTRES) / SPREADS
    described[0] = 1.0
    return described


def _rest(ours: Words, theirs: Words, frequencies: Frequencies) -> list[float]:
    """How the words relate: what is shared, what is left on either side, and the form."""
    mine, other = frequencies.weights(ours), frequencies.weights(theirs)
    left, right = {w: v for w, v in mine.items() if w not in other}, {w: v for w, v in other.items() if w not in mine}
    shared = sum(weight for word, weight in mine.items() if word in other)
    shared += sum(_match_misspelt(left, right))
    sums, rarest = (
        sorted((sum(left.values()), sum(right.values()))),
        [max(r.values(), default=0.0) for r in (left, right)],
    )
    content = [sum(word in CONTENT_LESS for word in rest) for rest in (left, right)]
    content = [len(rest) - functions for rest, functions in zip((left, right), content, strict=True)]
    pairs = [set(pairwise(words.stems)) for words in (ours, theirs)]
    lengths = [len(words.stems) for words in (ours, theirs)]
    names = (ours.names - set(theirs.stems)) | (theirs.names - set(ours.stems))
    return [
        shared / max(shared + sum(sums), 1e-6),
        rarest[0] / 8,
        rarest[1] / 8,
        sums[0] / 10,
        sums[1] / 10,
        abs(math.log((lengths[0] + 1) / (lengths[1] + 1))),
        math.log(sum(lengths) + 1) / 3,
        len(pairs[0] & pairs[1]) / max(1, len(pairs[0] | pairs[1])),
        float(ours.stems[:1] == theirs.stems[:1]),
        len((ASKING & set(ours.stems)) ^ (ASKING & set(theirs.stems))) / 3,
        min(rarest) / 8,
        float(content == [1, 1]),
        float((content[0] == 0) != (content[1] == 0)),
        float(content == [0, 0]),
        min(2, len(names)) / 2,
        float(ours.stems[-1:] == theirs.stems[-1:]),
    ]


def _match_misspelt(left: dict[str, float], right: dict[str, float]) -> Iterable[float]:
    """Takes words that differ by a letter out of what is left, and yields what they weigh."""
    # Those that begin alike, for of long texts comparing each word with each takes 50 ms.
    alike: dict[str, list[str]] = defaultdict(list)
    for other in right:
        alike[other[:MISSPELT_FROM]].append(other)
    for word in list(left):
        begun = alike.get(word[:MISSPELT_FROM], ())
        twin = next((other for other in begun if other in right and misspelt(word, other)), None)
        if twin is not None:
            yield min(left.pop(word), right.pop(twin))


CONTENT_LESS: Final = frozenset(map(stem, FUNCTION_WORDS))
