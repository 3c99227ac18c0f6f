"""Recording: what of an answer is kept, and in which form."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.inference.caching import recording
from services.inference.caching.recording import Ending, Heading
from services.inference.events import (
    Attempt,
    AttemptEvent,
    CacheEvent,
    CacheOutcome,
    Completed,
    Direction,
    Receipt,
    SafetyEvent,
    Verdict,
)
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    FinishReason,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

USED = Receipt("r1", "gpt", target="t", target_model="m", system_fingerprint="fp", usage=Usage(3, 7))
ENDING = recording.ending(USED, "v1")
STOP = ChoiceFinished(0, FinishReason.STOP)


def test_what_is_kept_is_what_was_said() -> None:
    """Batch by batch, with ends, usage and what the receipt needs, in however many chunks it was sent."""
    batches: list[list[Any]] = [
        [Delta(0, "héllo", logprobs=(TokenLogprob("h", -0.5, b"\xc3"),), completion_token_count=2)],
        [Delta(1, reasoning="hm", tool_calls=(ToolCallDelta(0, "c", "look", "{}"),)), Delta(0, " you")],
        [
            SafetyEvent(Direction.OUTPUT, Verdict.REDACT, policy_version="v1"),
            ChoiceFinished(0, FinishReason.STOP, "E"),
        ],
        [ChoiceFinished(1, FinishReason.TOOL_CALLS)],
    ]
    told = [[Heading("v1")], *batches, [ENDING]]

    for chunks in ([told], [[batch] for batch in told], [told[:3], [], told[3:]]):
        back = recording.read([recording.chunk(chunk) for chunk in chunks])
        assert back
        assert back.batches == batches
        assert back.events == [event for batch in batches for event in batch]
        assert back.ending == Ending(Usage(3, 7), "v1", "t", "m", "fp")


def test_what_belongs_to_one_request_is_not_kept() -> None:
    """Who was asked, what its prompt held, how the cache took part, its receipt: the next caller has its own."""
    batches = [
        [Heading("v1"), AttemptEvent(Attempt(1, "openai", "t")), CacheEvent(CacheOutcome.MISS)],
        [SafetyEvent(Direction.INPUT, Verdict.FLAG), Delta(text="a")],
        [STOP, EngineCompleted(Usage()), Completed(Usage(), USED), ENDING],
    ]

    back = recording.read([recording.chunk(batches)])

    assert back
    assert back.batches == [[Delta(text="a")], [STOP]]


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS])
def test_answers_that_ended_may_be_kept(reason: FinishReason) -> None:
    """Whether the model stopped, ran out of its own bound or called tools."""
    assert recording.may_be_kept(ChoiceFinished(0, reason))
    assert recording.may_be_kept(SafetyEvent(Direction.OUTPUT, Verdict.REDACT))


def test_answers_that_were_cut_may_not() -> None:
    """Neither what a filter or a deadline stopped nor what nobody judged is given to the next caller."""
    assert not recording.may_be_kept(ChoiceFinished(0, FinishReason.DEADLINE))
    assert not recording.may_be_kept(ChoiceFinished(1, FinishReason.CONTENT_FILTER))
    assert not recording.may_be_kept(SafetyEvent(Direction.OUTPUT, Verdict.ALLOW, unscreened=True))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\xc1", b"\x80", b"\xa1\xff", *map(msgspec.msgpack.encode, ([{"is": "delta"}], [[{"is": "new"}]]))],
)
def test_another_form_is_a_miss(payload: bytes) -> None:
    """An entry of another version, or no entry at all, is no error."""
    assert recording.read([payload]) is None
    assert recording.read_chunk(payload) is None


def test_half_an_entry_is_a_miss() -> None:
    """Wherever it was cut: within a chunk, or before the last one."""
    chunks = [recording.chunk([[Heading("v1")], [Delta(text="héllo")]]), recording.chunk([[STOP], [ENDING]])]

    assert recording.read(chunks)
    assert recording.read(chunks[:1]) is None
    assert recording.read([]) is None
    assert [recording.read([chunks[0], chunks[1][:size]]) for size in range(len(chunks[1]))] == [None] * len(chunks[1])


def test_a_sign_of_life_is_nothing() -> None:
    """A chunk without batches is a byte, and no part of the answer."""
    empty = recording.chunk([])

    assert len(empty) == 1
    assert recording.read_chunk(empty) == []
    assert (
        recording.read(
            [
                empty,
                recording.chunk([[Delta(text="a")], [ENDING]]),
            ]
        )
        is not None
    )
