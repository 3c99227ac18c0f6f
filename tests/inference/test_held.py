"""What is held while safety judges, and what leaves with each release."""

from __future__ import annotations

from services.inference.events import Attempt, AttemptEvent, Finding, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from services.inference.screening.held import Held, pieces_of
from services.inference.screening.safety_port import REFUSAL, Judged, OutputPiece, Released
from tests.inference.parts import DONE, STOP

TOOLS = ("look", "stop")
REFUSED = [Delta(refusal=REFUSAL), ChoiceFinished(0, FinishReason.CONTENT_FILTER)]


def call(index: int, arguments: str = "", id: str = "", name: str = "") -> Delta:
    return Delta(tool_calls=(ToolCallDelta(index, id, name, arguments),))


def token(text: str) -> TokenLogprob:
    return TokenLogprob(text, -1.0, text.encode())


def released(text: str, through: int, kind: str = "text", call_index: int = 0) -> Released:
    return Released(0, kind, call_index, text, through)


def tokens_of(delta: Delta) -> list[str]:
    return [one.token for one in delta.logprobs]


def test_safety_sees_every_text() -> None:
    """Text, reasoning, refusal, arguments and names of unknown tools, and where a choice ends; nothing empty."""
    held = Held(2, TOOLS)
    calls = (ToolCallDelta(3, "id", "look", "d"), ToolCallDelta(4, "id", "name"))
    delta = Delta(1, "a", "b", "c", calls)

    pieces = held.take([AttemptEvent(Attempt(1, "e", "t")), delta, Delta(0), STOP, DONE])

    assert pieces == [
        OutputPiece(1, "text", "a"),
        OutputPiece(1, "reasoning", "b"),
        OutputPiece(1, "refusal", "c"),
        OutputPiece(1, "tool_arguments", "d", 3),
        OutputPiece(1, "tool_name", "name", 4, end_of_part=True),
        OutputPiece(0, "text", end_of_choice=True),
    ]
    assert pieces_of(Delta(1), ()) == []


def test_what_was_released_is_not_held() -> None:
    """Released text is safety's, which may differ; the rest of the original is still here, by code points."""
    held = Held(1, TOOLS)
    held.take([Delta(text="a😀me@x.y"), Delta(text=" end")])

    assert held.release(released("a😀<EMAIL>", 8)) == Delta(text="a😀<EMAIL>")
    assert held.flush() == [Delta(text=" end")]
    assert held.flush() == []


def test_what_waits_is_told_by_the_longest_text() -> None:
    """Safety holds so much of each text: two choices that wait for it are no sign of trouble, nor are arguments."""
    held = Held(2, TOOLS)
    held.take([Delta(0, "a" * 300), Delta(1, "b" * 310), Delta(0, reasoning="c" * 20), call(0, "{" * 900)])
    assert held.text_code_point_count_max == 310

    held.release(Released(1, "text", 0, "b" * 100, 100))
    assert held.text_code_point_count_max == 300


def test_a_release_beyond_what_is_held_takes_what_there_is() -> None:
    """A watermark that went back, or too far, neither repeats nor invents text."""
    held = Held(1, TOOLS)
    held.take([Delta(text="abcd")])
    held.release(released("abc", 3))
    held.release(released("", 1))
    assert held.flush() == [Delta(text="d")]
    held.release(released("", 99))
    held.take([Delta(text="e")])

    assert held.flush() == [Delta(text="e")]


def test_a_call_is_named_once() -> None:
    """With its first arguments, or, without any, when its choice ends; in the order of the calls."""
    held = Held(1, TOOLS)
    held.take([call(1, "", "c1", "stop"), call(0, "{", "c0", "look"), call(0, "}")])
    assert held.release(released("{", 1, "tool_arguments")) == call(0, "{", "c0", "look")
    assert held.release(released("}", 2, "tool_arguments")) == call(0, "}")
    held.take([STOP])

    assert held.end(0, Verdict.ALLOW) == [call(1, "", "c1", "stop"), STOP]


def test_a_call_whose_name_is_repeated() -> None:
    """Some upstreams send id and name with every fragment: they leave once all the same."""
    held = Held(1, TOOLS)
    held.take([call(0, "{", "c0"), call(0, "", "c0", "look")])
    assert held.release(released("{", 1, "tool_arguments")) == call(0, "{", "c0", "look")
    held.take([call(0, "}", "c0", "look"), STOP])
    assert held.release(released("}", 2, "tool_arguments")) == call(0, "}")

    assert held.end(0, Verdict.ALLOW) == [STOP]


def test_a_name_that_nobody_declared_is_judged_once() -> None:
    """It leaves as safety released it, with its arguments; repeating it tells nothing new."""
    held = Held(1, TOOLS)
    pieces = held.take([call(0, "{", "c0", "me@x.y"), call(0, "}", "c0", "me@x.y")])
    held.rename(released("<EMAIL>", 6, "tool_name"))

    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("tool_name", "me@x.y"), ("tool_arguments", "{"), ("tool_arguments", "}"),
    ]  # fmt: skip
    assert held.release(released("{}", 2, "tool_arguments")) == call(0, "{}", "c0", "<EMAIL>")
    assert held.flush() == []


