"""Between the wire and the nouns nothing is lost."""

from __future__ import annotations

import math

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from kit.identity import CallContext, Caller
from millrace.inference.v1 import event_pb2
from millrace.inference.v1 import generation_pb2 as pb
from services.inference import translate
from services.inference.events import (
    Attempt,
    AttemptEvent,
    AttemptOutcome,
    CacheEvent,
    CacheOutcome,
    Completed,
    Direction,
    Finding,
    Receipt,
    SafetyEvent,
    Started,
    Verdict,
)
from services.inference.generation import (
    AudioPart,
    ChoiceFinished,
    Delta,
    FilePart,
    FinishReason,
    ImagePart,
    OutputFormat,
    Role,
    Sampling,
    TextPart,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    TopLogprob,
    Usage,
)
from services.inference.request import CacheWish

CALL = CallContext("r1", "acme", deadline=12.5, caller=Caller("ada", "acme", "user"))
SAFETY = SafetyEvent(
    Direction.OUTPUT, Verdict.REDACT, (Finding("EMAIL", 0.9, "pii", 3, 9, 1),), "default", "v1", 0, True
)
CACHE = CacheEvent(CacheOutcome.SEMANTIC, 0.97, 1.5, "e1", "close enough")


def test_a_request() -> None:
    """Identity and deadline come from the call, wishes from the spec."""
    spec = pb.GenerationSpec(model="gpt", raw_prompt="Once", session_id="s1", end_user_id="u1", metadata={"k": "v"})
    spec.cache.mode, spec.cache.scope = pb.CACHE_MODE_REFRESH, pb.CACHE_SCOPE_USER
    spec.cache.ttl.seconds, spec.cache.age_max.nanos = 60, 500_000_000
    spec.cache.semantic, spec.cache.similarity_threshold, spec.cache.error_max = False, 0.5, 0.1
    spec.cache.tags.append("kb")
    spec.safety.profile = "strict"
    spec.routing.fallbacks.append("other")
    spec.routing.priority = -5
    spec.routing.ttft_max.seconds = 2
    spec.routing.inter_token_latency_max.nanos = 250_000_000
    asked = translate.request(spec, CALL, "r2", streamed=True)

    assert (asked.request_id, asked.tenant, asked.deadline, asked.model) == ("r2", "acme", 12.5, "gpt")
    assert asked.caller is CALL.caller
    assert asked.cache == CacheWish("refresh", "user", 60.0, False, 0.5, 0.1, 0.5, ("kb",))
    assert (asked.safety_profile, asked.fallbacks, asked.priority) == ("strict", ("other",), -5)
    assert (asked.ttft_max_s, asked.inter_token_max_s, asked.session_id) == (2.0, 0.25, "s1")
    assert (asked.prompt.raw_prompt, asked.prompt.end_user_id, asked.prompt.metadata) == ("Once", "u1", {"k": "v"})
    assert asked.prompt.streamed


def test_what_is_left_out_stays_out() -> None:
    """Unset is None and never zero."""
    asked = translate.request(pb.GenerationSpec(model="gpt", raw_prompt="x"), CALL, "r", streamed=False)

    assert asked.cache == CacheWish()
    assert asked.prompt.sampling == Sampling()
    assert (asked.ttft_max_s, asked.prompt.tool_choice, asked.prompt.output_format) == (None, None, None)
    assert (asked.prompt.parallel_tool_calls, asked.prompt.reasoning_effort) == (None, None)


def test_zero_is_a_value() -> None:
    """Temperature 0, seed 0 and top_k 0 were said."""
    spec = pb.GenerationSpec(model="gpt", raw_prompt="x", parallel_tool_calls=False)
    spec.sampling.temperature, spec.sampling.seed, spec.sampling.top_k = 0, 0, 0
    spec.sampling.logit_bias[7] = -1
    spec.sampling.stop.append("END")
    made = translate.prompt(spec)

    assert made.sampling == Sampling(temperature=0.0, seed=0, top_k=0, logit_bias={7: -1.0}, stop=("END",))
    assert made.parallel_tool_calls is False


