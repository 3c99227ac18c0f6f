"""Whether two things have taken each other's place: `from X to Y` for `from Y to X`.

The same words in another order mean another thing where what they depend on changes (`a taxi to Rome` for `a taxi from
Rome`), and the same thing where it does not (`in Rome, how do I` for `how do I, in Rome`). No word is known here but
those that join equals and those that stand for persons.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Final

from services.cache.semantic.words import Words, is_content

# Share of content in common, in any order, from which an exchange of two words counts.
SWAPPED_RATIO: Final = 0.8
COMMUTING: Final = frozenset("and or between & vs versus".split())
# Who speaks or is spoken of, but for possessives: `my card, can you` and `can you, my card` are one.
PERSONS: Final = {
    word: words.split()[0]
    for words in ("i me", "you u", "he him", "she her", "we us", "they them")
    for word in words.split()
}
# Who does it, and to whom it is done, where the word tells: `I give my sister`, `my sister gives me`.
SUBJECTS: Final = frozenset("i he she we they".split())
OBJECTS: Final = frozenset("me him us them".split())
PASSIVE: Final = frozenset("am is are was were be been being get got".split())
# With these and a `to` behind them who is named does it: `Am I allowed to text my boss`.
MODAL: Final = frozenset("able allowed permitted supposed entitled required obliged expected going".split())
# Forms of one verb, which change with the number of who is before or behind it: `does the teacher`, `do the parents`.
AUXILIARIES: Final = {
    word: words.split()[0]
    for words in ("do doe did", "is are was were am", "has have had", "will would", "can could")
    for word in words.split()
}
# Verbs that only help another one: `Who did John hit`.
SUPPORTS: Final = frozenset((word,) for word in "do does did".split())
SKIPPED: Final = frozenset("a an the my your our their his its this that these those".split()) | PERSONS.keys()


def exchanged(ours: Words, theirs: Words) -> bool:
    """Whether two words of content, two names or two persons have taken each other's place."""
    return _contents_exchanged(ours, theirs) or _persons_exchanged(ours, theirs) or _roles_exchanged(ours, theirs)


def _contents_exchanged(ours: Words, theirs: Words) -> bool:
    mine, other = _places(ours), _places(theirs)
    shared = mine.keys() & other.keys()
    if len(shared) < SWAPPED_RATIO * len(mine.keys() | other.keys()):
        return False
    moved = {word: (mine[word], other[word]) for word in shared if mine[word] != other[word]}
    places = {(here, there) for here, there in moved.values() if "and" not in (here, there)}
    if any((there, here) in places for here, there in places):
        return True
    return _reordered([word for word in moved if "and" not in moved[word]], ours, theirs)


def _reordered(moved: list[str], ours: Words, theirs: Words) -> bool:
    """Whether two names come in the other order: `flights Rome Oslo`."""
    names = [word for word in moved if word in ours.names & theirs.names]
    return any(
        (ours.stems.index(one) < ours.stems.index(other)) != (theirs.stems.index(one) < theirs.stems.index(other))
        for one, other in combinations(names, 2)
    )


def _persons_exchanged(ours: Words, theirs: Words) -> bool:
    """Whether other persons do the same: `Can I call you` for `Can you call me`."""
    mine, other = _persons(ours), _persons(theirs)
    if len(mine) != len(other):
        mine, other = _persons(ours, owning=False), _persons(theirs, owning=False)
    if len(mine) != len(other) or set(mine) != set(other):
        return False
    contents = _content(ours), _content(theirs)
    if mine != other:
        return contents[0] == contents[1]
    if contents[0] == contents[1] or sorted(contents[0]) != sorted(contents[1]):
        return False
    does, does_there = list(_does(ours)), list(_does(theirs))
    return len(does) == len(does_there) and does != does_there


def _persons(words: Words, *, owning: bool = True) -> list[str]:
    """The persons of a text, with or without the `her` of `to her plan`, which may be whose the plan is."""
    tokens = words.tokens
    return [
        PERSONS[token]
        for at, token in enumerate(tokens)
        if token in PERSONS and (owning or token != "her" or not any(map(is_content, tokens[at + 1 : at + 2])))
    ]


def _does(words: Words) -> Iterator[bool]:
    """Of each person whether it is who does it or to whom it is done; not of those in `I was charged`, `for me`."""
    for at, token in enumerate(words.tokens):
        around = words.tokens[max(0, at - 1) : at + 2]
        if token in OBJECTS and at and (is_content(around[0]) or around[0] == "to"):
            yield False
        elif token in SUBJECTS and (
            not PASSIVE.intersection(around) or MODAL.intersection(words.tokens[at + 1 : at + 3])
        ):
            yield True


def _roles_exchanged(ours: Words, theirs: Words) -> bool:
    """Whether one asks who does something, and the other to whom it is done: `Who hit John` for `Who did John hit`."""
    mine, other = _content(ours), _content(theirs)
    asked = [words.tokens[:1] == ("who",) or words.tokens[:1] == ("what",) for words in (ours, theirs)]
    helped = [words.tokens[1:2] in SUPPORTS for words in (ours, theirs)]
    return all(asked) and helped[0] != helped[1] and mine != other and sorted(mine) == sorted(other)


def _content(words: Words) -> list[str]:
    return [stem for token, stem in zip(words.tokens, words.stems, strict=True) if is_content(token)]


def _places(words: Words) -> dict[str, str]:
    """What each word of content depends on."""
    return {words.stems[at]: _before(words, at) for at, token in enumerate(words.tokens) if is_content(token)}


def _before(words: Words, at: int) -> str:
    """The word that a word depends on: the one before it, articles apart; those that join equals count as one."""
    while at > 0 and words.tokens[at - 1] in SKIPPED:
        at -= 1
    before = words.stems[at - 1] if at else ""
    if at > 1 and is_content(words.tokens[at - 1]) and words.stems.count(before) > 1:  # `column C into column D`
        return f"{_before(words, at - 1)} {before}"
    return "and" if before in COMMUTING else AUXILIARIES.get(before, before)
