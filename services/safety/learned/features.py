"""What the learned heads see of a text beside its vector: hashed words, hashed letters and counts of telling words.

A sentence vector knows what a text is about and forgets how it was said; words and letter groups remember. Sentences
are counted once each, and what a passage or a window has is the sum. All of it is a deterministic function of the text:
training and serving share this module, so that they can never differ. It keeps nothing of a text.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from services.safety.learned.passages import sentence_spans

Floats = npt.NDArray[np.float32]
Buckets = npt.NDArray[np.uint16]

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
        """Returns how many words there are of each group, float32, shape (groups,)."""
        counts = np.zeros(len(self.names), np.float32)
        for word in words:
            for number in self._groups(word.replace("'", "").replace("’", "")):
                counts[number] += 1
        return counts

    def _groups(self, word: str) -> set[int]:
        found = set(self._whole.get(word, ()))
        for stem in self._stems_by_start.get(word[: self._start], ()):
            if word.startswith(stem):
                found.update(self._stems[stem])
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """The features of a text.

    Attributes:
        buckets: Those that were hit, ascending; words first, letters behind them.
        weights: Of each bucket 1 + log(count).
        word_bucket_count: How many of the buckets are of words.
        hints: Of each group how many words there are and how thick they stand, and the length of the text; float32,
            shape (2 * groups + 1,), on scales that grow slowly.
    """

    buckets: Buckets
    weights: Floats
    word_bucket_count: int
    hints: Floats


@dataclass(frozen=True)
class Tally:
    """What was counted in a stretch of text: a bucket for each word and letter group, and words by group of hints."""

    buckets: Buckets
    hints: Floats
    word_count: int

    @classmethod
    def of(cls, text: str, hints: Hints) -> Tally:
        """Counts in a sentence."""
        read = plain(text).strip()
        words = _WORD.findall(read)
        buckets = np.concatenate([_spread(_word_hashes(words)), _spread(_letter_hashes(read)) + BUCKET_COUNT])
        return cls(buckets.astype(np.uint16), hints.count(words), len(words))

    @classmethod
    def total(cls, parts: Sequence[Tally]) -> Tally:
        """The sum of several, at least one."""
        if len(parts) == 1:
            return parts[0]
        buckets = np.concatenate([part.buckets for part in parts])
        hints = np.asarray(np.sum([part.hints for part in parts], axis=0), np.float32)
        return cls(buckets, hints, sum(part.word_count for part in parts))

    @functools.cached_property
    def counted(self) -> Counted:
        """What was counted, brought to the scales that heads read."""
        buckets, counts = _counts(self.buckets)
        weights = 1 + np.log(counts.astype(np.float32))
        length = np.float32(max(self.word_count, 1))
        hints = np.concatenate([np.log1p(self.hints), self.hints / np.sqrt(length), [np.log(length)]])
        words = int(np.searchsorted(buckets, BUCKET_COUNT))
        return Counted(buckets, weights, words, hints.astype(np.float32))


class Tallies(NamedTuple):
    """What was counted in a passage, and in each of its sentences."""

    whole: Tally
    sentences: tuple[Tally, ...]


def tallies(passage: str, hints: Hints) -> Tallies:
    """Counts in each sentence of a passage."""
    sentences = tuple(Tally.of(passage[start:end], hints) for start, end in sentence_spans(passage))
    return Tallies(Tally.total(sentences), sentences)


def _counts(buckets: Buckets) -> tuple[Buckets, npt.NDArray[np.intp]]:
    """What NumPy's `unique` says, without its detours: each bucket once, ascending, and how often it is there."""
    ordered = np.sort(buckets)
    is_first = np.ones(len(ordered), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=is_first[1:])
    begins = np.flatnonzero(is_first)
    ends = np.full_like(begins, len(ordered))
    ends[:-1] = begins[1:]
    return ordered[begins], ends - begins


def _word_hashes(words: list[str]) -> npt.NDArray[np.uint32]:
    """Hashes words and pairs of neighbours."""
    single = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint32, len(words))
    pairs = single[:-1] * _PLACES[0] + single[1:]
    return np.concatenate([single, pairs])


def _letter_hashes(read: str) -> npt.NDArray[np.uint32]:
    """Hashes groups of letters, a space before and behind the text included."""
    letters = np.frombuffer(f" {read} ".encode("utf-32-le", "surrogatepass"), np.uint32)
    groups = []
    total = letters * _PLACES[0]
    for size in range(2, GROUP_SIZES[-1] + 1):
        # Each group is the shorter one that begins with it, and a letter more.
        total = total[:-1] + letters[size - 1 :] * _PLACES[size - 1]
        if size in GROUP_SIZES:
            groups.append(total + np.uint32(size))
    return np.concatenate(groups)


def _spread(hashes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Returns the bucket of each."""
    return (hashes ^ (hashes >> np.uint32(15))) * _KNUTH >> np.uint32(32 - BUCKET_BITS)
