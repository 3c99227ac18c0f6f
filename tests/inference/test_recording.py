"""Recording: when the cache takes part, under which key, and what is kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.inference import recording
from services.inference.events import Direction, Receipt, SafetyEvent, Verdict
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    FinishReason,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    Usage,
)
from services.inference.recording import CachePlan, Recorder
from services.inference.request import CacheWish, Request
from services.inference.rules import CacheRule, DegradeRule
from tests.inference.parts import prompt

RULE = CacheRule()


def plan(wish: CacheWish | None = None, rule: CacheRule = RULE, **fields: Any) -> CachePlan:
    asked = Request("r1", "acme", "gpt", prompt(**fields), cache=wish or CacheWish())
    return recording.plan(asked, rule, DegradeRule())


def digest(asked: Prompt, model: str = "gpt", profile: str = "default", fallbacks: tuple[str, ...] = ()) -> bytes:
    return recording.digest(model, fallbacks, asked, profile)


@pytest.mark.parametrize(
    ("mode", "reads", "writes"),
    [
        (None, True, True),
        ("read_write", True, True),
        ("read_only", True, False),
        ("refresh", False, True),
        ("off", False, False),
    ],
)
def test_callers_choose_how_the_cache_takes_part(mode: str | None, reads: bool, writes: bool) -> None:
    """And are told why, where nothing is looked up."""
    said = plan(CacheWish(mode=mode))

    assert (said.reads, said.writes) == (reads, writes)
    assert bool(said.reason) is not reads


def test_callers_cannot_switch_it_on() -> None:
    """The route's no is final, and a lifetime can only be shortened."""
    off = plan(CacheWish(mode="read_write"), CacheRule(enabled=False))

    assert (off.reads, off.writes) == (False, False)
    assert "route" in off.reason
    assert plan(CacheWish(ttl_s=60)).ttl_s == 60
    assert plan(CacheWish(ttl_s=7_200)).ttl_s == RULE.ttl_s
    assert plan().ttl_s == RULE.ttl_s


def test_an_answer_past_its_time_is_kept_where_the_route_may_give_it() -> None:
    """For as long as its rule says; a route that never gives one keeps none for it."""
    asked = Request("r1", "acme", "gpt", prompt())

    assert recording.plan(asked, RULE, DegradeRule(stale=True, stale_for_s=60)).stale_for_s == 60
    assert recording.plan(asked, RULE, DegradeRule(stale_for_s=60)).stale_for_s is None


@pytest.mark.parametrize(
    ("sampling", "is_cached"),
    [
        (Sampling(), True),
        (Sampling(temperature=0), True),
        (Sampling(temperature=0.7, seed=1), True),
        (Sampling(temperature=0.7, seed=0), True),
        (Sampling(temperature=0.7), False),
    ],
)
def test_a_wish_for_variety_is_honoured(sampling: Sampling, is_cached: bool) -> None:
    """Who asks for chance and fixes no seed gets no kept answer, unless the route says so."""
    assert plan(sampling=sampling).reads is plan(sampling=sampling).writes is is_cached
    assert plan(rule=CacheRule(sampled=True), sampling=sampling).reads


@pytest.mark.parametrize(
    ("wished", "ruled", "user"),
    [
        ("user", "tenant", "u"),
        ("tenant", "user", "u"),
        (None, "user", "u"),
        ("tenant", "tenant", ""),
        (None, "tenant", ""),
    ],
)
def test_the_narrower_scope_counts(wished: str | None, ruled: Any, user: str) -> None:
    """Entries are the user's own where either side says so; without a user there are none."""
    wish, rule = CacheWish(scope=wished), CacheRule(scope=ruled)

    assert plan(wish, rule, end_user_id="u").scope_user == user
    assert plan(wish, rule).reads is (user == "")


def said(text: str) -> tuple[Message, ...]:
    return (Message(Role.USER, (TextPart(text),)),)


BASE = Prompt(messages=said("hi"), tools=(Tool("look"),))
SHAPING: dict[str, Any] = {
    "raw_prompt": "hi",
    "messages": said("hi "),
    "tools": (Tool("look", "closely"),),
    "tool_choice": ToolChoice("none"),
    "parallel_tool_calls": False,
    "sampling": Sampling(seed=1),
    "output_format": OutputFormat("json_object"),
    "reasoning_effort": "low",
}


def test_every_field_shapes_the_key_or_does_not() -> None:
    """A field that is added to a prompt has to be put on one side or the other."""
    others = {"model", "streamed", "end_user_id", "metadata"}

    assert set(Prompt.__struct_fields__) == set(SHAPING) | others


@pytest.mark.parametrize("field", SHAPING)
def test_what_shapes_the_answer_changes_the_key(field: str) -> None:
    """Whatever differs may be answered otherwise."""
    assert digest(msgspec.structs.replace(BASE, **{field: SHAPING[field]})) != digest(BASE)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0), Sampling(top_p=1.0), Sampling(top_k=0), Sampling(min_p=0.0),
        Sampling(presence_penalty=0.0), Sampling(frequency_penalty=0.0), Sampling(repetition_penalty=1.0),
        Sampling(seed=0), Sampling(max_tokens=1), Sampling(min_tokens=0), Sampling(stop=("a",)),
        Sampling(stop_token_ids=(1,)), Sampling(n=2), Sampling(logit_bias={1: 1.0}), Sampling(logprobs=True),
        Sampling(top_logprobs=1),
    ],
)  # fmt: skip
def test_every_sampling_parameter_counts(sampling: Sampling) -> None:
    """A value that is set is not the same as one that is left to the target, even where it is 0."""
    assert digest(msgspec.structs.replace(BASE, sampling=sampling)) != digest(BASE)


