"""The answer as a whole, from the pieces in which it came."""

from __future__ import annotations

from services.inference.answer import WholeChoice, put_together
from services.inference.events import Attempt, AttemptEvent
from services.inference.generation import ChoiceFinished, Delta, EngineCompleted, FinishReason, TokenLogprob, Usage
from services.inference.generation import ToolCallDelta as Call

A, B = TokenLogprob("a", -1.0, b"a"), TokenLogprob("b", -2.0, b"b")


def test_pieces_are_joined_by_choice() -> None:
    """Each field in the order of its pieces, each choice by itself, whatever comes in between."""
    choices = put_together(
        [
            Delta(1, "on"),
            Delta(0, reasoning="hm", logprobs=(A,)),
            AttemptEvent(Attempt(1, "openai", "t")),
            Delta(0, "t", "m", logprobs=(B,)),
            Delta(1, "e", refusal="no"),
            ChoiceFinished(1, FinishReason.STOP, "END"),
            Delta(0, "wo"),
            ChoiceFinished(0, FinishReason.LENGTH),
            EngineCompleted(Usage()),
        ]
    )

    assert choices == [
        WholeChoice(0, "two", "hmm", logprobs=(A, B), finish_reason=FinishReason.LENGTH),
        WholeChoice(1, "one", refusal="no", finish_reason=FinishReason.STOP, stop_sequence="END"),
    ]


def test_tool_calls_are_joined_by_index() -> None:
    """Id and name come once, or with every fragment, as upstreams differ; arguments grow."""
    [choice] = put_together(
        [
            Delta(tool_calls=(Call(1, "c1", "stop"), Call(0, "c0", "look"))),
            Delta(tool_calls=(Call(0, "c0", "look", '{"a"'),)),
            Delta(tool_calls=(Call(0, arguments_json=":1}"), Call(1, arguments_json="{}"))),
        ]
    )

    assert choice.delta().tool_calls == (Call(0, "c0", "look", '{"a":1}'), Call(1, "c1", "stop", "{}"))


def test_choices_share_nothing() -> None:
    """A call of one choice is none of another's."""
    first, second = put_together([Delta(0, tool_calls=(Call(0, "c", "f"),)), Delta(1, "text")])

    assert first.tool_calls
    assert second.tool_calls == {}


def test_a_choice_may_be_empty_or_unfinished() -> None:
    """An end without a delta is a choice; a delta without an end has no finish reason."""
    ended, open_ = put_together([ChoiceFinished(0, FinishReason.STOP), Delta(1, "a")])

    assert ended.events() == [Delta(0), ChoiceFinished(0, FinishReason.STOP)]
    assert open_.events() == [Delta(1, "a")]
    assert put_together([]) == []


def test_a_replacement_takes_the_logprobs_along() -> None:
    """Other text leaves nothing that would tell the old one; other arguments leave id, name and text as they are."""
    choice = WholeChoice(0, "me@a.b", tool_calls={2: Call(2, "c", "mail", '"me@a.b"')}, logprobs=(A,))

    choice.replace("tool_arguments", 2, '"<EMAIL>"')
    assert (choice.text, choice.logprobs) == ("me@a.b", (A,))
    assert choice.tool_calls == {2: Call(2, "c", "mail", '"<EMAIL>"')}

    choice.replace("text", 0, "<EMAIL>")
    assert (choice.text, choice.logprobs) == ("<EMAIL>", ())
