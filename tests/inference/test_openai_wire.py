"""Bytes of an upstream become events, wherever they were cut."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Code, MillraceError
from services.inference.attempts.failure import is_targets_fault
from services.inference.engines.openai_events import EVENT_BYTES_MAX, EventSplitter
from services.inference.engines.openai_wire import Assembler, WireAnswer, decode
from services.inference.generation import ChoiceFinished, Delta, EngineEvent, FinishReason, Usage

PAYLOADS = ['{"a": "ü"}', "[DONE]", '{"🎉": 1}']


def read(payload: str) -> WireAnswer:
    return decode(payload.encode(), "fake")


def take(*chunks: dict[str, Any], n: int = 1) -> tuple[list[EngineEvent], Assembler]:
    assembler, events = Assembler(n, 40, "fake"), list[EngineEvent]()
    for chunk in chunks:
        assembler.take(read(json.dumps(chunk)), events)
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
    """A comment, another field or an empty event alone is nothing, and half an event waits."""
    assert EventSplitter().feed(b": ping\n\nid: 7\n\ndata:\n\ndata: half") == []


def test_a_byte_order_mark_hides_no_event() -> None:
    """Some servers begin a stream with one."""
    assert EventSplitter().feed(b"\xef\xbb\xbfdata: {}\n\n") == [b"{}"]


def test_an_error_field_is_an_error() -> None:
    """llama.cpp wrote errors so until late in 2025; a reader of data alone would see an empty answer."""
    (payload,) = EventSplitter().feed(b'error: {"code":400,"message":"no"}\n\n')

    assert json.loads(payload) == {"error": {"code": 400, "message": "no"}}


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (b'event: error\ndata: {"message": "slow down", "code": 429}\n\n', "UPSTREAM_RATE_LIMIT"),
        (b'event: error\ndata: {"error": {"message": "slow down", "code": 429}}\n\n', "UPSTREAM_RATE_LIMIT"),
        (b"event: error\ndata: it broke\n\n", "UPSTREAM_MALFORMED"),
        (b'data: {"object": "error", "message": "slow down", "code": 429}\n\n', "UPSTREAM_RATE_LIMIT"),
    ],
)
def test_an_error_event_is_an_error(event: bytes, reason: str) -> None:
    """Whether its name or its shape says so, and also after the answer seemed complete."""
    (payload,) = EventSplitter().feed(event)
    with pytest.raises(MillraceError) as caught:
        read(payload.decode())

    assert caught.value.reason == reason


@pytest.mark.parametrize("segment_bytes", [65_536, EVENT_BYTES_MAX + 1])
def test_an_endless_event_is_refused(segment_bytes: int) -> None:
    """Memory has a bound, whether the bytes come at once or one segment after the other."""
    splitter, segment = EventSplitter(), b"x" * segment_bytes
    for _ in range(EVENT_BYTES_MAX // segment_bytes):
        assert splitter.feed(segment) == []
    with pytest.raises(MillraceError, match="too large"):
        splitter.feed(segment)


def test_a_large_event_in_small_segments_takes_linear_time() -> None:
    """Four times the segments take about four times the time, not sixteen: a drip must not buy much CPU."""

    def seconds(size: int) -> float:
        splitter, segment = EventSplitter(), b"x" * 64
        splitter.feed(b"data: ")
        start = time.process_time()
        for _ in range(size // len(segment)):
            splitter.feed(segment)
        assert splitter.feed(b"\n\n") == [b"x" * size]
        return time.process_time() - start

    small, large = (min(seconds(size) for _ in range(3)) for size in (1 << 20, 1 << 22))

    assert large < 10 * small


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


@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 2}])
def test_half_a_usage_is_an_estimate(usage: dict[str, int | None]) -> None:
    """A count that is missing is estimated, and one that is there is kept; the whole is marked."""
    _, assembler = take(choice(content="12345678"), choice(finish="stop"), {"choices": [], "usage": usage})
    told = assembler.complete().usage

    assert told == Usage(usage.get("prompt_tokens") or 10, usage.get("completion_tokens") or 2, estimated=True)


def test_a_part_is_never_more_than_the_whole() -> None:
    """What was cached and thought is part of what was read and written; more would make a price negative."""
    usage = {
        "prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 9},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }  # fmt: skip
    _, assembler = take(choice(finish="stop"), {"choices": [], "usage": usage})

    assert assembler.complete().usage == Usage(5, 7, 5, 7)


def test_usage_may_come_with_the_last_text() -> None:
    """It counts wherever it stands, and the last one counts."""
    last = choice(finish="stop", content="a") | {"usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    _, assembler = take(choice(content="b") | {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}, last)

    assert assembler.complete().usage == Usage(3, 1)


@pytest.mark.parametrize("word", ["", "null"])
def test_a_finish_reason_may_be_a_word_for_none(word: str) -> None:
    """Older servers write an empty string, or null as a word, where they mean that the choice goes on."""
    events, assembler = take(choice(finish=word, content="a"), choice(finish="stop", content="b"))

    assert events == [Delta(0, "ab"), ChoiceFinished(0, FinishReason.STOP)]
    assert assembler.complete()


@pytest.mark.parametrize("word", ["abort", "error", "insufficient_system_resource"])
def test_an_upstream_that_gives_up_has_not_answered(word: str) -> None:
    """A finish reason that stands for a failure is one."""
    with pytest.raises(MillraceError) as caught:
        take(choice(content="a"), choice(finish=word))

    assert caught.value.reason == "UPSTREAM_TRUNCATED"


def test_an_end_may_be_told_twice_alike() -> None:
    """The same reason once more changes nothing; another one leaves open which is true."""
    events, assembler = take(choice(finish="stop"), choice(finish="stop"), choice(finish="null"))
    with pytest.raises(MillraceError, match="different reasons"):
        assembler.take(read(json.dumps(choice(finish="length"))), [])

    assert events == [ChoiceFinished(0, FinishReason.STOP)]


def test_a_choice_that_nobody_asked_for_is_malformed() -> None:
    """Even without content: whatever it is, the answer is not the one to this request."""
    with pytest.raises(MillraceError, match="not asked for"):
        take(choice(1))


def test_a_choice_that_goes_on_after_its_end_is_malformed() -> None:
    """Text after the end would belong nowhere; a blank chunk after it is harmless."""
    _, assembler = take(choice(finish="stop"), choice(content=""))
    with pytest.raises(MillraceError, match="after its end"):
        assembler.take(read(json.dumps(choice(content="more"))), [])


def test_a_tool_call_needs_a_name() -> None:
    """One that nobody could make is no answer; fragments without anything are nothing."""
    nameless = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}]}
    blank = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}}]}
    events, assembler = take(nameless, choice(finish="tool_calls"))
    with pytest.raises(MillraceError, match="without a name"):
        assembler.complete()

    assert [type(event).__name__ for event in events] == ["Delta", "ChoiceFinished"]
    assert take(blank)[0] == []


def test_every_choice_must_end() -> None:
    """One of two choices without an end is half an answer."""
    _, assembler = take(choice(0, "stop"), choice(1, content="x"), n=2)
    with pytest.raises(MillraceError) as caught:
        assembler.complete()

    assert caught.value.reason == "UPSTREAM_TRUNCATED"


def test_an_upstream_that_knows_no_n_is_not_broken() -> None:
    """Where it says what it has used it has ended: the request is not for it, and nothing counts against it."""
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    for chunks, reason in (
        ((choice(0, "stop", content="a"), usage), "CHOICES_UNSUPPORTED"),
        ((choice(0, "stop", content="a"),), "UPSTREAM_TRUNCATED"),
        ((choice(0, "stop"), choice(1, content="x"), usage), "UPSTREAM_TRUNCATED"),
        ((usage,), "UPSTREAM_TRUNCATED"),
    ):
        _, assembler = take(*chunks, n=2)
        with pytest.raises(MillraceError) as caught:
            assembler.complete()

        assert caught.value.reason == reason
        assert is_targets_fault(caught.value) == (reason == "UPSTREAM_TRUNCATED")


@pytest.mark.parametrize("error", [{"message": "x"}, "x", {}, 7])
def test_errors_in_band(error: object) -> None:
    """An error is one whatever its shape, and null is none."""
    with pytest.raises(MillraceError) as caught:
        read(json.dumps({"error": error}))

    assert caught.value.reason == "UPSTREAM_ERROR"
    assert read('{"error": null, "choices": []}').choices == []


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        ({"message": "slow down", "code": 429}, Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT"),
        ({"message": "slow down", "type": "rate_limit_error"}, Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT"),
        ({"message": "bad", "code": "400", "param": "top_p"}, Code.INVALID_ARGUMENT, "UPSTREAM_BAD_REQUEST"),
        ({"message": "?", "code": "context_length_exceeded"}, Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ({"message": "Context size has been exceeded.", "code": 500}, Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ({"message": "?", "code": "content_filter"}, Code.FAILED_PRECONDITION, "CONTENT_BLOCKED"),
        ({"message": "?", "code": 401}, Code.UNAVAILABLE, "UPSTREAM_AUTHENTICATION"),
        ({"message": "?", "code": 503}, Code.UNAVAILABLE, "UPSTREAM_ERROR"),
        ({"message": "?", "code": 7}, Code.UNAVAILABLE, "UPSTREAM_ERROR"),
    ],
)
def test_errors_in_band_keep_their_meaning(error: dict[str, Any], code: Code, reason: str) -> None:
    """A code or a type says as much within an answer as a status does before one."""
    with pytest.raises(MillraceError) as caught:
        read(json.dumps({"error": error}))

    assert (caught.value.code, caught.value.reason) == (code, reason)


def test_errors_in_band_keep_the_operators_secrets() -> None:
    """What is between Millrace and the upstream is told without the upstream's words."""
    with pytest.raises(MillraceError) as caught:
        read('{"error": {"message": "Incorrect API key provided: sk-abc", "code": 401}}')

    assert "sk-abc" not in caught.value.message


def test_nesting_without_end_is_malformed() -> None:
    """Brackets by the thousand are refused like any other nonsense."""
    with pytest.raises(MillraceError) as caught:
        read('{"choices": [], "extra": ' + "[" * 100_000)

    assert caught.value.reason == "UPSTREAM_MALFORMED"


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
        read(odd)
    assert caught.value.reason == "UPSTREAM_MALFORMED"
