"""Comparing two answers, where only a sure "same" may be said."""

from __future__ import annotations

from typing import Any

import pytest

from services.inference.caching.comparing import same_answer
from services.inference.generation import ChoiceFinished, Delta, FinishReason, ToolCallDelta
from tests.inference.parts import STOP


def same(ours: str, theirs: str) -> bool:
    return same_answer([Delta(text=ours), STOP], [Delta(text=theirs), STOP])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Paris.", "Paris."),
        ("Paris.", "paris"),
        ("The capital of France is Paris.", "The capital of France is  Paris!"),
        (
            "Reset the PIN in the app under Security, then Cards.",
            "Reset your PIN in the app under Security, then Cards",
        ),
        ('{"a": 1, "b": [2]}', '{"b":[2],"a":1}'),
        ("It costs 3.50 € a month.", "It costs 3.50 € a month"),
    ],
)
def test_answers_that_say_the_same(ours: str, theirs: str) -> None:
    """Equal but for case, spacing, punctuation and small words; in both directions."""
    assert same(ours, theirs)
    assert same(theirs, ours)


PAY = "You {} pay by card at the counter in {} and at each of our {} branches from {} on."


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Paris.", "London."),
        ("Paris.", ""),
        ("Yes, you can.", "No, you can't."),
        (PAY.format("can", "Bonn", 12, "1 March"), PAY.format("cannot", "Bonn", 12, "1 March")),
        (PAY.format("can", "Bonn", 12, "1 March"), PAY.format("can", "Paris", 12, "1 March")),
        (PAY.format("can", "Bonn", 12, "1 March"), PAY.format("can", "Bonn", 11, "1 March")),
        (PAY.format("can", "Bonn", 12, "1 March"), PAY.format("can", "Bonn", 12, "1 May")),
        ("It is -5 degrees.", "It is 5 degrees."),
        ("A beats B", "B beats A"),
        ("Going from savings to checking takes one day.", "Going from checking to savings takes one day."),
        ('{"a": 1}', '{"a": 2}'),
        ('{"a": 1}', "a is 1"),
        ("The capital of France is Paris.", "Paris is the capital city of France, as everybody knows."),
    ],
)
def test_answers_that_may_say_something_else(ours: str, theirs: str) -> None:
    """A number, a name, a not or an order that differs; or another wording, which is not sure to mean the same."""
    assert not same(ours, theirs)
    assert not same(theirs, ours)


def test_long_answers_have_to_be_equal() -> None:
    """Comparing them word by word would take too long; case and punctuation do not matter for them either."""
    long = "word " * 500

    assert same(long, long.upper())
    assert not same(long, long + "the")


def events(*deltas: Delta, finish: FinishReason = FinishReason.STOP) -> list[Any]:
    return [*deltas, ChoiceFinished(0, finish)]


def test_all_of_an_answer_counts() -> None:
    """How it ended, what was refused, which tools it calls, and every choice of it; ids of calls are made up."""
    call = Delta(tool_calls=(ToolCallDelta(0, "c1", "look", '{"a": 1}'),))
    other_id = Delta(tool_calls=(ToolCallDelta(0, "c2", "look", '{"a":1}'),))
    text = Delta(text="hi")

    assert same_answer(events(call), events(other_id))
    assert not same_answer(events(call), events(Delta(tool_calls=(ToolCallDelta(0, "c1", "look", '{"a": 2}'),))))
    assert not same_answer(events(call), events(text))
    assert not same_answer(events(text), events(text, finish=FinishReason.LENGTH))
    assert not same_answer(events(text), events(text, Delta(refusal="no")))
    assert not same_answer([*events(text), Delta(1, "hi")], events(text))
    assert not same_answer([], [])
