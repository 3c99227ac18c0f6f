"""Marks: words made into names, and the arrays that say which."""

import numpy as np
import pytest

from services.safety.learned.marking import ARRAYS, Mark, NamesHead, join
from services.safety.learned.words import NEIGHBOURS, SHAPE_COUNT

NAMES = ("LOCATION", "PERSON")


def joined(text: str, *likely: tuple[float, float]) -> list[tuple[str, str, float]]:
    """Joins the words of a text, which are parted by spaces, by how likely each is a place and a person."""
    spans, at = [], 0
    for word in text.split(" "):
        spans.append((at, at + len(word.rstrip(",."))))
        at += len(word) + 1
    marks = join(text, spans, np.array(likely, np.float32), NAMES)
    return [(text[mark.start : mark.end], mark.category, round(mark.score, 2)) for mark in marks]


def test_words_of_one_kind_are_one_name():
    """A run is as sure as its surest word, and takes in words that are less sure."""
    assert joined("met Ann B. Lee today", (0, 0), (0, 0.9), (0, 0.35), (0, 0.6), (0, 0.1)) == [
        ("Ann B. Lee", "PERSON", 0.9)
    ]


def test_commas_and_kinds_part_names():
    """Two people in a list are two; a place behind a person is another name."""
    likely = [(0, 0.9), (0, 0.8), (0.7, 0.1)]

    assert joined("Ann, Lee Rome", *likely) == [
        ("Ann", "PERSON", 0.9),
        ("Lee", "PERSON", 0.8),
        ("Rome", "LOCATION", 0.7),
    ]


def test_an_unlikely_word_parts_names():
    """What is no name between two of them is not swallowed."""
    assert [text for text, *_ in joined("Ann saw Lee", (0, 0.9), (0, 0.2), (0, 0.9))] == ["Ann", "Lee"]


def test_a_pronoun_is_no_initial():
    """The pronoun "I" is nobody, however likely the head holds it; with a full stop it may begin a name."""
    assert joined("so I saw I. Lee", (0, 0.1), (0, 0.9), (0, 0.1), (0, 0.9), (0, 0.9)) == [("I. Lee", "PERSON", 0.9)]


def test_probabilities_are_shares():
    """The outputs before the names take their share too; every row is a part of one."""
    head = NamesHead(("PERSON",), np.zeros((2, 3), np.float32), np.zeros(3), np.zeros((3, 2)), np.log([1.0, 3.0]))

    assert head.probabilities(np.zeros((4, 2), np.float32)) == pytest.approx(np.full((4, 1), 0.75))


def test_the_shipped_head_fits_what_words_say():
    """The arrays have a row for every number of a word, know both kinds, and stay small."""
    head = NamesHead.load()

    assert head.names == NAMES
    assert len(head.hidden) == 384 + SHAPE_COUNT * (2 * NEIGHBOURS + 1)
    assert ARRAYS.stat().st_size < 500_000
    assert Mark(0, 1, "PERSON", 1.0).category in head.names