def test_messages_of_every_kind() -> None:
    """Roles, parts by value and by reference, calls and refusals."""
    spec = pb.GenerationSpec(model="gpt")
    spec.conversation.messages.add(
        role=pb.ROLE_USER,
        name="Ann",
        parts=[
            pb.ContentPart(text="look"),
            pb.ContentPart(image=pb.Image(url="https://x", detail="low")),
            pb.ContentPart(image=pb.Image(data=b"png", media_type="image/png")),
            pb.ContentPart(audio=pb.Audio(data=b"snd", format="wav")),
            pb.ContentPart(file=pb.File(file_id="f1")),
            pb.ContentPart(file=pb.File(data=b"pdf", filename="a.pdf")),
        ],
    )
    spec.conversation.messages.add(
        role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(id="c1", name="f", arguments_json="{}")], refusal=""
    )
    spec.conversation.messages.add(role=pb.ROLE_TOOL, tool_call_id="c1", parts=[pb.ContentPart(text="ok")])
    user, assistant, tool = translate.prompt(spec).messages

    assert (user.role, user.name, user.text) == (Role.USER, "Ann", "look")
    assert user.parts == (
        TextPart("look"),
        ImagePart("https://x", "low"),
        ImagePart("data:image/png;base64,cG5n"),
        AudioPart(b"snd", "wav"),
        FilePart("", "f1"),
        FilePart("a.pdf", None, b"pdf"),
    )
    assert (assistant.tool_calls, assistant.refusal) == ((ToolCall("c1", "f", "{}"),), "")
    assert (tool.role, tool.tool_call_id) == (Role.TOOL, "c1")


@pytest.mark.parametrize("number", [value for value in pb.Role.values() if value])
def test_every_role_has_a_word(number: int) -> None:
    """No role of the contract is unknown here."""
    assert translate.ROLES[number].name == pb.Role.Name(number).removeprefix("ROLE_")  # type: ignore[index, arg-type]


def test_tools_formats_and_effort() -> None:
    """Named tools, each output format, each effort."""
    spec = pb.GenerationSpec(model="gpt", raw_prompt="x", reasoning_effort=pb.REASONING_EFFORT_HIGH)
    spec.tools.add(name="f", description="d", parameters_json="{}", strict=False)
    spec.tool_choice.mode, spec.tool_choice.name = pb.TOOL_CHOICE_MODE_NAMED, "f"
    spec.output_format.json_schema.name, spec.output_format.json_schema.schema_json = "s", "{}"
    made = translate.prompt(spec)

    assert made.tools == (Tool("f", "d", "{}", False),)
    assert made.tool_choice == ToolChoice("named", "f")
    assert made.output_format == OutputFormat("json_schema", "s", "", "{}")
    assert made.reasoning_effort == "high"
    spec.output_format.choice.choices.extend(["a", "b"])
    assert translate.prompt(spec).output_format == OutputFormat("choice", choices=("a", "b"))
    spec.output_format.regex = "a+"
    assert translate.prompt(spec).output_format == OutputFormat("regex", regex="a+")
    spec.output_format.json_object.SetInParent()
    assert translate.prompt(spec).output_format == OutputFormat("json_object")


def test_a_delta_with_everything() -> None:
    """Text, reasoning, refusal, calls, logprobs and the running count."""
    top = TopLogprob("b", -2.0, b"b")
    event = Delta(1, "t", "r", "n", (ToolCallDelta(0, "c", "f", "{}"),), (TokenLogprob("t", -1.0, b"t", (top,)),), 9)
    message = translate.response(event, 4)

    assert message.sequence == 4
    delta = message.delta
    assert (delta.choice_index, delta.text, delta.reasoning, delta.refusal) == (1, "t", "r", "n")
    assert delta.completion_token_count == 9
    assert (delta.tool_calls[0].id, delta.tool_calls[0].arguments_json) == ("c", "{}")
    assert (delta.logprobs[0].logprob, delta.logprobs[0].top[0].token_bytes) == (-1.0, b"b")
    assert not translate.delta(Delta(text="x")).HasField("completion_token_count")