def test_who_answers_and_who_judges_count() -> None:
    """The model, the spare models that may answer in its place, and the safety profile are parts of the key."""
    keys = {digest(BASE), digest(BASE, model="b"), digest(BASE, profile="strict"), digest(BASE, fallbacks=("b",))}

    assert len(keys) == 4


@pytest.mark.parametrize(
    "other",
    [{"model": "at the target"}, {"streamed": False}, {"end_user_id": "u"}, {"metadata": {"a": "b"}}],
    ids=str,
)
def test_transport_and_labels_do_not_count(other: dict[str, Any]) -> None:
    """A streamed answer serves one that is asked for whole, and the other way round."""
    assert digest(msgspec.structs.replace(BASE, **other)) == digest(BASE)


def test_boundaries_count() -> None:
    """Text that reads the same when it is joined is not the same conversation."""
    one = Prompt(messages=(Message(Role.USER, (TextPart("ab"),)),))
    two = Prompt(messages=(Message(Role.USER, (TextPart("a"), TextPart("b"))),))
    three = Prompt(messages=said("a") + said("b"))
    picture = Prompt(messages=(Message(Role.USER, (ImagePart("ab"),)),))
    call = Prompt(messages=(Message(Role.ASSISTANT, tool_calls=(ToolCall("ab", "", ""),)),))

    assert len({digest(each) for each in (one, two, three, picture, call)}) == 5


def test_the_order_of_biases_does_not_count() -> None:
    """Maps have no order on the wire."""
    one, other = Sampling(logit_bias={1: 1.0, 20: 2.0, 3: 0.0}), Sampling(logit_bias={20: 2.0, 3: 0.0, 1: 1.0})

    assert digest(Prompt(sampling=one)) == digest(Prompt(sampling=other))


def test_the_key_is_stable() -> None:
    """Entries outlive the process: a key that changes needs a new CANONICALISATION_VERSION."""
    assert len(digest(BASE)) == 32
    assert recording.CANONICALISATION_VERSION == 1
    assert digest(BASE).hex() == "5cfafcbfbdcd132f30ff23cbbbd3441f225b16810f175066928c7cc369cffba8"


def recorded(*events: Any, safety: list[SafetyEvent] | None = None) -> bytes | None:
    receipt = Receipt("r1", "gpt", target="t", target_model="m", system_fingerprint="fp", usage=Usage(3, 7))
    receipt.safety = safety or []
    recorder = Recorder()
    for event in events:
        recorder.take(event)
    return recorder.payload(receipt, "v1")


def test_what_is_kept_is_what_was_said() -> None:
    """Deltas with their boundaries, ends, usage and what the receipt needs come back as they were."""
    deltas = [
        Delta(0, "héllo", logprobs=(TokenLogprob("h", -0.5, b"\xc3"),), completion_token_count=2),
        Delta(1, reasoning="hm", tool_calls=(ToolCallDelta(0, "c", "look", "{}"),)),
    ]
    ends = [ChoiceFinished(0, FinishReason.STOP, "END"), ChoiceFinished(1, FinishReason.TOOL_CALLS)]
    found = SafetyEvent(Direction.OUTPUT, Verdict.REDACT, policy_version="v1")
    asked = SafetyEvent(Direction.INPUT, Verdict.FLAG)
    payload = recorded(*deltas, *ends, safety=[asked, found])
    assert payload

    back = recording.read(payload)

    assert back
    assert (back.deltas, back.finished, back.usage) == (deltas, ends, Usage(3, 7))
    assert (back.target, back.target_model, back.system_fingerprint, back.policy_version) == ("t", "m", "fp", "v1")
    assert back.safety == [found]  # the next caller's prompt is judged by itself


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS])
def test_answers_that_ended_are_kept(reason: FinishReason) -> None:
    """Whether the model stopped, ran out of its own bound or called tools."""
    assert recorded(Delta(text="a"), ChoiceFinished(0, reason))


def test_answers_that_were_cut_are_not_kept() -> None:
    """Neither what a filter stopped nor what nobody judged is given to the next caller."""
    stop, cut = ChoiceFinished(0, FinishReason.STOP), ChoiceFinished(1, FinishReason.CONTENT_FILTER)

    assert recorded(Delta(text="a"), stop, cut) is None
    assert (
        recorded(Delta(text="a"), stop, safety=[SafetyEvent(Direction.OUTPUT, Verdict.ALLOW, unscreened=True)]) is None
    )
    assert (
        recorded(Delta(text="a"), stop, safety=[SafetyEvent(Direction.INPUT, Verdict.ALLOW, unscreened=True)]) is None
    )


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x80", msgspec.msgpack.encode({"deltas": 1}), b"\xa1\xff"])
def test_another_form_is_a_miss(payload: bytes) -> None:
    """An entry of another version, or no entry at all, is no error."""
    assert recording.read(payload) is None


def test_half_an_entry_is_a_miss() -> None:
    """Wherever it was cut."""
    payload = recorded(Delta(text="héllo"), ChoiceFinished(0, FinishReason.STOP))
    assert payload

    assert [recording.read(payload[:size]) for size in range(len(payload))] == [None] * len(payload)
