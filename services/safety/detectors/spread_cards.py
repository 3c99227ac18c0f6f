"""Finds card numbers whose groups stand apart by more than a space or a dash: by lines, underscores, unseen characters.

Only what stands alone counts: in a column of numbers of four digits, one in ten quadruples has Luhn's check digit.
"""

from __future__ import annotations

import re
from typing import ClassVar

from services.safety.detectors.cards import find_cards
from services.safety.detectors.detector import Match
from services.safety.detectors.islands import Layer

_APART = r"[\s._\-/\u00ad\u00b7\u200b-\u200d\u2022\u2060\ufeff]"
_GAP_MAX = 3
_SHAPES = tuple(
    re.compile(rf"(?<![0-9A-Za-z]){shape}(?![0-9])")
    for shape in (
        rf"[0-9]{{4}}({_APART}{{1,{_GAP_MAX}}})[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}(?:\1[0-9]{{3}})?",
        rf"[0-9]{{4}}({_APART}{{1,{_GAP_MAX}}})[0-9]{{6}}\1[0-9]{{4,5}}",
    )
)
_FIRST_GROUP = re.compile(r"(?<![0-9A-Za-z])[0-9]{4}(?![0-9])")
# What may become a card, and what must be known behind one.
_UNFINISHED = re.compile(
    rf"[0-9]{{4}}(?:{_APART}{{1,{_GAP_MAX}}}(?:[0-9]{{1,6}}{_APART}{{1,{_GAP_MAX}}}){{0,4}}[0-9]{{0,6}})?"
)
# Five groups and a digit, and the gaps between them.
_REACH = 4 * 4 + 3 + 5 * _GAP_MAX + 1
_BEGUN = re.compile(r"(?<![0-9A-Za-z])[0-9]{1,4}\Z")


class SpreadCards(Layer):
    """Card numbers in groups that are apart."""

    entities: ClassVar[tuple[str, ...]] = ("CREDIT_CARD",)

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while group := _FIRST_GROUP.search(text, at):
            start = group.start()
            if not final and len(text) - start < _REACH and _UNFINISHED.fullmatch(text, start):
                return start
            at = group.end()
            card = _card(text, start)
            if card:
                matches.append(Match(start + offset, card[0] + offset, "CREDIT_CARD", card[1]))
                at = card[0]
        begun = _BEGUN.search(text, max(at, len(text) - 4))
        return begun.start() if begun else len(text)


def _card(text: str, start: int) -> tuple[int, float] | None:
    """Where the card ends that begins at a group, and how sure that is."""
    for shape in _SHAPES:
        found = shape.match(text, start)
        if not found or _goes_on(text, *found.span(), found.group(1)):
            continue
        plain = found.group().replace(found.group(1), " ")
        if next(find_cards(found.group()), None) is None and (card := next(find_cards(plain), None)):
            return found.end(), card[2]
    return None


def _goes_on(text: str, start: int, end: int, gap: str) -> bool:
    """Whether numbers go on before or behind in the same way, as they do in a column."""
    before = start - len(gap)
    is_before = before > 0 and text[before:start] == gap and text[before - 1].isdigit()
    return is_before or (text.startswith(gap, end) and text[end + len(gap) : end + len(gap) + 1].isdigit())
