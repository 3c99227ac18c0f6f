"""A paraphrase of what was struck out is struck out with it, where it sides with it in what the question changed."""

import pytest

from services.cache.semantic.candidates import WATCHED_MAX, unopposed
from services.cache.semantic.words import parse

FILLING = [f"Which of the {n}th emperor's palaces burnt down, and who rebuilt it?" for n in range(4, 20)]


def answering(question: str, *near: str | None) -> list[int]:
    """Which of the nearest may answer."""
    return list(unopposed(parse(question), [None if text is None else parse(text) for text in near]))


@pytest.mark.parametrize(
    ("question", "struck", "paraphrase"),
    [
        (
            "Can I not thaw the soup overnight?",
            "Can I thaw the soup overnight?",
            "Is thawing soup all night long fine?",
        ),
        ("How do I ride in 5 days?", "How do I ride in 3 days?", "What is the way to prepare for such a ride?"),
        ("May I eat after surgery?", "May I eat before surgery?", "Is a meal fine for me before I have surgery"),
        (
            "Is my Garmin watch any good?",
            "Is my Apple watch any good?",
            "Do people like the watch from Apple that I own",
        ),
        ("a couple of weeks in Oslo", "a couple of days in Oslo", "What can one do in Oslo if there are a few days?"),
        ("drive from Rome to Oslo", "drive from Oslo to Rome", "How do you get by car to Rome if you are in Oslo"),
    ],
)
def test_a_paraphrase_goes_with_what_was_struck(question, struck, paraphrase):
    """It may answer by itself, and may not beside the text that the question was made of, whichever is nearer."""
    assert answering(question, paraphrase) == [0]
    assert answering(question, struck, paraphrase) == []
    assert answering(question, paraphrase, struck) == []


@pytest.mark.parametrize(
    ("question", "struck", "other"),
    [
        (
            "Can I not thaw the soup overnight?",
            "Can I thaw the soup overnight?",
            "Why is thawing soup at night no good?",
        ),
        ("How do I ride in 5 days?", "How do I ride in 3 days?", "What is the way to prepare for a ride in 5 days"),
        ("Where do I find my code?", "Where do I see my code?", "In which menu is the code that I was given"),
    ],
)
def test_an_entry_that_sides_with_the_question_answers(question, struck, other):
    """What was struck speaks only for those that are as it is; another word for the same is no difference."""
    assert answering(question, struck, other) == [1]


def test_only_the_nearest_are_tried_and_watched():
    """What is further away than the nearest neither answers nor speaks against one that does."""
    question, struck = "How do I ride in 5 days?", "How do I ride in 3 days?"
    paraphrase = "What is the way to prepare for such a ride?"

    assert answering(question, None, None, None, paraphrase) == []
    assert 0 not in answering(question, paraphrase, *FILLING[: WATCHED_MAX - 2], struck)
    assert 0 in answering(question, paraphrase, *FILLING[: WATCHED_MAX - 1], struck)
