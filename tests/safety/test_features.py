"""Features: deterministic, blind to dress, and sparse vectors of bounded size."""

import numpy as np
import pytest

from services.safety.learned.features import BUCKET_COUNT, Counted, Hints, count, plain, tallies

HINTS = Hints({"threat": "kill stab.", "self": "my. me."})


def features(text: str, hints: Hints) -> Counted:
    """The features of a passage."""
    return count([tallies(text, hints).whole])


def test_dress_does_not_change_what_is_counted():
    """Capitals, full-width letters, invisible characters and line breaks leave the features as they are."""
    bare = features("give me my money", HINTS)
    dressed = features("GIVE\u200b me\n my ｍｏｎｅｙ", HINTS)

    assert np.array_equal(bare.buckets, dressed.buckets)
    assert np.array_equal(bare.hints, dressed.hints)


def test_stems_match_beginnings_and_whole_words_only_themselves():
    """A stem counts every word that begins with it; one with a full stop counts itself alone."""
    logs = features("killing stab stabbing my mystery", HINTS).hints[0, :2]

    assert np.expm1(logs).round().tolist() == [2, 1]


@pytest.mark.parametrize("text", ["", " ", "\ud800", "a", "🏴" * 50, "x" * 10_000])
def test_any_text_has_features(text):
    """Empty texts, lone surrogates and one letter ten thousand times are counted without an error."""
    counted = features(text, HINTS)

    assert counted.buckets.max(initial=0) < 2 * BUCKET_COUNT
    assert np.isfinite(counted.weights).all()


def test_plain_text_has_single_spaces():
    """Runs of white space become one space."""
    assert plain("A \t\n B") == "a b"


def test_sentences_add_up():
    """What two sentences have together is the sum of what each has, whatever stands between them."""
    one, other = (tallies(text, HINTS).whole for text in ("Give me my money.", "I will kill my time."))
    both, sentences, _ = tallies("Give me my money.  I will kill my time.", HINTS)

    assert len(sentences) == 2
    assert both.word_count == 9
    assert both.hints.tolist() == [1, 3]
    assert sorted(both.buckets.tolist()) == sorted([*one.buckets.tolist(), *other.buckets.tolist()])
    assert [sorted(each.buckets.tolist()) for each in sentences] == [
        sorted(each.buckets.tolist()) for each in (one, other)
    ]


@pytest.mark.parametrize("texts", [("one",), ("one two", "", "a", "kill my kill my time"), ("\u200b", "me me me")])
def test_company_changes_no_text(texts):
    """What is counted of several texts at once is what is counted of each."""
    each = [tallies(text, HINTS).whole for text in texts]
    together, apart = count(each), [count([one]) for one in each]

    assert together.hints.tolist() == [one.hints[0].tolist() for one in apart]
    for row, one in enumerate(apart):
        begin, letters, end = together.places[2 * row : 2 * row + 3]
        assert together.buckets[begin:end].tolist() == one.buckets.tolist()
        assert together.weights[begin:end].tolist() == one.weights.tolist()
        assert [letters - begin, end - begin] == one.places[1:].tolist()