def test_every_other_event() -> None:
    """Each becomes its field of the response, complete."""
    attempt = Attempt(2, "openai", "t", AttemptOutcome.FAILED, "DOWN", 1.5, None, True, 0.25)
    receipt = Receipt(
        "r1", "gpt", usage=Usage(7, 9), attempts=[attempt], cache=CACHE, safety=[SAFETY], cost_micro_usd=0, ttft_s=0.25
    )
    started = translate.response(Started("r1", "gpt", "why", 1_000.5, CACHE), 1).started
    finished = translate.response(ChoiceFinished(1, FinishReason.STOP, "END"), 1).choice_finished
    said = translate.response(SAFETY, 1).safety
    tried = translate.response(AttemptEvent(attempt), 1).attempt.attempt
    done = translate.response(Completed(Usage(1, 2, 3, 4, True), receipt), 1).completed

    assert (started.model, started.route_reason, started.created_time.ToJsonString()) == (
        "gpt", "why", "1970-01-01T00:16:40.500Z",
    )  # fmt: skip
    assert (started.cache.similarity, started.cache.entry_id, started.cache.age.ToSeconds()) == (0.97, "e1", 1)
    assert translate.response(CACHE, 1).cache == started.cache
    assert (finished.choice_index, finished.finish_reason, finished.stop_sequence) == (1, 1, "END")
    assert (said.direction, said.verdict, said.choice_index, said.unscreened) == (2, 3, 0, True)
    assert (said.findings[0].category, said.findings[0].start, said.findings[0].end) == ("EMAIL", 3, 9)
    assert (tried.number, tried.outcome, tried.error_reason) == (2, event_pb2.ATTEMPT_OUTCOME_FAILED, "DOWN")
    assert not tried.HasField("ttft")
    assert (tried.hedged, tried.queue_time.ToMilliseconds()) == (True, 250)
    assert not translate.attempt(Attempt(1, "openai", "t")).HasField("queue_time")
    assert done.usage.estimated
    assert done.receipt.HasField("cost_micro_usd")
    assert done.receipt.ttft.ToMilliseconds() == 250
    assert (done.receipt.usage.prompt_token_count, done.receipt.usage.completion_token_count) == (7, 9)
    assert not translate.receipt(Receipt("r1", "gpt")).HasField("cost_micro_usd")


def test_a_generation_is_its_events_put_together() -> None:
    """Choices by index, complete, with the receipt."""
    receipt = Receipt("r1", "gpt", created_time=1.0)
    call = ToolCallDelta(0, "c", "f", "{")
    answer = translate.generation(
        [
            Started("r1", "gpt", "", 1.0),
            Delta(1, "b"),
            Delta(0, "a", tool_calls=(call,)),
            Delta(0, tool_calls=(ToolCallDelta(0, arguments_json="}"),)),
            ChoiceFinished(1, FinishReason.LENGTH),
            ChoiceFinished(0, FinishReason.TOOL_CALLS),
            Completed(Usage(1, 2), receipt),
        ]
    )

    assert [(one.index, one.text, one.finish_reason) for one in answer.choices] == [(0, "a", 3), (1, "b", 2)]
    assert answer.choices[0].tool_calls[0].arguments_json == "{}"
    assert (answer.request_id, answer.usage.completion_token_count) == ("r1", 2)


@given(st.floats(0, 1e6))
def test_durations_survive(span_s: float) -> None:
    """To the nanosecond, and always valid."""
    made = translate.duration(span_s)

    assert 0 <= made.nanos < 1_000_000_000
    assert math.isclose(translate.seconds(made), span_s, abs_tol=2e-9)
    assert translate.seconds(Duration(seconds=1, nanos=500_000_000)) == 1.5
