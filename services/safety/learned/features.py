"""What the learned heads see of a text beside its vector: hashed words, hashed letters and counts of telling words.

A sentence vector knows what a text is about and forgets how it was said; words and letter groups remember. All of it is
a linear, deterministic function of the text, computed in one pass: training and serving share this module, so that
they can never differ. It keeps nothing of a text.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

HINTS_FILE = Path(__file__).with_name("hints.yaml")
# Buckets of one kind of hashed feature. 2^15 gained nothing.
BUCKET_BITS = 14
BUCKET_COUNT = 1 << BUCKET_BITS
# Groups of so many letters, spaces included.
GROUP_SIZES = (3, 4, 5)
# Odd numbers without structure: Knuth's multiplicative hashing, and primes to tell the places of a letter apart.
_KNUTH = np.uint32(2654435761)
_PLACES = tuple(np.uint32(prime) for prime in (1000003, 998244353, 19260817, 805306457, 1610612741))
_WORD = re.compile(r"\w+(?:['’]\w+)?")
_INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\ufeff\u00ad]")
_SPACE = re.compile(r"\s+")


def plain(text: str) -> str:
    """Brings a text to the form that is read here: compatible characters, lower case, single spaces."""
    if text.isascii():
        return _SPACE.sub(" ", text.lower())
    return _SPACE.sub(" ", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()))


class Hints:
    """Counts words that hint at something, by group."""

    def __init__(self, groups: Mapping[str, str]) -> None:
        self.names = tuple(groups)
        self._whole: dict[str, list[int]] = {}
        self._stems: dict[str, list[int]] = {}
        for number, stems in enumerate(groups.values()):
            for stem in stems.split():
                table = self._whole if stem.endswith(".") else self._stems
                table.setdefault(stem.rstrip("."), []).append(number)
        self._stems_by_start: dict[str, list[str]] = {}
        self._start = min(map(len, self._stems), default=0)
        for stem in self._stems:
            self._stems_by_start.setdefault(stem[: self._start], []).append(stem)

    @classmethod
    def load(cls, file: Path = HINTS_FILE) -> Hints:
        """Reads the groups."""
        return cls(yaml.safe_load(file.read_text()))

    def count(self, words: Iterable[str]) -> Floats:
        """Returns of each group how many words there are and how thick they stand, and the length of the text.

        float32, shape (2 * groups + 1,), on scales that grow slowly.
        """
        counts = np.zeros(len(self.names), np.float32)
        word_count = 0
        for word in words:
            word_count += 1
            for number in self._groups(word.replace("'", "").replace("’", "")):
                counts[number] += 1
        length = np.float32(max(word_count, 1))
        return np.concatenate([np.log1p(counts), counts / np.sqrt(length), [np.log(length)]]).astype(np.float32)

    def _groups(self, word: str) -> set[int]:
        found = set(self._whole.get(word, ()))
        for stem in self._stems_by_start.get(word[: self._start], ()):
            if word.startswith(stem):
                found.update(self._stems[stem])
        return found


class Counted:
    """The hashed features of one text: which buckets, and log-damped counts; words first, letters behind them."""

    __slots__ = ("buckets", "hints", "weights")

    def __init__(self, buckets: Ints, weights: Floats, hints: Floats) -> None:
        self.buckets = buckets
        self.weights = weights
        self.hints = hints


def count(text: str, hints: Hints) -> Counted:
    """Computes what is counted in a text."""
    read = plain(text)
    words = _WORD.findall(read)
    parts = [_bucketed(_word_hashes(words), 0), _bucketed(_letter_hashes(read), BUCKET_COUNT)]
    buckets = np.concatenate([part[0] for part in parts])
    weights = np.concatenate([part[1] for part in parts])
    return Counted(buckets, weights, hints.count(words))


def _word_hashes(words: list[str]) -> npt.NDArray[np.uint32]:
    """Hashes words and pairs of neighbours."""
    single = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint32, len(words))
    pairs = single[:-1] * _PLACES[0] + single[1:]
    return np.concatenate([single, pairs])


def _letter_hashes(read: str) -> npt.NDArray[np.uint32]:
    """Hashes groups of letters, a space before and behind the text included."""
    letters = np.frombuffer(f" {read} ".encode("utf-32-le", "surrogatepass"), np.uint32)
    groups = []
    for size in GROUP_SIZES:
        length = max(len(letters) - size + 1, 0)
        total = np.full(length, size, np.uint32)
        for place in range(size):
            total += letters[place : place + length] * _PLACES[place]
        groups.append(total)
    return np.concatenate(groups)


def _bucketed(hashes: npt.NDArray[np.uint32], base: int) -> tuple[Ints, Floats]:
    """Returns the buckets that were hit and 1 + log(count) of each."""
    spread = (hashes ^ (hashes >> np.uint32(15))) * _KNUTH >> np.uint32(32 - BUCKET_BITS)
    counts = np.bincount(spread, minlength=1)
    buckets = np.flatnonzero(counts)
    return buckets + base, 1 + np.log(counts[buckets].astype(np.float32))
