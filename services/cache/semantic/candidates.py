"""Which of the nearest entries may answer, by the guards and by each other.

An edited question (`not` put in, another number) lies nearer to the question that it was made of than to any paraphrase
of that. The guards strike the first; but a paraphrase says the same in other words, so that nothing in it alone tells
that it must be struck too. The struck one tells: where another entry sides with it in what the edit changed, it answers
what was not asked. Nothing is looked up here, and no vector is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from services.cache.semantic.guards import MONTHS, edits_of, negations, objection
from services.cache.semantic.words import UNIT_STEMS, Words

# Entries that are tried before there is none, and those among which one is looked for that the question was made of.
TRIED_MAX: Final = 3
WATCHED_MAX: Final = 6


def unopposed(ours: Words, near: Sequence[Words | None]) -> Iterator[int]:
    """Yields which of the nearest texts may answer, nearest first; None stands for one that is not to be tried."""
    reasons = [None if theirs is None else objection(ours, theirs) for theirs in near[:WATCHED_MAX]]
    struck = [
        (theirs, reason)
        for theirs, reason in zip(near, reasons, strict=False)
        if theirs is not None and reason is not None and _is_edited(ours, theirs, reason)
    ]
    for at, (theirs, reason) in enumerate(zip(near[:TRIED_MAX], reasons, strict=False)):
        if theirs is None or reason is not None:
            continue
        if not any(_sides(ours, other, why, theirs) for other, why in struck):
            yield at


def _is_edited(ours: Words, struck: Words, reason: str) -> bool:
    """Whether the question is an edit of what was struck: nearly the same, or the same words in another order."""
    return reason in {"DIRECTION", "NEGATION"} or edits_of(ours, struck)[1]


def _sides(ours: Words, struck: Words, reason: str, other: Words) -> bool:
    """Whether a text is as the struck one in what that differs in.

    Not by words of content: right answers often lie around one that was struck for a synonym, and a twentieth of them
    would be lost. Names and units have none.
    """
    if reason == "DIRECTION":
        return True
    if reason == "NEGATION":
        return negations(other) != negations(ours)
    if reason == "NUMBER":
        added, missing = set(ours.numbers) - set(struck.numbers), set(struck.numbers) - set(ours.numbers)
        return not added.issubset(other.numbers) if added else not missing.isdisjoint(other.numbers)
    if reason not in {"OPPOSITE", "WORD"}:
        return False
    names = UNIT_STEMS | MONTHS | ours.names | struck.names
    for edit in edits_of(ours, struck)[0]:
        mine = {ours.stems[at] for at in edit.ours}.difference(struck.stems)
        theirs = {struck.stems[at] for at in edit.theirs}.difference(ours.stems)
        tells = reason == "OPPOSITE" or not names.isdisjoint(mine | theirs)
        if tells and not theirs.isdisjoint(other.stems) and not mine.issubset(other.stems):
            return True
    return False
