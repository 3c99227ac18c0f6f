"""What the learned heads see of a text beside its vector: hashed words, hashed letters and counts of telling words.

A sentence vector knows what a text is about and forgets how it was said; words and letter groups remember. Sentences
are counted once each, and what a passage or a window has is the sum. All of it is a deterministic function of the text:
training and serving share this module, so that they can never differ. It keeps nothing of a text.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from services.safety.learned.passages import sentence_spans

Floats = npt.NDArray[np.float32]
Buckets = npt.NDArray[np.uint16]
Hashes = npt.NDArray[np.uint32]

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
        counts = [0] * len(self.names)
        for word in words:
            bare = word if word.isalnum() else word.replace("'", "").replace("’", "")
            if bare in self._whole or bare[: self._start] in self._stems_by_start:
                for number in self._groups(bare):
                    counts[number] += 1
        return np.array(counts, np.float32)

    def _groups(self, word: str) -> set[int]:
        found = set(self._whole.get(word, ()))
        for stem in self._stems_by_start.get(word[: self._start], ()):
            if word.startswith(stem):
                found.update(self._stems[stem])
        return found


@dataclass(frozen=True, slots=True)
class Counted:
    """The features of several texts.

    Attributes:
        buckets: Those that were hit, text by text, in each ascending; so words come first, letters behind them.
        weights: Of each bucket 1 + log(count).
        places: Where the words of each text begin, where its letters do, and where all end; shape (2 * texts + 1,).
        hints: Of each group how many words there are and how thick they stand, and the length of the text; float32,
            shape (texts, 2 * groups + 1), on scales that grow slowly.
    """

    buckets: Buckets
    weights: Floats
    places: npt.NDArray[np.intp]
    hints: Floats


@dataclass(frozen=True, slots=True)
class Tally:
    """What was counted in a stretch of text: a bucket for each word and letter group, and words by group of hints."""

    buckets: Buckets
    hints: Floats
    word_count: int

    @classmethod
    def total(cls, parts: Sequence[Tally]) -> Tally:
        """The sum of several, at least one."""
        if len(parts) == 1:
            return parts[0]
        buckets = np.concatenate([part.buckets for part in parts])
        hints = np.asarray(np.sum([part.hints for part in parts], axis=0), np.float32)
        return cls(buckets, hints, sum(part.word_count for part in parts))


class Tallies(NamedTuple):
    """What was counted in a passage, and in each of its sentences, with where each is."""

    whole: Tally
    sentences: tuple[Tally, ...]
    spans: tuple[tuple[int, int], ...]


def tallies(passage: str, hints: Hints) -> Tallies:
    """Counts in each sentence of a passage; in all of them at once, for it is calls of NumPy that take the time."""
    spans = tuple(sentence_spans(passage))
    reads = [plain(passage[start:end]).strip() for start, end in spans]
    words = [_WORD.findall(read) for read in reads]
    hashed = [*_word_hashes(words), *_letter_hashes(reads)]
    buckets = _buckets(hashed)
    if len(reads) == 1:
        whole = Tally(buckets, hints.count(words[0]), len(words[0]))
        return Tallies(whole, (whole,), spans)
    ends = accumulate(chain.from_iterable(each.counts for each in hashed), initial=0)
    parts = [buckets[begin:end] for begin, end in pairwise(ends)]
    sentences = tuple(
        Tally(np.concatenate(parts[row :: len(reads)]), hints.count(each), len(each)) for row, each in enumerate(words)
    )
    hits = np.asarray(np.sum([each.hints for each in sentences], axis=0), np.float32)
    return Tallies(Tally(buckets, hits, sum(map(len, words))), sentences, spans)


def count(texts: Sequence[Tally]) -> Counted:
    """Brings what was counted in several texts to the scales that heads read."""
    keys = np.concatenate([each.buckets for each in texts]).astype(np.uint32)
    numbers = np.arange(len(texts), dtype=np.uint32) << np.uint32(BUCKET_BITS + 1)
    keys += np.repeat(numbers, [len(each.buckets) for each in texts])
    keys, counts = _counts(keys)
    kinds = np.arange(2 * len(texts) + 1, dtype=np.uint32) << np.uint32(BUCKET_BITS)
    hits = np.stack([each.hints for each in texts])
    lengths = np.array([[max(each.word_count, 1)] for each in texts], np.float32)
    return Counted(
        (keys & np.uint32(2 * BUCKET_COUNT - 1)).astype(np.uint16),
        1 + np.log(counts.astype(np.float32)),
        np.searchsorted(keys, kinds),
        np.concatenate([np.log1p(hits), hits / np.sqrt(lengths), np.log(lengths)], axis=1),
    )


def _counts(keys: Hashes) -> tuple[Hashes, npt.NDArray[np.intp]]:
    """What NumPy's `unique` says, without its detours: each key once, ascending, and how often it is there."""
    keys.sort()
    is_first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_first[1:])
    begins = np.flatnonzero(is_first)
    ends = np.full_like(begins, len(keys))
    ends[:-1] = begins[1:]
    return keys[begins], ends - begins


class _Hashed(NamedTuple):
    """Hashes of one kind, text by text, and how many each text has."""

    hashes: Hashes
    counts: list[int]


def _word_hashes(texts: Sequence[list[str]]) -> tuple[_Hashed, _Hashed]:
    """Hashes words, and pairs of neighbours."""
    counts = [len(words) for words in texts]
    crcs = (zlib.crc32(word.encode("utf-8", "surrogatepass")) for words in texts for word in words)
    single = np.fromiter(crcs, np.uint32, sum(counts))
    pairs = single[:-1] * _PLACES[0] + single[1:]
    if len(texts) > 1:
        owners = np.repeat(np.arange(len(texts)), counts)
        pairs = pairs[owners[:-1] == owners[1:]]
    return _Hashed(single, counts), _Hashed(pairs, [max(count - 1, 0) for count in counts])


def _letter_hashes(texts: Sequence[str]) -> list[_Hashed]:
    """Hashes groups of letters, by their size; a space before and behind each text included."""
    padded = [f" {text} " for text in texts]
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32)
    owners = np.repeat(np.arange(len(texts)), list(map(len, padded))) if len(texts) > 1 else None
    groups = []
    total = letters * _PLACES[0]
    for size in range(2, GROUP_SIZES[-1] + 1):
        # Each group is the shorter one that begins with it, and a letter more.
        total = total[:-1] + letters[size - 1 :] * _PLACES[size - 1]
        if size in GROUP_SIZES:
            inside = total if owners is None else total[owners[: len(total)] == owners[size - 1 :]]
            groups.append(_Hashed(inside + np.uint32(size), [max(len(text) - size + 1, 0) for text in padded]))
    return groups


def _buckets(hashed: Sequence[_Hashed]) -> Buckets:
    """The bucket of each hash; the first two kinds are words."""
    hashes = np.concatenate([each.hashes for each in hashed])
    buckets = (hashes ^ (hashes >> np.uint32(15))) * _KNUTH >> np.uint32(32 - BUCKET_BITS)
    buckets[sum(len(each.hashes) for each in hashed[:2]) :] += np.uint32(BUCKET_COUNT)
    return np.asarray(buckets, np.uint16)
