"""The forbidden terms as data, and the graphs that find them.

A term is a phrase of words in which a group offers alternatives: "(make|build) (a)? (pipe)? bomb". Each phrase becomes
a small graph with an edge per word, all of them hung into one start, so that the size of the whole grows with the text
of the phrases and not with what they multiply to. A phrase that is long enough hangs there backwards
too, so that reversed text costs nothing to look for. The lexicon knows nothing of texts; `terms.py` walks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from services.safety.detectors.folding import Folded, Folder

WORDS_MAX = 16

# A term of fewer letters is not looked for in spelled-out letters.
_SPELLED_MIN = 3
# Nor one of fewer backwards: short words are others when they are reversed.
_BACKWARDS_MIN = 5
# Marks edges that are compared by skeleton; no folded word contains a NUL.
_LEET = "\0"
_PIECE = re.compile(r"\(([^()]+)\)(\?)?|([^\s()?]+)")

Phrase = list[list[tuple[str, ...]]]
"""What stands at each place of a phrase: the alternatives, each some words or none."""


class TermEnd(NamedTuple):
    """What a term says when it is found."""

    category: str
    score: float
    is_one_word: bool


@dataclass(slots=True)
class Node:
    """A place in the graph: where each word leads, and the terms that end here."""

    edges: dict[str, list[Node]] = field(default_factory=dict)
    ends: list[TermEnd] = field(default_factory=list)


class Place:
    """Where a reader may be in the graph: at several nodes at once, seen as one."""

    def __init__(self, nodes: Sequence[Node], places: dict[frozenset[int], Place]) -> None:
        self.ends = tuple(end for node in nodes for end in node.ends)
        self.edges: dict[str, list[Node]] = {}
        for node in nodes:
            for label, following in node.edges.items():
                self.edges.setdefault(label, []).extend(following)
        self._next: dict[str, Place] = {}
        self._places = places

    def follow(self, word: Folded) -> Place | None:
        """Where a word leads; as written, or else with its signs read as letters."""
        plain, leet = word
        return self._along(plain) or (None if leet is None else self._along(_LEET + leet))

    def _along(self, label: str) -> Place | None:
        place = self._next.get(label)
        if place is None and (nodes := self.edges.get(label)):
            # Made on first use. Phrases bound how many there can be, whatever the texts.
            key = frozenset(map(id, nodes))
            place = self._places.get(key) or self._places.setdefault(key, Place(nodes, self._places))
            self._next[label] = place
        return place


class Lexicon:
    """Two graphs over all terms: one by words, one by letters for terms that are spelled out."""

    def __init__(self, folder: Folder, terms: Iterable[tuple[str, float, str]]) -> None:
        """Builds the graphs.

        Args:
            folder: Folds the words of terms as it will those of texts.
            terms: Category, score and phrase of each term.
        """
        self.folder = folder
        self.categories: set[str] = set()
        words, letters = Node(), Node()
        for category, score, text in terms:
            self.categories.add(category)
            phrase = parse(text)
            end = TermEnd(category, score, _shortest(phrase) == 1)
            for written in (phrase, *_backwards(phrase)):
                _hang(words, [[self._fold(option) for option in options] for options in written], end)
                if _letter_count_min(phrase) >= _SPELLED_MIN:
                    _hang(letters, [[self._spell(option) for option in options] for options in written], end)
        self.words = Place([words], {})
        self.letters = Place([letters], {})

    def _fold(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        plain = [self.folder.fold(word).plain for word in words]
        return [(word, _LEET + self.folder.skeleton(word)) for word in plain]

    def _spell(self, words: Sequence[str]) -> list[tuple[str, ...]]:
        return [(letter,) for word in words for letter in self.folder.skeleton(self.folder.fold(word).plain)]


def _hang(root: Node, places: list[list[list[tuple[str, ...]]]], end: TermEnd) -> None:
    """Adds a phrase: at each place every node reached so far grows a chain per alternative."""
    frontier = [root]
    for options in places:
        joint = Node()
        passed = [node for node in frontier if [] in options]
        for chain in filter(None, options):
            for node in frontier:
                _grow(node, chain, joint)
        frontier = [joint, *passed]
    for node in frontier:
        node.ends.append(end)


def _grow(node: Node, chain: list[tuple[str, ...]], joint: Node) -> None:
    for labels in chain[:-1]:
        following = Node()
        for label in labels:
            node.edges.setdefault(label, []).append(following)
        node = following
    for label in chain[-1]:
        node.edges.setdefault(label, []).append(joint)


def parse(text: str) -> Phrase:
    """Reads a phrase.

    Raises:
        ValueError: It cannot be read, may be empty, or is too long; says why.
    """
    if _PIECE.sub("", text).strip():
        raise ValueError(f"cannot read {text!r}: write words, (one|another) and (optional)?")
    phrase: Phrase = []
    for group, optional, word in _PIECE.findall(text):
        options = [tuple(option.split()) for option in (group.split("|") if group else [word])]
        phrase.append(options + [()] * bool(optional))
    if not 0 < _shortest(phrase) <= sum(max(map(len, options)) for options in phrase) <= WORDS_MAX:
        raise ValueError(f"{text!r} must stand for 1 to {WORDS_MAX} words")
    if not all(word.isalnum() for options in phrase for words in options for word in words):
        raise ValueError(f"{text!r}: words are letters and digits only (write dont for don't, two words for a-b)")
    return phrase


def _backwards(phrase: Phrase) -> Iterator[Phrase]:
    """A phrase as reversed text has it: word by word, and from its end."""
    if _letter_count_min(phrase) >= _BACKWARDS_MIN:
        words = [[tuple(word[::-1] for word in option) for option in options] for options in phrase]
        yield words
        yield [[option[::-1] for option in options] for options in reversed(words)]


def _shortest(phrase: Phrase) -> int:
    return sum(min(map(len, options)) for options in phrase)


def _letter_count_min(phrase: Phrase) -> int:
    return sum(min(len("".join(words)) for words in options) for options in phrase)
