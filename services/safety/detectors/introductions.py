"""Finds names where people introduce themselves: "my name is Ann Lee", "I am Ann Lee".

A pattern, for what can be told without a model and on every stream: a phrase, and capitalised words behind it. After a
phrase that could introduce anything ("I am") only two of them or more are a name.
"""

from __future__ import annotations

import re
from typing import ClassVar

from services.safety.detectors.detector import Match
from services.safety.detectors.islands import Layer

SCORE = 0.6
_SURE = ("name is", "name's", "name\u2019s")
_WHOSE = ("my", "My", "his", "His", "her", "Her")
_SURE_PHRASES = tuple(f"{whose} {phrase}" for whose in _WHOSE for phrase in _SURE)
_PERHAPS_PHRASES = ("I am", "I'm", "I\u2019m")
_PHRASES = _SURE_PHRASES + _PERHAPS_PHRASES
_PHRASE_MAX = max(map(len, _PHRASES)) + 1

_OTHER = "I|It|My|The|This|And|But|You|He|She|We|They|Not|So|Sorry"
_LETTERS = r"[^\W\d_]"
# A capital and what follows it; hyphens and apostrophes join two into one. An initial has its full stop.
_CAPITALISED = rf"[^\W\d_a-z]{_LETTERS}{{0,23}}(?:['\u2019-]{_LETTERS}{{1,24}})?"
_WORD = rf"(?!(?:{_OTHER})\b){_CAPITALISED}"
_MORE = rf" (?:[A-Z]\. )?{_WORD}"
_END = r"(?![\w'\u2019-])"
_NAME = re.compile(rf"{_WORD}(?:{_MORE}){{0,2}}{_END}")
_FULL_NAME = re.compile(rf"{_WORD}(?:{_MORE}){{1,2}}{_END}")
# What may still become another name than it is now.
_OPEN = re.compile(rf"(?:{_CAPITALISED}(?: (?:[A-Z]\. )?{_CAPITALISED}){{0,2}})?(?: (?:[A-Z](?:\. ?)?)?|['\u2019-])?\Z")
_PHRASE = re.compile(r"(?<!\w)(?:" + "|".join(map(re.escape, _PHRASES)) + ") ")
_PHRASE_BEGUN = re.compile(
    r"(?<!\w)(?:"
    + "|".join(sorted({re.escape(phrase[:end]) for phrase in _PHRASES for end in range(1, len(phrase) + 1)}))
    + r")\Z"
)


class Introductions(Layer):
    """Names behind the phrases that introduce them."""

    entities: ClassVar[tuple[str, ...]] = ("PERSON",)

    def _read(self, text: str, at: int, final: bool, matches: list[Match], offset: int) -> int:
        while phrase := _PHRASE.search(text, at):
            if not final and _OPEN.match(text, phrase.end()):
                return phrase.start()
            shape = _FULL_NAME if phrase.group()[:-1] in _PERHAPS_PHRASES else _NAME
            found = shape.match(text, phrase.end())
            if found:
                matches.append(Match(found.start() + offset, found.end() + offset, "PERSON", SCORE))
            at = found.end() if found else phrase.end()
        begun = None if final else _PHRASE_BEGUN.search(text, max(at, len(text) - _PHRASE_MAX))
        return begun.start() if begun else len(text)
