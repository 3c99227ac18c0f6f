"""What the heads of the safety service learn from: rows of public files and lessons made of sentences, as numbers.

Reads and encodes; learns nothing. Encodings are kept in a folder, for they take a minute; where the encoder changed,
name another folder.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from kit import bert_onnx, minilm
from kit.sentence_model import find
from services.safety.learned.classifier import WINDOW_PASSAGES
from services.safety.learned.features import Floats, Hints, Tally, count, tallies
from services.safety.learned.heads import PRECISION, pooled
from services.safety.learned.passages import passages

LESSONS_FOLDER = Path(__file__).with_name("safety_lessons")
_SLOT = re.compile(r"\{(\w+)\}")
_NO_ATTACK, _ANYWHERE = {"direct": 0, "planted": 0}, {"direct": 1, "planted": 1}
# What the sentences of each kind say, and how many times as often as others each is used: one that holds code has far
# more to vary.
_INJECTION_KINDS: Mapping[str, tuple[dict[str, int], int]] = {
    "attacks": ({"direct": 1}, 1),
    "planted": ({"planted": 1}, 1),
    "benign": (_NO_ATTACK, 1),
    "everyday": (_NO_ATTACK, 1),
    "machine": (_ANYWHERE, 4),
    "programs": (_NO_ATTACK, 2),
    "wishes": ({"direct": 0, "planted": 1}, 2),
    "disguise": (_ANYWHERE, 2),
    "conventions": ({"direct": 0}, 2),
}


@dataclass(slots=True)
class Row:
    """One labelled text.

    Attributes:
        labels: 1 or 0 by category; what is missing is unknown.
        source: The set that it is from.
        group: Rows of one group are never on both sides of a split.
    """

    text: str
    labels: dict[str, int]
    source: str
    group: str = ""
    vector: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    hints: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    buckets: Any = None
    weights: Any = None


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads JSON lines, compressed or not."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def injection_lessons(seed: int, repeats: int) -> Iterator[Row]:
    """Makes lessons about injection from the sentences of this project, `repeats` of each."""
    content = yaml.safe_load((LESSONS_FOLDER / "injection.yaml").read_text())
    chance = random.Random(seed)
    for kind, (labels, times) in _INJECTION_KINDS.items():
        for number, sentence in enumerate(content[kind]):
            made = {_fill(sentence, content["words"], chance) for _ in range(times * repeats)}
            yield from (Row(text, dict(labels), "lessons", f"{kind}{number}") for text in sorted(made))


def moderation_lessons(seed: int, repeats: int, names: Sequence[str]) -> Iterator[Row]:
    """Makes lessons about harm, `repeats` of each sentence: all of `names` are known, and `any` is whether one is."""
    content = yaml.safe_load((LESSONS_FOLDER / "moderation.yaml").read_text())
    words = content.pop("words")
    chance = random.Random(seed)
    for key, sentences in content.items():
        harms = set() if key == "benign" else {*key.split(", "), "any"}
        labels = {name: int(name in harms) for name in names}
        for number, sentence in enumerate(sentences):
            made = {_fill(sentence, words, chance) for _ in range(repeats)}
            yield from (Row(text, labels, "lessons", f"{key}{number}") for text in sorted(made))


def _fill(sentence: str, words: dict[str, list[str]], chance: random.Random) -> str:
    text = _SLOT.sub(lambda slot: chance.choice(words[slot.group(1)]), sentence)
    style = chance.random()
    if style < 0.15:
        return text.lower().rstrip(".")
    if style < 0.2:
        return text.upper()
    return text[0].upper() + text[1:]


class Numbers:
    """Turns texts into what heads see."""

    def __init__(self, cache: Path) -> None:
        self._network = bert_onnx.BertOnnx(find(minilm.NAME, PRECISION), 1)
        self._network.tokenizer.no_truncation()
        self._network.tokenizer.no_padding()
        self._hints = Hints.load()
        self._file = cache / "vectors.npz"
        self._known: dict[str, Floats] = {}
        if self._file.exists():
            with np.load(self._file) as known:
                self._known = dict(zip(known["keys"].tolist(), known["vectors"], strict=True))

    def fill(self, rows: Sequence[Row]) -> None:
        """Computes vectors, hints and counts of all rows."""
        cut = [list(passages(row.text))[:WINDOW_PASSAGES] or [" "] for row in rows]
        new = {passage for parts in cut for passage in parts if _key(passage) not in self._known}
        self._encode(sorted(new, key=lambda passage: (len(passage), passage)))
        for row, parts in zip(rows, cut, strict=True):
            row.vector = pooled([self._known[_key(part)] for part in parts])
            counted = count([Tally.total([tallies(part, self._hints).whole for part in parts])])
            row.hints, row.buckets, row.weights = counted.hints[0], counted.buckets, counted.weights

    def _encode(self, texts: Sequence[str]) -> None:
        limit = self._network.token_max
        for begin in range(0, len(texts), 16):
            part = texts[begin : begin + 16]
            encodings = map(self._network.tokenizer.encode, part)
            ids = [_cut(encoding.ids, limit) for encoding in encodings]
            vectors, _ = self._network.run(ids)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            self._known.update(zip(map(_key, part), vectors, strict=True))
        if texts:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(self._file, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))


def _cut(ids: Sequence[int], limit: int) -> Sequence[int]:
    """Tokens that fit, the one that ends a text included."""
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
