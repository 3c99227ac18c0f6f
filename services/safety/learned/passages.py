"""Cuts a text into passages: about a paragraph each, ended where a sentence ends.

A learned head judges a passage when it is complete. Where one ends depends on the text alone and never on what comes
behind it, so a stream is cut like the whole text, however it arrived.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# A passage ends with the first sentence that ends so far behind its beginning.
PASSAGE_MIN = 160
# Where no sentence ends, it ends behind a word. So many code points of English are 80 tokens; the encoder reads 256.
PASSAGE_MAX = 320
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s|[。！？]|\n")
_SPACE = re.compile(r"\s")


def passage_end(text: str, start: int, final: bool) -> int | None:
    """Returns one past the end of the passage that begins at `start`; None when the text must arrive further first."""
    limit = start + PASSAGE_MAX
    if sentence := _SENTENCE_END.search(text, start + PASSAGE_MIN, limit):
        return sentence.end()
    if len(text) < limit:
        return len(text) if final and len(text) > start else None
    spaces = [space.end() for space in _SPACE.finditer(text, start + PASSAGE_MIN, limit)]
    return spaces[-1] if spaces else limit


def passages(text: str) -> Iterator[str]:
    """Cuts a whole text."""
    start = 0
    while (end := passage_end(text, start, final=True)) is not None:
        yield text[start:end]
        start = end
