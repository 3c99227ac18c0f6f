"""The arithmetic of the safety bench, against values worked out by hand and against scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from cli.ranking import Rates, Span, auprc, false_positive_rate, precision_recall, rates, roc_auc, span_rates

ROWS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0])), min_size=2, max_size=60)


@given(ROWS)
def test_areas_are_those_of_scikit_learn(rows):
    """With ties and in any order, both areas are what scikit-learn computes."""
    labels, scores = [label for label, _ in rows], [score for _, score in rows]
    if any(labels) and not all(labels):
        assert auprc(labels, scores) == pytest.approx(average_precision_score(labels, scores))
        assert roc_auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_the_curve_has_a_point_for_each_score():
    """Equal scores are one point; the last point finds all there is."""
    assert precision_recall([True, False, True, False], [0.9, 0.5, 0.5, 0.1]) == [(0.5, 1.0), (1.0, 2 / 3), (1.0, 0.5)]
    assert precision_recall([False], [0.9]) == []


def test_rates_count_hits_and_false_alarms():
    """Two of three found, one of two harmless flagged."""
    labels, flagged = [True, True, True, False, False], [True, True, False, True, False]

    assert rates(labels, flagged) == Rates(2 / 3, 2 / 3)
    assert false_positive_rate(labels, flagged) == 0.5


def test_f2_counts_recall_more():
    """F1 is the same whichever of the two is high; F2 is higher for recall."""
    assert Rates(1, 0.5).f(1) == Rates(0.5, 1).f(1)
    assert Rates(0.5, 1).f(2) > Rates(1, 0.5).f(2)
    assert Rates(0, 0).f(2) == 0


def test_spans_match_exactly_or_by_overlap():
    """A longer span matches by overlap only, and the same place in another text never."""
    wanted = [Span(0, 5, 9), Span(1, 0, 4)]
    found = [Span(0, 5, 12), Span(2, 0, 4)]

    assert span_rates(wanted, found, exact=True) == Rates(0, 0)
    assert span_rates(wanted, found, exact=False) == Rates(0.5, 0.5)
