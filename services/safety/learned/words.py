"""What the head for names sees of a text: its words, as the encoder understood them and as they are written.

The encoder knows what a word means where it stands, but reads everything in lower case; how it is written is counted
here. Training and serving share this module, so that they can never differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kit.encoder import Encoded
from services.safety.learned.features import Floats

Span = tuple[int, int]
Places = npt.NDArray[np.intp]

# Letters and digits of all scripts, joined by apostrophes and hyphens, without the s that says whose.
_WORD = re.compile(r"[^\W_]+(?:(?:['’](?!s\b)|-)[^\W_]+)*")
# Words in these are nobody's name.
_ADDRESS = re.compile(r"[\w.+\-]*@[\w.\-]+|(?:https?://|www\.)\S+|#\w+")
# Scripts that put no space between words: a run of them is a phrase, which the head knows nothing about.
_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_SENTENCE_END = frozenset(".!?…:\n")

SHAPE_COUNT = 14
_IS_LOWER, _LENGTH = 1, 13
# How far to either side the shapes of other words are seen.
NEIGHBOURS = 2
_LENGTH_MAX = 12


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a passage that are not part of an address; those of scripts without spaces are left out.

    Attributes:
        spans: Where each is, half-open, in code points.
        places: The same, shape (words, 2).
        shapes: How each and those around it are written, float32, shape (words, SHAPE_COUNT * (2 * NEIGHBOURS + 1)).
    """

    spans: tuple[Span, ...]
    places: Places
    shapes: Floats

    def features(self, encoded: Encoded) -> Floats:
        """All that is known of each, float32, shape (words, state + shapes), once the text is encoded."""
        return np.concatenate([states_of(self.places, encoded), self.shapes], axis=1)


def read_words(text: str) -> Words:
    """Reads the words of a text as they are written."""
    addresses = [match.span() for match in _ADDRESS.finditer(text)]
    is_spaced = text.isascii() or not _UNSPACED.search(text)
    spans = tuple(
        span
        for match in _WORD.finditer(text)
        if not _touches(span := match.span(), addresses) and (is_spaced or not _UNSPACED.search(match.group()))
    )
    places = np.array(spans, np.intp).reshape(-1, 2)
    return Words(spans, places, _with_neighbours(_shapes(text, spans, places)))


def _touches(span: Span, others: Sequence[Span]) -> bool:
    return bool(others) and any(start < span[1] and span[0] < end for start, end in others)


def states_of(spans: Places, encoded: Encoded) -> Floats:
    """The mean state of the tokens of each span, in order and apart; zeros for one of which the encoder made none."""
    if not len(spans):
        return np.zeros((0, encoded.states.shape[1]), np.float32)
    starts, ends = spans.T
    begins = encoded.offsets[:, 0]
    places = np.searchsorted(starts, begins, side="right") - 1
    inside = (encoded.offsets[:, 1] > begins) & (places >= 0) & (begins < ends[places])
    # A product with a matrix of shares takes a tenth of the time that sums at places do.
    shares = np.zeros((len(spans), len(begins)), np.float32)
    shares[places[inside], np.flatnonzero(inside)] = 1
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    return np.asarray(shares @ encoded.states, np.float32)


def _shapes(text: str, spans: Sequence[Span], places: Places) -> Floats:
    """How each word is written, shape (words, SHAPE_COUNT). Most are plain ones amid a sentence, told at once."""
    shapes = np.zeros((len(spans), SHAPE_COUNT), np.float32)
    shapes[:, _IS_LOWER] = 1
    shapes[:, _LENGTH] = np.minimum(places[:, 1] - places[:, 0], _LENGTH_MAX) / _LENGTH_MAX
    for row, (start, end) in enumerate(spans):
        word = text[start:end]
        is_plain = word.islower() and word.isascii() and word.isalpha() and end - start > 1
        is_amid = (
            start > 1 and text[start - 1] == " " and text[start - 2].isalnum() and text[end : end + 1] in ("", " ")
        )
        if not (is_plain and is_amid):
            shapes[row] = _shape(text, start, end)
    return shapes


def _shape(text: str, start: int, end: int) -> tuple[float, ...]:
    """How a word is written, and what stands beside it."""
    word, before, after = text[start:end], text[max(start - 2, 0) : start], text[end : end + 1]
    last = before.rstrip()[-1:]
    is_first = not last or last in _SENTENCE_END
    is_upper = word[0].isupper()
    return (
        is_upper,
        word.islower(),
        word.isupper() and len(word) > 1,
        len(word) == 1,
        not word.isalpha() and any(map(str.isdigit, word)),
        is_first,
        is_upper and not is_first,
        "-" in word,
        after == ".",
        after == ",",
        after in ("'", "’"),
        before.endswith((",", ", ")),
        not word.isascii(),
        min(len(word), _LENGTH_MAX) / _LENGTH_MAX,
    )


def _with_neighbours(shapes: Floats) -> Floats:
    """Puts beside each word's shape those of the words around it; zeros beyond the ends."""
    padded = np.zeros((len(shapes) + 2 * NEIGHBOURS, SHAPE_COUNT), np.float32)
    padded[NEIGHBOURS : NEIGHBOURS + len(shapes)] = shapes
    return np.concatenate([padded[at : at + len(shapes)] for at in range(2 * NEIGHBOURS + 1)], axis=1)
