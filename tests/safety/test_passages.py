"""Passages: cut by the text alone, bounded, and nothing lost."""

from hypothesis import given
from hypothesis import strategies as st

from services.safety.learned.passages import PASSAGE_MAX, Pieces, passage_end, passages, sentence_spans

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


@given(TEXTS, st.lists(st.integers(1, 300), max_size=40))
def test_pieces_keep_what_is_not_complete(text, sizes):
    """A cursor that is shown a text as it grows hands out the passages of the whole, each once."""
    pieces, found, end = Pieces(), [], 0
    for size in sizes:
        end = min(end + size, len(text))
        found += pieces.take(text[:end], 0, final=False)

    assert found + pieces.take(text, 0, final=True) == list(passages(text))


@given(TEXTS.map(str.strip))
def test_the_first_passage_is_expected_once_and_as_it_will_be(text):
    """What is expected is what a blank completes, and it is the first of the text; nothing is expected behind it."""
    pieces, told = Pieces(), []
    for end in range(len(text) + 1):
        complete = pieces.take(text[:end], 0, final=False)
        if guess := pieces.expected():
            told.append(guess)
            assert not complete
            assert next(passages(f"{text[:end]} ")) == guess

    assert len(told) <= 1


def test_a_full_stop_makes_a_passage_expected():
    """It ends a sentence if a blank is next, so that the passage may be read before that comes."""
    sentence = "The bridge opened on a cold and windy morning in March. " * 3
    pieces = Pieces()
    early = pieces.take(sentence[:-2], 0, final=False), pieces.expected()
    late = pieces.take(sentence[:-1], 0, final=False), pieces.expected()

    assert early == ([], None)
    assert late == ([], sentence)
    assert pieces.take(sentence, 0, final=False) == [sentence]


@given(TEXTS)
def test_sentences_are_the_passage(text):
    """Joined they are the passage again, and none is blank unless the passage is."""
    for passage in passages(text):
        spans = sentence_spans(passage)

        assert "".join(passage[start:end] for start, end in spans) == passage
        assert all(passage[start:end].strip() for start, end in spans) or not passage.strip()


@given(TEXTS, st.integers(1, 40))
def test_nothing_is_missed_before_pieces_wake(text, step):
    """While less has arrived than `wakes` says, no passage is complete or expected: nobody need look."""
    pieces = Pieces()

    for end in range(step, len(text), step):
        is_early = end < pieces.wakes.at
        complete, expected = pieces.take(text[:end], 0, final=False), pieces.expected()
        assert not (is_early and (complete or expected))
