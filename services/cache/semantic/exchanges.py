"""Whether two things have taken each other's place: `from X to Y` for `from Y to X`.

The same words in another order mean another thing where what they depend on changes (`a taxi to Rome` for `a taxi from
Rome`), and the same thing where it does not (`in Rome, how do I` for `how do I, in Rome`). No word is known here but
those that join equals and those that stand for persons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from services.cache.semantic.words import Words, is_content

# Share of content in common, in any order, from which an exchange of two words counts.
SWAPPED_RATIO: Final = 0.8
COMMUTING: Final = frozenset("and or between & vs versus".split())
# What stands between two things that are not equal, and is known by their sides.
JOINTS: Final = frozenset("before after than until since because if while unless over without causes instead".split())
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
    return (
        _contents_exchanged(ours, theirs)
        or _swapped(ours.stems, theirs.stems)
        or _crossed(ours, theirs)
        or _persons_exchanged(ours, theirs)
        or _roles_exchanged(ours, theirs)
    )


def _swapped(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Whether all is the same but for two words, each where the other was: `if X hits Y, is X hurt`."""
    if len(ours) != len(theirs) or Counter(ours).keys() != Counter(theirs).keys():
        return False
    places = [at for at, (mine, other) in enumerate(zip(ours, theirs, strict=True)) if mine != other]
    if len(places) < 2 or len({frozenset((ours[at], theirs[at])) for at in places}) > 1:
        return False
    between = set(ours[places[0] + 1 : places[1]]) - SKIPPED
    return len(places) > 2 or not between <= COMMUTING


def _crossed(ours: Words, theirs: Words) -> bool:
    """Whether two things have changed sides of what orders them: `eat before I sleep`, `sleep before I eat`."""
    for joint in JOINTS.intersection(ours.tokens).intersection(theirs.tokens):
        (left, right), (left_there, right_there) = _sides(ours, joint), _sides(theirs, joint)
        if left & right_there and right & left_there and left | right == left_there | right_there:
            return True
    return False


def _sides(words: Words, joint: str) -> tuple[set[str], set[str]]:
    """The words of content before and behind a word."""
    at = words.tokens.index(joint)
    told = [is_content(token) for token in words.tokens]
    left = {stem for stem, tells in zip(words.stems[:at], told[:at], strict=True) if tells}
    right = {stem for stem, tells in zip(words.stems[at:], told[at:], strict=True) if tells}
    return left - right, right - left


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
    one, two = contents(ours), contents(theirs)
    if mine != other:
        return one == two
    if one == two or sorted(one) != sorted(two):
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
    mine, other = contents(ours), contents(theirs)
    asked = [words.tokens[:1] == ("who",) or words.tokens[:1] == ("what",) for words in (ours, theirs)]
    helped = [words.tokens[1:2] in SUPPORTS for words in (ours, theirs)]
    return all(asked) and helped[0] != helped[1] and mine != other and sorted(mine) == sorted(other)


def contents(words: Words) -> list[str]:
    """The words of content of a text, in order."""
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
