"""Folds a word to the plain letters that a reader takes it for.

Upper case, full-width and mathematical letters, accents, zero-width characters, look-alikes from other alphabets and
digits that stand for letters all hide a word from a plain comparison. Folding works on single code points, never across
them, so that a word folds to the same letters however a stream cut it. It keeps no positions: words are matched whole.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import NamedTuple

# Letters that look like Latin ones in most fonts, from Unicode's confusables table (UTS 39), in folded lower case.
_LOOKALIKES_TEXT = (
    "а=a в=b е=e ё=e к=k м=m н=h о=o р=p с=c т=t у=y х=x ѕ=s і=i ї=i ј=j һ=h ԁ=d ԛ=q ԝ=w ӏ=l ґ=r "  # Cyrillic
    "ո=n ս=u օ=o ց=g հ=h զ=q "  # Armenian
    "α=a β=b ε=e ι=i κ=k ν=v ο=o ρ=p τ=t υ=u χ=x ϲ=c ϳ=j η=n "  # Greek
    "ɑ=a ɡ=g ɩ=i ı=i ʟ=l ɴ=n ʀ=r ʏ=y ɪ=i ᴀ=a ʙ=b ᴄ=c ᴅ=d ᴇ=e ʜ=h ᴊ=j ᴋ=k ᴍ=m ᴏ=o ᴘ=p ᴛ=t ᴜ=u ᴠ=v ᴡ=w ᴢ=z "
    "ł=l ø=o đ=d"
)
_LOOKALIKES = dict(pair.split("=") for pair in _LOOKALIKES_TEXT.split())

# Signs that stand for letters, as people write them ("b0mb", "a$$"). What looks like both i and l folds to i.
_LEET = str.maketrans("013457@$!|89l", "oieastasiibgi")
_LEET_SIGN = re.compile(r"[013457@$!|89]")
_LETTER = re.compile(r"[^\W\d_]")

# Apostrophes vanish ("don't" is "dont"); at a word's ends they are quotation marks.
_APOSTROPHES = "'’‘ʼ`´"
# Signs that may stand for letters are punctuation at a word's end.
_TRAILING = _APOSTROPHES + "!|"

# Folding remembers code points up to this many, so that hostile text cannot fill the memory.
_REMEMBERED_MAX = 20_000


class Folded(NamedTuple):
    """A word as a lexicon knows it."""

    plain: str
    """Its letters and digits, folded."""
    leet: str | None
    """The same with signs read as letters; None when no sign could stand for one."""


class _Letters(dict[int, str]):
    """Maps code points to what they fold to; fills itself on demand."""

    def __missing__(self, code_point: int) -> str:
        folded = _fold_character(chr(code_point))
        if len(self) < _REMEMBERED_MAX:
            self[code_point] = folded
        return folded


def _fold_character(character: str) -> str:
    if character in _APOSTROPHES:
        return ""
    decomposed = unicodedata.normalize("NFKD", character).casefold()
    kept = (c for c in decomposed if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return "".join(_LOOKALIKES.get(c, c) for c in kept)


class Folder:
    """Splits texts into words and folds them."""

    def __init__(self) -> None:
        self._letters = _Letters()
        # A run of what may belong to a word: letters, digits, signs that may stand for letters, apostrophes, circled
        # and squared letters, marks and invisible characters.
        extra = "@$!|\u24b6-\u24e9\U0001f130-\U0001f149" + re.escape(_APOSTROPHES) + invisible_class()
        self.word = re.compile(rf"(?:[^\W_]|[{extra}])+")
        # The same for ASCII: without tables of Unicode to look into.
        self.ascii_word = re.compile("[0-9A-Za-z@$!|'`]+")

    def fold(self, raw: str) -> Folded:
        """Folds a run of word characters; `plain` is empty for one without letters and digits."""
        if raw.isascii() and raw.isalpha():
            return Folded(raw.lower(), None)
        body = raw.rstrip(_TRAILING).translate(self._letters)
        plain = body.strip("@$!|")
        # Among letters, or alone where a letter stands: "m4k3 4 b0mb".
        if _LEET_SIGN.search(body) and (len(body) == 1 or _LETTER.search(body)):
            return Folded(plain, body.translate(_LEET))
        return Folded(plain, None)

    @staticmethod
    def skeleton(word: str) -> str:
        """What a folded word is compared by when signs are read as letters."""
        return word.translate(_LEET)

    @staticmethod
    def trim(raw: str) -> tuple[int, int]:
        """How many code points of quotation and punctuation a run has before and after its word."""
        return len(raw) - len(raw.lstrip(_APOSTROPHES)), len(raw) - len(raw.rstrip(_TRAILING))


@functools.cache
def invisible_class() -> str:
    """The body of a regex class of every combining mark and every invisible format character."""
    # Planes 0, 1 and 14: the others hold ideographs and private use, and looking there takes half a second.
    planes = itertools.chain(range(0x20000), range(0xE0000, 0xF0000))
    points = [p for p in planes if unicodedata.category(chr(p)) in ("Mn", "Me", "Cf")]
    ranges: list[list[int]] = []
    for point in points:
        if ranges and ranges[-1][1] == point - 1:
            ranges[-1][1] = point
        else:
            ranges.append([point, point])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
