"""Finds forbidden terms: phrases of a lexicon, on word borders, however their letters are dressed up.

A cursor reads words from left to right. At each it follows the lexicon as far as the text goes; the longest term wins
and reading goes on behind it. A word is decided when no term that starts there can still become one, so a stream is
held from the first word that might begin a term, and for no longer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from services.safety.detectors.detector import Match
from services.safety.detectors.folding import Folded
from services.safety.detectors.lexicon import Lexicon, Place, TermEnd

# A longer run of word characters is no word of the lexicon, whatever it folds to.
WORD_CODE_POINTS_MAX = 48
# The words of a term stand at most this far apart, and in one sentence.
GAP_CODE_POINTS_MAX = 8
# Letters of a term that is spelled out ("b o m b", "b.o.m.b", one below the other) stand closer, its words less so.
SPELLED_GAP_MAX = 6
# Shorter words are no phrase that is written without its spaces.
_JOINED_MIN = 10
# A term from its first to its last code point.
TERM_CODE_POINTS_MAX = 160

_NO_LETTER = -1000
_NO_WORD = Folded("", None)
_SENTENCE_END = re.compile(r"[.!?…。！？][\s\"')\]]*\s|\n\s*\n")


class _Word(NamedTuple):
    start: int
    end: int
    folded: Folded

    @property
    def is_letter(self) -> bool:
        return len(self.folded.leet or self.folded.plain) == 1


class _Words:
    """The words of a text in order.

    Most are plain letters that begin no term, and nobody looks at them again: these stay pairs of where in the text
    they begin and their letters in lower case, until somebody does.
    """

    def __init__(self, lexicon: Lexicon, offset: int) -> None:
        self._beginnings = lexicon.words.edges
        self._offset = offset
        self._words: list[_Word | tuple[int, str]] = []
        self.append = self._words.append

    def __len__(self) -> int:
        return len(self._words)

    def __getitem__(self, index: int) -> _Word:
        word = self._words[index]
        if not isinstance(word, _Word):
            start, plain = word[0] + self._offset, word[1]
            word = self._words[index] = _Word(start, start + len(plain), Folded(plain, None))
        return word

    def may_begin(self, index: int) -> bool:
        """Most words begin no term: they are told from the others before anything else is looked at."""
        word = self._words[index]
        if isinstance(word, _Word):
            plain, leet = word.folded
            if leet is not None:
                return True
        else:
            plain = word[1]
        return plain in self._beginnings or len(plain) == 1 or len(plain) >= _JOINED_MIN


class _Reach(NamedTuple):
    """How far one walk through the lexicon came: the terms at its longest end, and whether it may go on."""

    last: int = -1
    ends: tuple[TermEnd, ...] = ()
    undecided: bool = False


class ForbiddenTerms:
    """The detector of the terms of one lexicon; `name` is what policies call it."""

    optional_categories: frozenset[str] = frozenset()
    context = 0
    hold = TERM_CODE_POINTS_MAX + WORD_CODE_POINTS_MAX + GAP_CODE_POINTS_MAX
    # Measured: 0.6 us per code point of English.
    inline_code_points = 1500

    def __init__(self, lexicon: Lexicon, name: str = "forbidden_terms") -> None:
        self.name = name
        self._lexicon = lexicon
        self.categories = tuple(sorted(lexicon.categories))

    def cursor(self, categories: Collection[str]) -> TermsCursor:
        """Begins to read a text."""
        return TermsCursor(self._lexicon, frozenset(categories))


class TermsCursor:
    """One reading of one text."""

    def __init__(self, lexicon: Lexicon, categories: frozenset[str]) -> None:
        self.safe = 0
        self._lexicon = lexicon
        self._categories = categories
        self._inside_long_run = False
        self._last_letter_end = _NO_LETTER

    def scan(self, text: str, offset: int, final: bool) -> list[Match]:
        """See `detector.Cursor.scan`."""
        words, horizon = self._words(text, offset, final)
        walk = _Walk(self._lexicon, self._categories, text, offset, words, horizon, final)
        matches: list[Match] = []
        index = 0
        while index < len(words):
            if not words.may_begin(index):
                self._last_letter_end = _NO_LETTER
                index += 1
                continue
            reach = walk.from_word(index, words[index].start - self._last_letter_end > SPELLED_GAP_MAX)
            if reach.undecided:
                horizon = words[index].start
                break
            last = index if reach.last < 0 else reach.last
            for end in reach.ends:
                matches.append(Match(words[index].start, words[last].end, end.category, end.score))
            self._last_letter_end = words[last].end if words[last].is_letter else _NO_LETTER
            index = last + 1
        self.safe = max(self.safe, horizon)
        return matches

    def _words(self, text: str, offset: int, final: bool) -> tuple[_Words, int]:
        """Splits what is not yet decided into words; the horizon is where an unfinished one begins."""
        folder = self._lexicon.folder
        words = _Words(self._lexicon, offset)
        is_ascii = text.isascii()
        for run in (folder.ascii_word if is_ascii else folder.word).finditer(text, self._begin(text, offset)):
            start, end = run.span()
            if end - start > WORD_CODE_POINTS_MAX:
                self._inside_long_run = end == len(text)
                words.append(_Word(start + offset, end + offset, _NO_WORD))
            elif end == len(text) and not final:
                return words, start + offset
            else:
                raw = run.group()
                if is_ascii and raw.isalpha():
                    words.append((start, raw.lower()))
                    continue
                before, after = (0, 0) if raw.isalnum() else folder.trim(raw)
                folded = folder.fold(raw)
                if folded.plain or folded.leet:
                    words.append(_Word(start + before + offset, end - after + offset, folded))
        return words, offset + len(text)

    def _begin(self, text: str, offset: int) -> int:
        """Where reading goes on: behind the rest of a run that was too long to be a word."""
        position = self.safe - offset
        if not self._inside_long_run or position == len(text):
            return position
        rest = self._lexicon.folder.word.match(text, position)
        position = rest.end() if rest else position
        self._inside_long_run = position == len(text)
        return position


@dataclass(frozen=True, slots=True)
class _Walk:
    """Walks through the lexicon along the words that have arrived."""

    lexicon: Lexicon
    categories: frozenset[str]
    text: str
    offset: int
    words: _Words
    horizon: int
    final: bool

    def from_word(self, first: int, begins: bool) -> _Reach:
        """The longest terms that start at a word; `begins`: no spelled letter stands right before it."""
        by_words = self._along_words(first)
        if by_words.undecided or by_words.ends:
            return by_words
        if self.words[first].is_letter:
            return self._along_letters(first, begins)
        return self._through_word(first)

    def _along_words(self, first: int) -> _Reach:
        place = self.lexicon.words
        reach = _Reach()
        for index in range(first, len(self.words)):
            word = self.words[index]
            following = place.follow(word.folded)
            if following is None or (index > first and not self._joined(self.words[index - 1].end, word.start)):
                return reach
            if self._is_too_long(first, word.end):
                return reach
            place = following
            reach = self._extend(reach, place, index)
        ongoing = not self.final and bool(place.edges) and self._joined(self.words[-1].end, self.horizon)
        return reach._replace(undecided=ongoing and not self._is_too_long(first, self.horizon))

    def _along_letters(self, first: int, begins: bool) -> _Reach:
        """Follows letters that stand alone, as in "b o m b"; a term of one word must be all that is spelled."""
        place = self.lexicon.letters
        reach = _Reach()
        for index in range(first, len(self.words)):
            word = self.words[index]
            if index > first and not self._follows_letter(index):
                return reach
            letter = self.lexicon.folder.skeleton(word.folded.leet or word.folded.plain)
            following = place.follow(Folded(letter, None))
            if following is None or self._is_too_long(first, word.end):
                return reach
            place = following
            if place.ends:
                if index + 1 == len(self.words) and self._may_get_letter:
                    return reach._replace(undecided=True)
                whole = begins and not (index + 1 < len(self.words) and self._follows_letter(index + 1))
                reach = self._extend(reach, place, index, one_word=whole)
        return reach._replace(undecided=self._may_get_letter)

    def _through_word(self, index: int) -> _Reach:
        """A phrase that is written as one word, from its first letter to its last."""
        plain, leet = self.words[index].folded
        if len(plain) < _JOINED_MIN:
            return _Reach()
        place = self.lexicon.letters
        for letter in self.lexicon.folder.skeleton(leet or plain):
            following = place.follow(Folded(letter, None))
            if following is None:
                return _Reach()
            place = following
        return self._extend(_Reach(), place, index)

    def _follows_letter(self, index: int) -> bool:
        word = self.words[index]
        return word.is_letter and word.start - self.words[index - 1].end <= SPELLED_GAP_MAX

    @property
    def _may_get_letter(self) -> bool:
        return not self.final and self.horizon - self.words[-1].end <= SPELLED_GAP_MAX

    def _is_too_long(self, first: int, end: int) -> bool:
        return end - self.words[first].start > TERM_CODE_POINTS_MAX

    def _joined(self, end: int, start: int) -> bool:
        """Whether two words this far apart may belong to one term."""
        near = start - end <= GAP_CODE_POINTS_MAX
        return near and not _SENTENCE_END.search(self.text, end - self.offset, start - self.offset)

    def _extend(self, reach: _Reach, place: Place, index: int, one_word: bool = True) -> _Reach:
        """Takes the terms that end at a place for the longest ones so far; of each category the most certain."""
        if not place.ends:
            return reach
        best: dict[str, TermEnd] = {}
        for end in place.ends:
            if end.category in self.categories and (one_word or not end.is_one_word):
                best[end.category] = max(end, best.get(end.category, end))
        return _Reach(index, tuple(best.values())) if best else reach
