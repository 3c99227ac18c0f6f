"""Tells English that was written backwards, and reads it as it was meant.

Only common words are looked at, so it costs microseconds and says nothing of other languages. It decides nothing: such
a text is judged as it stands as well, so that a few reversed words do not hide the others.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
# Common words that are none when they are reversed.
_COMMON = frozenset(
    "about again because been before could down every feel find for from get give had has have him his how into just "
    "kill know last leave let like make more much my myself never only other our out over people should some tell than "
    "that the their them then there these they thing think this those under want what when where which while who why "
    "will with without world would write you your yourself instructions ignore previous system prompt".split()
)
_BACKWARDS = frozenset(word[::-1] for word in _COMMON)
# So many, and more than there are forwards.
_COUNT_MIN = 2


def turned(text: str) -> tuple[str, ...]:
    """What a text that seems to be written backwards may mean: turned round as a whole, and word by word."""
    words = [word.lower() for word in _WORD.findall(text)]
    count = sum(word in _BACKWARDS for word in words)
    if count < _COUNT_MIN or count <= sum(word in _COMMON for word in words):
        return ()
    return text[::-1], _WORD.sub(lambda word: word.group()[::-1], text)