def test_a_name_that_was_not_judged_leaves_once() -> None:
    """Where the policy fails open, with its arguments and no part of its own."""
    held = Held(1)
    held.take([call(0, "{}", "c0", "odd")])

    assert held.flush() == [call(0, "{}", "c0", "odd")]


def test_logprobs_leave_with_their_text() -> None:
    """When all of a delta's text has left, not before."""
    held = Held(1, TOOLS)
    held.take([Delta(text="ab", logprobs=(token("a"), token("b"))), Delta(text="cd", logprobs=(token("cd"),))])

    assert tokens_of(held.release(released("a", 1))) == []
    assert tokens_of(held.release(released("bc", 3))) == ["a", "b"]
    assert tokens_of(held.release(released("d", 4))) == ["cd"]


def test_logprobs_of_half_a_character_leave_with_all_of_it() -> None:
    """A token that ends within a character tells of it: it waits for that, and where none comes, for the end."""
    held = Held(1)
    held.take([Delta(text="ab", logprobs=(token("ab"),)), Delta(logprobs=(token("é1"),))])

    assert tokens_of(held.release(released("ab", 2))) == ["ab"]
    held.take([Delta(text="é", logprobs=(token("é2"),))])
    held.judged(Judged(0, "text", Verdict.REDACT, Finding("PERSON", 1.0, "d", 2, 3, None, Verdict.REDACT)))
    assert tokens_of(held.release(released("<PERSON>", 3))) == []
    held.take([Delta(logprobs=(token("ü1"),)), STOP])
    last, finished = held.end(0, Verdict.REDACT)
    assert (last, finished) == (Delta(logprobs=(token("ü1"),)), STOP)


def test_logprobs_of_redacted_text_never_leave() -> None:
    """Those of a delta that overlaps it by one code point stay; its neighbours leave."""
    held = Held(1, TOOLS)
    for text in ("ab", "cd", "ef", "gh"):
        held.take([Delta(text=text, logprobs=(token(text),))])
    held.judged(Judged(0, "text", Verdict.REDACT, Finding("EMAIL", 1, "pii", 3, 6)))
    held.judged(Judged(0, "reasoning", Verdict.REDACT, Finding("EMAIL", 1, "pii", 0, 2)))
    held.judged(Judged(0, "text", Verdict.FLAG, Finding("EMAIL", 1, "pii", 0, 2)))

    assert tokens_of(held.release(released("abc<EMAIL>gh", 8))) == ["ab", "gh"]


def test_counts_go_with_what_leaves() -> None:
    """The running usage of a choice is what the engine said last."""
    held = Held(1, TOOLS)
    held.take([Delta(text="ab", completion_token_count=1), Delta(text="cd", completion_token_count=2)])

    assert held.release(released("a", 1)).completion_token_count == 2


def test_a_block_ends_a_choice_once() -> None:
    """With a refusal; what the engine goes on saying is neither sent to safety nor let go."""
    held = Held(1, TOOLS)
    held.take([Delta(text="good evil")])
    assert held.end(0, Verdict.BLOCK) == REFUSED
    assert held.end(0, Verdict.ALLOW) == []

    assert held.take([Delta(text=" more"), STOP]) == []
    assert held.flush() == []
    assert held.is_all_blocked


def test_one_block_is_not_all() -> None:
    """The other choice goes on."""
    held = Held(2, TOOLS)
    held.take([Delta(0, "evil"), Delta(1, "good")])
    held.end(0, Verdict.BLOCK)

    assert not held.is_all_blocked
    assert held.take([Delta(1, " day")]) == [OutputPiece(1, "text", " day")]
    assert held.flush() == [Delta(1, "good day")]


def test_a_flush_lets_everything_go() -> None:
    """Each choice in the order of its parts, its end, and the end of the answer once."""
    held = Held(2, TOOLS)
    held.take([Delta(0, "b", reasoning="a"), Delta(1, "x"), call(0, "{}", "c", "f"), call(1, "", "d", "g"), STOP, DONE])

    assert held.flush() == [
        Delta(0, "b"),
        Delta(0, reasoning="a"),
        call(0, "{}", "c", "f"),
        call(1, "", "d", "g"),
        STOP,
        Delta(1, "x"),
        DONE,
    ]
    assert held.flush() == []


def test_an_answer_is_over_when_nothing_is_missing() -> None:
    """Neither the engine's end alone nor safety's is enough."""
    held = Held(1, TOOLS)
    held.take([Delta(text="a"), STOP])
    assert not held.is_over
    held.end(0, Verdict.ALLOW)
    assert not held.is_over
    held.take([DONE])
    assert held.is_over

    other = Held(1, TOOLS)
    other.take([STOP, DONE])
    assert not other.is_over


def test_an_answer_that_was_stopped_is_counted() -> None:
    """Where the engine could not say what it used, its pieces are counted, and marked as estimated."""
    held = Held(1, TOOLS)
    held.take([Delta(text="a"), Delta(text="b"), Delta(text="c")])

    assert held.completed() == EngineCompleted(Usage(0, 3, estimated=True))
