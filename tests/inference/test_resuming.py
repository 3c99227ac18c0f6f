"""Resuming: the rest of an answer by one that begins anew, and never two answers in one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Unavailable
from services.inference.answer import put_together
from services.inference.caching.recording import Ending
from services.inference.caching.resuming import Seen
from services.inference.events import Attempt, AttemptEvent, Completed, Direction, SafetyEvent, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from tests.inference.parts import STOP, receipt

END = Ending(Usage(1, 2))


def resumed(seen: Sequence[Any], again: Sequence[Any]) -> list[Any]:
    """What a caller gets of another answer after it has seen the beginning of one."""
    watching = Seen()
    assert watching.take(seen) == list(seen)
    watching.restart()
    return watching.take(again)


def changed(seen: Sequence[Any], again: Sequence[Any]) -> bool:
    """Whether the other answer is refused."""
    with pytest.raises(Unavailable) as caught:
        resumed(seen, again)
    return caught.value.reason == "ANSWER_CHANGED"


def test_an_answer_that_was_never_left_is_passed_on_as_it_is() -> None:
    """Event by event, the very same objects."""
    events = [Delta(text="a"), SafetyEvent(Direction.OUTPUT, Verdict.FLAG), STOP, END]
    seen = Seen()

    assert seen.is_empty
    assert [seen.take([event])[0] is event for event in events] == [True] * 4
    assert not seen.is_empty


def test_who_has_seen_nothing_gets_all_of_the_other() -> None:
    """A judgement or a try that was told is nothing of an answer."""
    seen = Seen()
    seen.take([AttemptEvent(Attempt(1, "openai", "t"))])
    assert seen.is_empty
    seen.restart()

    assert seen.take([Delta(text="other"), STOP, END]) == [Delta(text="other"), STOP, END]


@pytest.mark.parametrize(
    ("again", "rest"),
    [
        ([Delta(text="Hello, world")], [Delta(text=" world")]),
        ([Delta(text="Hello,"), Delta(text=" world")], [Delta(text=" world")]),
        ([Delta(text="Hel"), Delta(text="lo, wor"), Delta(text="ld")], [Delta(text=" wor"), Delta(text="ld")]),
        ([Delta(text="Hello,"), STOP, END], [STOP, END]),
        ([Delta(text="Hello,")], []),
    ],
)
def test_the_same_beginning_is_told_once(again: list[Any], rest: list[Any]) -> None:
    """Wherever the pieces are cut."""
    assert resumed([Delta(text="Hello"), Delta(text=",")], again) == rest


@pytest.mark.parametrize(
    "again",
    [
        [Delta(text="hello, world")],
        [Delta(text="Hell"), STOP],
        [Delta(text="Hell"), END],
        [Delta(text="Hell"), Completed(Usage(), receipt())],
        [Delta(text="Hello"), Delta(text=" world")],
    ],
)
def test_another_beginning_is_another_answer(again: list[Any]) -> None:
    """A letter that differs, or too early an end: the call fails, and nothing of the other one is told."""
    assert changed([Delta(text="Hello,")], again)


def test_nothing_is_told_before_all_that_was_seen_has_come_again() -> None:
    """Text that goes on while the reasoning that was seen has not come may yet be another answer."""
    seen = [Delta(reasoning="because"), Delta(text="A")]

    assert resumed(seen, [Delta(reasoning="bec"), Delta(text="AB")]) == []
    late = [Delta(reasoning="bec"), Delta(text="AB"), Delta(reasoning="ause"), Delta(text="C")]
    assert resumed(seen, late) == [Delta(text="B"), Delta(text="C")]
    assert changed(seen, [Delta(reasoning="bec"), Delta(text="AB"), STOP])


def test_choices_are_resumed_apart() -> None:
    """One that was complete must come again as it was; the other goes on."""
    seen = [Delta(0, "yes"), ChoiceFinished(0, FinishReason.STOP), Delta(1, "n")]
    again = [
        Delta(1, "no"),
        Delta(0, "yes"),
        ChoiceFinished(0, FinishReason.STOP),
        ChoiceFinished(1, FinishReason.STOP),
        END,
    ]

    assert resumed(seen, again) == [Delta(1, "o"), ChoiceFinished(1, FinishReason.STOP), END]
    assert resumed(seen, [Delta(2, "maybe")]) == [Delta(2, "maybe")]
    assert changed(seen, [Delta(0, "yes, sir")])
    assert changed(seen, [Delta(0, "yes"), ChoiceFinished(0, FinishReason.LENGTH)])
    assert changed(seen, [Delta(0, "ye"), ChoiceFinished(0, FinishReason.STOP)])
    assert changed(seen, [Delta(1, "no"), ChoiceFinished(1, FinishReason.STOP), END])


def call(index: int, arguments: str, id_: str = "", name: str = "") -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index, id_, name, arguments),))


def test_tool_calls_are_resumed() -> None:
    """Where id, name and arguments are the same as far as they were seen; upstreams make ids up as a rule."""
    seen = [call(0, '{"a":', "c1", "look")]

    assert resumed(seen, [call(0, "", "c1", "look"), call(0, '{"a": 1'), call(0, "}")]) == [call(0, " 1"), call(0, "}")]
    assert resumed(seen, [call(0, '{"a":1}', "c1", "look"), call(1, "{}", "c2", "see")]) == [
        call(0, "1}"),
        call(1, "{}", "c2", "see"),
    ]
    assert changed(seen, [call(0, '{"a":1}', "c9", "look")])
    assert changed(seen, [call(0, '{"a":1}', "c1", "see")])
    assert changed(seen, [call(0, '{"b":1}', "c1", "look")])
    assert changed(seen, [Delta(text="no tools needed"), ChoiceFinished(0, FinishReason.STOP)])


def test_log_probabilities_are_resumed_by_token() -> None:
    """Those of tokens that were seen are told once, though they may differ in the last digits."""
    first, again, new = (TokenLogprob(word, value, b"") for word, value in (("a", -0.5), ("a", -0.51), ("b", -0.1)))

    assert resumed([Delta(text="a", logprobs=(first,))], [Delta(text="ab", logprobs=(again, new))]) == [
        Delta(text="b", logprobs=(new,))
    ]


def test_findings_are_told_once() -> None:
    """The same judgement of the same text is no news; another one is."""
    found = SafetyEvent(Direction.OUTPUT, Verdict.FLAG, policy_version="v1")
    more = SafetyEvent(Direction.OUTPUT, Verdict.REDACT, policy_version="v1")

    assert resumed([found, Delta(text="a")], [found, more, Delta(text="ab")]) == [more, Delta(text="b")]


def test_an_answer_may_be_left_more_than_once() -> None:
    """Each of the later ones has to begin with all that was seen of the ones before."""
    seen = Seen()
    seen.take([Delta(text="one")])
    seen.restart()
    assert seen.take([Delta(text="one two")]) == [Delta(text=" two")]
    seen.restart()
    assert seen.take([Delta(text="one t")]) == []
    seen.restart()

    assert seen.take([Delta(text="one two three")]) == [Delta(text=" three")]


@given(st.text(max_size=30), st.integers(0, 30), st.lists(st.integers(0, 30), max_size=6))
def test_wherever_it_breaks_and_however_it_is_cut_the_whole_is_the_same(
    text: str, broken_at: int, cuts: list[int]
) -> None:
    """Property: what was seen and what is told of the same answer again make the answer."""
    at = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [Delta(text=text[start:end]) for start, end in pairwise(at)]
    seen = [Delta(text=text[:broken_at])]

    whole = seen + resumed(seen, [*pieces, STOP, END])

    assert put_together(whole)[0].text == text
    assert whole[-2:] == [STOP, END]
