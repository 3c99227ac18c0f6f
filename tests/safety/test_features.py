"""Features: deterministic, blind to dress, and sparse vectors of bounded size."""

import numpy as np
import pytest

from services.safety.learned.features import BUCKET_COUNT, Counted, Hints, Tally, plain, tallies

HINTS = Hints({"threat": "kill stab.", "self": "my. me."})


def count(text: str, hints: Hints) -> Counted:
    """The features of a passage."""
    return tallies(text, hints).whole.counted


def test_dress_does_not_change_what_is_counted():
    """Capitals, full-width letters, invisible characters and line breaks leave the features as they are."""
    bare = count("give me my money", HINTS)
    dressed = count("GIVE\u200b me\n my ｍｏｎｅｙ", HINTS)

    assert np.array_equal(bare.buckets, dressed.buckets)
    assert np.array_equal(bare.hints, dressed.hints)


def test_stems_match_beginnings_and_whole_words_only_themselves():
    """A stem counts every word that begins with it; one with a full stop counts itself alone."""
    logs = count("killing stab stabbing my mystery", HINTS).hints[:2]

    assert np.expm1(logs).round().tolist() == [2, 1]


@pytest.mark.parametrize("text", ["", " ", "\ud800", "a", "🏴" * 50, "x" * 10_000])
def test_any_text_has_features(text):
    """Empty texts, lone surrogates and one letter ten thousand times are counted without an error."""
    counted = count(text, HINTS)

    assert counted.buckets.max(initial=0) < 2 * BUCKET_COUNT
    assert np.isfinite(counted.weights).all()


def test_plain_text_has_single_spaces():
    """Runs of white space become one space."""
    assert plain("A \t\n B") == "a b"


def test_sentences_add_up():
    """What two sentences have together is the sum of what each has, whatever stands between them."""
    one, other = Tally.of("Give me my money.", HINTS), Tally.of("I will kill my time.", HINTS)
    both, sentences = tallies("Give me my money.  I will kill my time.", HINTS)

    assert len(sentences) == 2
    assert both.word_count == 9
    assert both.hints.tolist() == [1, 3]
    assert sorted(both.buckets.tolist()) == sorted([*one.buckets.tolist(), *other.buckets.tolist()])
