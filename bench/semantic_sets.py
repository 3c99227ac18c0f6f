"""Labelled questions cut into sets of several kinds, for what the semantic cache promises must hold on every kind.

Of intents (many questions to a group): all of them, a few intents, only the rare ones, intents cut in two where their
questions are nearest to each other, and a part of the questions that belong to no intent. Of pairs (most questions are
asked once or twice): without the pairs made to mislead, with some and with all of them. Nothing is learned here.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from services.cache.semantic.encoding import Floats, text_model

# Texts that go to the encoder at once: fewer than it lets wait.
ENCODED_AT_ONCE: Final = 128
SEED: Final = 5
FEW_INTENTS: Final = 30
RARE_QUESTIONS: Final = 40
STRANGE_SHARE: Final = 0.2
SOME_SHARE: Final = 0.4
CUTTING_ROUNDS: Final = 10


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Questions with their groups: an answer to one fits all others of its group, and no other question."""

    name: str
    texts: Sequence[str]
    groups: Sequence[str]


Rows = Sequence[Mapping[str, Any]]
Vectors = Mapping[str, Floats]


def intent_sets(rows: Rows, vectors: Vectors) -> list[LabelledSet]:
    """Sets of questions with an intent each, from rows with "text" and "group"."""
    whole = {row["text"]: str(row["group"]) for row in rows}
    names = sorted(set(whole.values()))
    chance = random.Random(SEED)
    few = set(chance.sample(names, min(FEW_INTENTS, len(names))))
    strange = set(chance.sample(names, round(STRANGE_SHARE * len(names))))
    alone = {text: text if group in strange else group for text, group in whole.items()}
    return [
        _set("intents", whole),
        _set("few intents", {text: group for text, group in whole.items() if group in few}),
        _set("rare intents", _thinned(whole, chance)),
        _set("fine intents", _cut(whole, vectors)),
        _set("intents and strangers", alone),
    ]


def pair_sets(rows: Rows) -> list[LabelledSet]:
    """Sets of questions of which most are asked once or twice, from rows with "a", "b" and "same"."""
    chance = random.Random(SEED)
    same = [row for row in rows if row["same"]]
    other = [row for row in rows if not row["same"]]
    some = [row for row in other if chance.random() < SOME_SHARE]
    return [
        _set("pairs, none misleading", _paired(same)),
        _set("pairs, some misleading", _paired([*same, *some])),
        _set("pairs, all misleading", _paired([*same, *other])),
    ]


def mixed(one: LabelledSet, other: LabelledSet, name: str) -> LabelledSet:
    """A part of either, as many questions of one as of the other."""
    chance = random.Random(SEED)
    count = min(len(one.texts), len(other.texts)) // 2
    questions: dict[str, str] = {}
    for each in (one, other):
        chosen = chance.sample(range(len(each.texts)), count)
        questions |= {each.texts[at]: f"{each.name} {each.groups[at]}" for at in chosen}
    return _set(name, questions)


def rows(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines, packed or not."""
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
    return [json.loads(line) for line in lines]


def vectors_of(texts: Iterable[str], kept: Path | None) -> dict[str, Floats]:
    """The default model's vectors; some minutes for ten thousand, so that they may be kept in a file.

    A file that holds those of other texts or of another encoder is made anew.
    """
    wanted = sorted(set(texts))
    return dict(zip(wanted, asyncio.run(_vectors(wanted, kept)), strict=True))


async def _vectors(texts: Sequence[str], kept: Path | None) -> Floats:
    encoder = text_model()
    await encoder.warm()
    try:
        digest = hashlib.sha256("\n".join([encoder.version, *texts]).encode()).hexdigest()
        if kept is not None and kept.exists():
            with np.load(kept) as file:
                if str(file["digest"]) == digest:
                    vectors: Floats = file["vectors"]
                    return vectors
            print(f"# {kept} holds the vectors of other texts or of another encoder: they are made anew", flush=True)
        parts = [texts[begin : begin + ENCODED_AT_ONCE] for begin in range(0, len(texts), ENCODED_AT_ONCE)]
        vectors = np.concatenate([await encoder.encode(part) for part in parts])
        if kept is not None:
            np.savez(kept, digest=np.array(digest), vectors=vectors)
        return vectors
    finally:
        await encoder.close()


def _set(name: str, groups: Mapping[str, str]) -> LabelledSet:
    return LabelledSet(name, list(groups), list(groups.values()))


def _by_group(groups: Mapping[str, str]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = defaultdict(list)
    for text, group in groups.items():
        texts[group].append(text)
    return texts


def _thinned(groups: Mapping[str, str], chance: random.Random) -> dict[str, str]:
    """At most so many questions of each group."""
    return {
        text: group
        for group, texts in _by_group(groups).items()
        for text in chance.sample(texts, min(RARE_QUESTIONS, len(texts)))
    }


def _cut(groups: Mapping[str, str], vectors: Vectors) -> dict[str, str]:
    """Each group in two, by which of two middles a question is nearer to (2-means)."""
    cut: dict[str, str] = {}
    for group, texts in _by_group(groups).items():
        points = np.stack([vectors[text] for text in texts])
        middles = points[[0, int(np.argmin(points @ points[0]))]]
        for _ in range(CUTTING_ROUNDS):
            nearer = (points @ middles.T).argmax(axis=1)
            middles = np.stack([points[nearer == side].mean(axis=0) for side in (0, 1)])
        cut |= {text: f"{group} {side}" for text, side in zip(texts, nearer.tolist(), strict=True)}
    return cut


def _paired(pairs: Rows) -> dict[str, str]:
    """Questions that are the same, directly or by way of others, are one group."""
    parents: dict[str, str] = {}

    def root(text: str) -> str:
        while parents.setdefault(text, text) != text:
            text = parents[text]
        return text

    for row in pairs:
        one, other = root(row["a"]), root(row["b"])
        if row["same"]:
            parents[one] = other
    return {text: root(text) for text in list(parents)}
