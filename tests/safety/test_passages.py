"""Passages: cut by the text alone, bounded, and nothing lost."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from services.safety.learned.passages import INLINE_CODE_POINTS, PASSAGE_MAX, Pieces, passage_end, passages

TEXTS = st.lists(st.sampled_from(["word ", "Stop. ", "\n", "x" * 90, "。", "é", "5 "]), max_size=200).map("".join)


def arriving(text: str, sizes: list[int]) -> list[str]:
    """Cuts a text that arrives in pieces."""
    found, unread, at = [], "", 0
    pieces = []
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    pieces.append(text[at:])
    for number, piece in enumerate(pieces, 1):
        unread += piece
        while (end := passage_end(unread, 0, number == len(pieces))) is not None:
            found.append(unread[:end])
            unread = unread[end:]
    return found


@given(TEXTS)
def test_passages_are_the_text(text):
    """Joined they are the text again, and none is longer than the encoder was promised."""
    cut = list(passages(text))

    assert "".join(cut) == text
    assert all(0 < len(passage) <= PASSAGE_MAX for passage in cut)


@given(TEXTS, st.lists(st.integers(1, 300), max_size=40))
def test_a_stream_is_cut_like_the_whole(text, sizes):
    """However a text arrives, its passages are the same."""
    assert arriving(text, sizes) == list(passages(text))


async def test_a_long_piece_is_cut_like_the_whole():
    """What is cut in a thread, between pieces that are not, gives the same passages."""
    text = "Many words. " * (INLINE_CODE_POINTS // 6)
    pieces, found, at = Pieces(), [], 0
    for end in (7, 9 + INLINE_CODE_POINTS, len(text)):
        is_long = pieces.is_long(text[:end], 0)
        assert is_long == (end - at > INLINE_CODE_POINTS)
        final = end == len(text)
        found += await pieces.take_long(text[:end], 0, final) if is_long else pieces.take(text[:end], 0, final)
        at = end

    assert found == list(passages(text))


async def test_cutting_a_long_piece_leaves_others_their_turn():
    """While a thread cuts, the loop goes round."""
    cutting = asyncio.ensure_future(Pieces().take_long("1 " * INLINE_CODE_POINTS, 0, True))
    await asyncio.sleep(0)

    assert not cutting.done()
    assert await cutting
