"""Bytes of an upstream become events, wherever they were cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import MillraceError
from services.inference.engines.openai_wire import EVENT_BYTES_MAX, Assembler, EventSplitter, decode
from services.inference.generation import ChoiceFinished, Delta, EngineEvent, FinishReason, Usage

PAYLOADS = ['{"a": "ü"}', "[DONE]", '{"🎉": 1}']


def take(*chunks: dict[str, Any], n: int = 1) -> tuple[list[EngineEvent], Assembler]:
    assembler, events = Assembler(n, 40), list[EngineEvent]()
    for chunk in chunks:
        assembler.take(decode(json.dumps(chunk).encode()), events)
    return events, assembler


def choice(index: int = 0, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


@given(
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    noise=st.sampled_from([[], [": hello"], ["event: x", "id: 7"]]),
)
def test_events_are_the_same_wherever_the_bytes_are_cut(newline: str, cuts: list[int], noise: list[str]) -> None:
    """Every line end, comments and other fields between, and cuts anywhere: within characters and line ends too."""
    lines = [line for payload in PAYLOADS for line in (*noise, f"data: {payload}", "")]
    data = "".join(line + newline for line in lines).encode()
    splitter, seen = EventSplitter(), list[bytes]()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        seen += splitter.feed(data[start:end])

    assert [payload.decode() for payload in seen] == PAYLOADS


def test_data_of_several_lines_is_joined() -> None:
    """Lines of one event belong together, and the blank after the colon is optional."""
    assert EventSplitter().feed(b'data:{"a":\ndata: 1}\n\n') == [b'{"a":\n1}']


def test_events_without_data_and_rests_are_no_payloads() -> None:
    """A comment alone is nothing, and half an event waits."""
    assert EventSplitter().feed(b": ping\n\ndata: half") == []


def test_an_endless_event_is_refused() -> None:
    """Memory has a bound."""
    splitter = EventSplitter()
    with pytest.raises(MillraceError, match="too large"):
        splitter.feed(b"data: " + b"x" * EVENT_BYTES_MAX)


def test_pieces_of_one_text_share_a_delta() -> None:
    """What arrived together travels together, one choice at a time."""
    events, _ = take(choice(content="a"), choice(content="b"), choice(1, content="x"), choice(content="c"), n=2)

    assert events == [Delta(0, "ab"), Delta(1, "x"), Delta(0, "c")]


def test_reasoning_is_never_joined_with_text() -> None:
    """Kinds keep their order."""
    events, _ = take(choice(reasoning_content="hm"), choice(content="a"), choice(reasoning="so"))

    assert events == [Delta(reasoning="hm"), Delta(text="a"), Delta(reasoning="so")]


def test_tool_call_fragments_without_index_count_themselves() -> None:
    """A whole answer's calls have no index."""
    calls = [{"id": f"c{i}", "function": {"name": "f", "arguments": "{}"}} for i in range(2)]
    events, _ = take({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]})

    assert isinstance(events[0], Delta)
    assert [(call.index, call.id) for call in events[0].tool_calls] == [(0, "c0"), (1, "c1")]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
        ("content_filter", FinishReason.CONTENT_FILTER),
    ],
)
def test_finish_reasons(word: str, reason: FinishReason) -> None:
    """Every reason of the API has one of ours."""
    events, assembler = take(choice(finish=word))

    assert events == [ChoiceFinished(0, reason)]
    assert assembler.complete().usage.estimated


def test_usage_counts_what_was_cached_and_thought() -> None:
    """Details that are there are kept, those that are null are zero."""
    usage = {
        "prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": None},
    }  # fmt: skip
    _, assembler = take(choice(finish="stop"), {"choices": [], "usage": usage})

    assert assembler.complete().usage == Usage(5, 7, 2, 0)


def test_a_choice_that_goes_on_after_its_end_is_malformed() -> None:
    """Text after the end would belong nowhere; a blank chunk after it is harmless."""
    _, assembler = take(choice(finish="stop"), choice(content=""))
    with pytest.raises(MillraceError, match="after its end"):
        assembler.take(decode(json.dumps(choice(content="more")).encode()), [])


def test_every_choice_must_end() -> None:
    """One of two choices without an end is half an answer."""
    _, assembler = take(choice(0, "stop"), choice(1, content="x"), n=2)
    with pytest.raises(MillraceError) as caught:
        assembler.complete()

    assert caught.value.reason == "UPSTREAM_TRUNCATED"


@pytest.mark.parametrize("error", [{"message": "x"}, "x", {}, 7])
def test_errors_in_band(error: object) -> None:
    """An error is one whatever its shape, and null is none."""
    with pytest.raises(MillraceError) as caught:
        decode(json.dumps({"error": error}).encode())

    assert caught.value.reason == "UPSTREAM_ERROR"
    assert decode(b'{"error": null, "choices": []}').choices == []


def test_logprobs_of_completions() -> None:
    """The older form, parallel lists, reads as the newer one."""
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"b": -1.0, "c": -2.0}]}
    events, _ = take({"choices": [{"text": "ab", "logprobs": logprobs, "finish_reason": "stop"}]})

    assert isinstance(events[0], Delta)
    first, second = events[0].logprobs
    assert (first.token, first.logprob, first.top) == ("a", 0.0, ())
    assert (second.logprob, [top.token for top in second.top]) == (-1.0, ["b", "c"])


@pytest.mark.parametrize(
    "odd",
    [
        '{"usage":{"prompt_tokens":3000000000}}',
        '{"usage":{"prompt_tokens":-5}}',
        '{"usage":{"completion_tokens":100000000000000000000}}',
        '{"choices":[{"index":5000000000,"delta":{"content":"a"}}]}',
        '{"choices":[{"delta":{"tool_calls":[{"index":5000000000}]}}]}',
        '{"choices":[{"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":0,"bytes":[300]}]}}]}',
    ],
)
def test_numbers_that_count_nothing(odd: str) -> None:
    """What no counter can hold is a broken upstream, not an error of ours."""
    with pytest.raises(MillraceError) as caught:
        decode(odd.encode())
    assert caught.value.reason == "UPSTREAM_MALFORMED"
