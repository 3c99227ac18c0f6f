"""Marks the names of people and places in a passage: a small network over its words, and runs of words made of that.

A network of one hidden layer reads each word by itself; what stands around it, the encoder has put into its state
already. Words of one kind that follow each other are one name. It is trained by tools/train_names.py; how well it does
is in docs/safety-models.md.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kit.encoder import Encoded
from services.safety.learned.features import Floats
from services.safety.learned.heads import genuine
from services.safety.learned.words import Span, Words

ARRAYS = Path(__file__).with_name("names.npz")

# A word that is so likely part of a name belongs to the run around it; how likely the run is, its surest word says.
WORD_LIKELY = 0.3
# What may stand between two words of one name.
_JOINTS = frozenset((" ", ". ", ".", "-"))
# Nobody is called so, and a capital letter by itself looks like an initial.
_PRONOUNS = frozenset("i i'm i’m i've i’ve i'd i’d i'll i’ll me my you your he she it we they us".split())


class Mark(NamedTuple):
    """A name in a passage: a half-open range of code points, what it names, and how likely that is."""

    start: int
    end: int
    category: str
    score: float


@dataclass(frozen=True, slots=True)
class NamesHead:
    """The network.

    Attributes:
        names: What its last outputs stand for; those before them stand for other words.
        hidden: float32, shape (features, hidden); the standardisation of training is folded in.
        hidden_bias: float32, shape (hidden,).
        out: float32, shape (hidden, outputs).
        out_bias: float32, shape (outputs,).
    """

    names: tuple[str, ...]
    hidden: Floats
    hidden_bias: Floats
    out: Floats
    out_bias: Floats

    @classmethod
    def load(cls, path: Path = ARRAYS) -> NamesHead:
        """Reads the arrays.

        Raises:
            FailedPrecondition: HEADS_NOT_GENUINE.
        """
        with np.load(io.BytesIO(genuine(path)), allow_pickle=False) as arrays:
            parts = (arrays[name].astype(np.float32) for name in ("hidden", "hidden_bias", "out", "out_bias"))
            return cls(tuple(arrays["names"].tolist()), *parts)

    def probabilities(self, features: Floats) -> Floats:
        """Says of each word how likely it is part of each kind of name, shape (words, names)."""
        hidden = features @ self.hidden
        hidden += self.hidden_bias
        np.maximum(hidden, 0, out=hidden)
        logits = hidden @ self.out + self.out_bias
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=1, keepdims=True))[:, -len(self.names) :], np.float32)

    def mark(self, text: str, words: Words, encoded: Encoded) -> tuple[Mark, ...]:
        """Marks the names of a passage whose words were read, in order; none overlap."""
        return join(text, words.spans, self.probabilities(words.features(encoded)), self.names) if words.spans else ()


def join(text: str, spans: Sequence[Span], probabilities: Floats, names: Sequence[str]) -> tuple[Mark, ...]:
    """Makes runs of words that are likely of one kind."""
    marks: list[Mark] = []
    kinds, likely = probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist()
    is_open = False
    for (start, end), kind, score in zip(spans, kinds, likely, strict=True):
        if score < WORD_LIKELY or (text[start:end].lower() in _PRONOUNS and text[end : end + 1] != "."):
            is_open = False
            continue
        last = marks[-1] if is_open else None
        if last and last.category == names[kind] and text[last.end : start] in _JOINTS:
            marks[-1] = last._replace(end=end, score=max(last.score, score))
        else:
            marks.append(Mark(start, end, names[kind], score))
        is_open = True
    return tuple(marks)
