"""Cuts a text into passages: about a paragraph each, ended where a sentence ends.

A learned head judges a passage when it is complete. Where one ends depends on the text alone and never on what comes
behind it, so a stream is cut like the whole text, however it arrived.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from services.safety.detectors.detector import Wakes

# A passage ends with the first sentence that ends so far behind its beginning.
PASSAGE_MIN = 160
# Where no sentence ends, it ends behind a word. So many code points of English are 80 tokens; the encoder reads 256.
PASSAGE_MAX = 320
# A line that ends before is no sentence: a word on each line is still one text.
LINE_MIN = 40
# The full stop of an initial or a title ends no sentence: what follows is the rest of a name.
_NO_STOP = "".join(rf"(?<!\b{title}\.)" for title in ("Mr", "Mrs", "Ms", "Dr", "Prof", "St")) + r"(?<![A-Z]\.)"
# It begins with one of few characters, which is what makes a search of it fast: 48 us in 225 code points otherwise.
_SENTENCE_END = re.compile(rf"[.!?…。！？\n](?:(?<=[。！？\n])|{_NO_STOP}(?<=[.!?…])[\"'”’)\]]*\s)")
_STOPS = ".!?…。！？\n"
_SPACE = re.compile(r"\s")
# What may stand last in a sentence before the blank that ends it.
_CLOSERS = frozenset(".!?…\"'”’)]")


def passage_end(text: str, start: int, final: bool) -> int | None:
    """Returns one past the end of the passage that begins at `start`; None when the text must arrive further first."""
    limit = start + PASSAGE_MAX
    if sentence := _SENTENCE_END.search(text, start + PASSAGE_MIN, limit):
        return sentence.end()
    if len(text) < limit:
        return len(text) if final and len(text) > start else None
    spaces = [space.end() for space in _SPACE.finditer(text, start + PASSAGE_MIN, limit)]
    # A capital may go on with a name.
    calm = [space for space in spaces if space < limit and not text[space].isupper()]
    return max(calm or spaces, default=limit)


def passages(text: str) -> Iterator[str]:
    """Cuts a whole text."""
    start = 0
    while (end := passage_end(text, start, final=True)) is not None:
        yield text[start:end]
        start = end


def sentence_spans(passage: str) -> list[tuple[int, int]]:
    """Cuts a passage where its sentences end: half-open ranges that cover it, none blank unless all of it is."""
    spans: list[tuple[int, int]] = []
    start = 0
    for match in _SENTENCE_END.finditer(passage):
        is_short_line = match.group() == "\n" and match.end() - start < LINE_MIN
        if passage[start : match.end()].strip() and not is_short_line:
            spans.append((start, match.end()))
            start = match.end()
    if spans and not passage[start:].strip():
        start = spans.pop()[0]
    return [*spans, (start, len(passage))]


def sentence_count_max(passage: str) -> int:
    """More sentences a passage cannot have: stops are counted much sooner than sentences."""
    return 1 + sum(map(passage.count, _STOPS))


class Pieces:
    """Makes passages of a text that arrives piece by piece, and keeps what is not complete."""

    def __init__(self) -> None:
        self._arrived = 0
        self._unread = ""
        self._is_expecting = True

    @property
    def wakes(self) -> Wakes:
        """How much of the text must have arrived before a passage can be complete, or seem so, and when it is."""
        start = self._arrived - len(self._unread)
        return Wakes(start + PASSAGE_MIN, start + PASSAGE_MAX, _STOPS)

    def take(self, text: str, offset: int, final: bool) -> list[str]:
        """Returns the passages that have become complete; arguments as in `detector.Cursor.scan`."""
        self._unread += text[self._arrived - offset :]
        self._arrived = offset + len(text)
        if len(self._unread) <= PASSAGE_MIN and not final:
            return []
        complete = []
        at = 0
        while (end := passage_end(self._unread, at, final)) is not None:
            complete.append(self._unread[at:end])
            at = end
        self._unread = self._unread[at:]
        self._is_expecting &= not complete
        return complete

    def expected(self) -> str | None:
        """The first passage, when all of it but a blank seems to have arrived; told once, for it may be wrong.

        A full stop ends no sentence until something stands behind it, for which a reader of a stream would wait.
        """
        if not self._is_expecting or len(self._unread) < PASSAGE_MIN or self._unread[-1] not in _CLOSERS:
            return None
        passage = f"{self._unread} "
        if passage_end(passage, 0, final=False) != len(passage):
            return None
        self._is_expecting = False
        return passage
