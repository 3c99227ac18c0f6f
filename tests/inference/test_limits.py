"""Every limit of the contract names its field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict

from kit.errors import InvalidArgument
from millrace.inference.v1 import generation_pb2 as pb
from services.inference import limits

USER = {"role": "ROLE_USER", "parts": [{"text": "hi"}]}
TOOL = {"name": "look"}
AT = "spec.conversation.messages[0]"
LONG = "x" * 1_000_001


def spec(**fields: Any) -> pb.GenerationSpec:
    """A spec in the names of JSON."""
    return ParseDict({"model": "gpt", "conversation": {"messages": [USER]}, **fields}, pb.GenerationSpec())


def message(**fields: Any) -> dict[str, Any]:
    return {"conversation": {"messages": [USER | fields]}}


def part(**fields: Any) -> dict[str, Any]:
    return message(parts=[fields])


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("spec.model", {"model": ""}),
    ("spec.model", {"model": "x" * 257}),
    ("spec.conversation.messages", {"conversation": {}}),
    ("spec.conversation.messages", {"conversation": {"messages": [USER] * 2_049}}),
    ("spec.conversation.messages", part(text=LONG)),
    (f"{AT}.role", message(role="ROLE_UNSPECIFIED")),
    (f"{AT}.role", message(role=99)),
    (f"{AT}.parts", message(parts=[])),
    (f"{AT}.tool_calls", message(toolCalls=[{"id": "c"}])),
    (f"{AT}.refusal", message(refusal="no")),
    (f"{AT}.name", message(name="x" * 65)),
    (f"{AT}.tool_call_id", message(role="ROLE_TOOL")),
    (f"{AT}.parts[0]", part()),
    (f"{AT}.parts[0].image.source", part(image={})),
    (f"{AT}.parts[0].image.url", part(image={"url": "file:///etc/passwd"})),
    (f"{AT}.parts[0].image.detail", part(image={"url": "https://x", "detail": "most"})),
    (f"{AT}.parts[0].audio.format", part(audio={"format": "ogg"})),
    (f"{AT}.parts[0].file.source", part(file={})),
    ("spec.tools", {"tools": [TOOL] * 129}),
    ("spec.tools[0].name", {"tools": [{"name": "a b"}]}),
    ("spec.tools[1].name", {"tools": [TOOL, {"name": "x" * 65}]}),
    ("spec.tools[0].parameters_json", {"tools": [TOOL | {"parametersJson": "[]"}]}),
    ("spec.tools[0].parameters_json", {"tools": [TOOL | {"parametersJson": "{"}]}),
    ("spec.tools[0].parameters_json", {"tools": [TOOL | {"parametersJson": "[" * 100_000}]}),
    ("spec.tool_choice.name", {"tools": [TOOL], "toolChoice": {"mode": "TOOL_CHOICE_MODE_NAMED", "name": "other"}}),
    ("spec.tool_choice", {"toolChoice": {"mode": "TOOL_CHOICE_MODE_REQUIRED"}}),
    ("spec.tool_choice.mode", {"toolChoice": {"mode": 99}}),
    ("spec.sampling.temperature", {"sampling": {"temperature": -0.1}}),
    ("spec.sampling.temperature", {"sampling": {"temperature": 2.1}}),
    ("spec.sampling.temperature", {"sampling": {"temperature": "NaN"}}),
    ("spec.sampling.top_p", {"sampling": {"topP": 0}}),
    ("spec.sampling.top_p", {"sampling": {"topP": 1.1}}),
    ("spec.sampling.top_k", {"sampling": {"topK": -1}}),
    ("spec.sampling.min_p", {"sampling": {"minP": 1.5}}),
    ("spec.sampling.presence_penalty", {"sampling": {"presencePenalty": 2.5}}),
    ("spec.sampling.frequency_penalty", {"sampling": {"frequencyPenalty": -2.5}}),
    ("spec.sampling.repetition_penalty", {"sampling": {"repetitionPenalty": 0}}),
    ("spec.sampling.max_tokens", {"sampling": {"maxTokens": 0}}),
    ("spec.sampling.min_tokens", {"sampling": {"minTokens": -1}}),
    ("spec.sampling.n", {"sampling": {"n": 0}}),
    ("spec.sampling.n", {"sampling": {"n": 17}}),
    ("spec.sampling.top_logprobs", {"sampling": {"logprobs": True, "topLogprobs": 21}}),
    ("spec.sampling.top_logprobs", {"sampling": {"topLogprobs": 1}}),
    ("spec.sampling.stop", {"sampling": {"stop": ["a"] * 5}}),
    ("spec.sampling.stop[1]", {"sampling": {"stop": ["a", ""]}}),
    ("spec.sampling.stop_token_ids", {"sampling": {"stopTokenIds": [1] * 65}}),
    ("spec.sampling.logit_bias", {"sampling": {"logitBias": {n: 0 for n in range(1_025)}}}),
    ("spec.sampling.logit_bias[7]", {"sampling": {"logitBias": {7: 101}}}),
    ("spec.output_format.json_schema.name", {"outputFormat": {"jsonSchema": {"schemaJson": "{}"}}}),
    ("spec.output_format.json_schema.schema_json", {"outputFormat": {"jsonSchema": {"name": "a", "schemaJson": "1"}}}),
    ("spec.output_format.choice.choices", {"outputFormat": {"choice": {}}}),
    ("spec.output_format.regex", {"outputFormat": {"regex": ""}}),
    ("spec.cache.mode", {"cache": {"mode": 99}}),
    ("spec.cache.scope", {"cache": {"scope": 99}}),
    ("spec.cache.scope", {"cache": {"scope": "CACHE_SCOPE_USER"}}),
    ("spec.cache.ttl", {"cache": {"ttl": "0.5s"}}),
    ("spec.cache.ttl", {"cache": {"ttl": f"{31 * 86_400}s"}}),
    ("spec.cache.age_max", {"cache": {"ageMax": "-1s"}}),
    ("spec.cache.similarity_threshold", {"cache": {"similarityThreshold": 1.1}}),
    ("spec.cache.error_max", {"cache": {"errorMax": 0}}),
    ("spec.cache.tags", {"cache": {"tags": ["a"] * 9}}),
    ("spec.cache.tags[0]", {"cache": {"tags": [""]}}),
    ("spec.routing.fallbacks", {"routing": {"fallbacks": ["m"] * 9}}),
    ("spec.routing.priority", {"routing": {"priority": 101}}),
    ("spec.routing.ttft_max", {"routing": {"ttftMax": "0s"}}),
    ("spec.routing.inter_token_latency_max", {"routing": {"interTokenLatencyMax": "0s"}}),
    ("spec.reasoning_effort", {"reasoningEffort": 99}),
    ("spec.safety.profile", {"safety": {"profile": "x" * 65}}),
    ("spec.end_user_id", {"endUserId": "x" * 257}),
    ("spec.session_id", {"sessionId": "x" * 129}),
    ("spec.metadata", {"metadata": {str(n): "" for n in range(17)}}),
    ("spec.metadata", {"metadata": {"x" * 65: ""}}),
    ("spec.metadata", {"metadata": {"a": "x" * 513}}),
]


@pytest.mark.parametrize(("field", "fields"), BROKEN, ids=[f"{n}-{field}" for n, (field, _) in enumerate(BROKEN)])
def test_each_limit_names_its_field(field: str, fields: dict[str, Any]) -> None:
    """INVALID_ARGUMENT says which field is out of bounds and what is allowed."""
    with pytest.raises(InvalidArgument) as caught:
        limits.check_spec(spec(**fields))

    assert [one.field for one in caught.value.field_violations] == [field]
    assert caught.value.field_violations[0].description


def test_bounds_belong_to_what_is_allowed() -> None:
    """The extremes of every range pass."""
    for low_or_high in (0, 1):
        limits.check_spec(
            spec(
                sampling={
                    "temperature": (0, 2)[low_or_high], "topP": (0.01, 1)[low_or_high], "topK": 0, "n": (1, 16)[low_or_high],
                    "presencePenalty": (-2, 2)[low_or_high], "repetitionPenalty": (0.01, 2)[low_or_high],
                    "logprobs": True, "topLogprobs": (0, 20)[low_or_high], "stop": ["a"] * 4, "seed": -1,
                    "logitBias": {7: (-100, 100)[low_or_high]}, "maxTokens": 1,
                },
                cache={"ttl": ("1s", f"{30 * 86_400}s")[low_or_high], "errorMax": 1, "scope": "CACHE_SCOPE_USER"},
                endUserId="u",
                routing={"priority": (-100, 100)[low_or_high], "ttftMax": "0.001s"},
            )
        )  # fmt: skip


def test_what_may_be_empty() -> None:
    """An assistant that called tools or refused said nothing else; a raw prompt needs no conversation."""
    limits.check_spec(spec(**message(role="ROLE_ASSISTANT", parts=[], toolCalls=[{"id": "c", "name": "f"}])))
    limits.check_spec(spec(**message(role="ROLE_ASSISTANT", parts=[], refusal="no")))
    limits.check_spec(pb.GenerationSpec(model="gpt", raw_prompt="Once"))


@pytest.mark.parametrize("raw", ["", LONG])
def test_raw_prompts_have_a_length(raw: str) -> None:
    """One character at least, a million at most."""
    with pytest.raises(InvalidArgument) as caught:
        limits.check_spec(pb.GenerationSpec(model="gpt", raw_prompt=raw))

    assert caught.value.field_violations[0].field == "spec.raw_prompt"


def test_an_input_is_needed() -> None:
    """Neither a conversation nor a raw prompt is nothing to continue."""
    with pytest.raises(InvalidArgument) as caught:
        limits.check_spec(pb.GenerationSpec(model="gpt"))

    assert caught.value.field_violations[0].field == "spec.input"


@pytest.mark.parametrize("kind", ["image", "audio", "file"])
def test_media_have_a_size(kind: str) -> None:
    """Ten MiB each."""
    data = b"x" * (10 * 1024 * 1024 + 1)
    media = {
        "image": pb.ContentPart(image=pb.Image(data=data)),
        "audio": pb.ContentPart(audio=pb.Audio(data=data, format="wav")),
        "file": pb.ContentPart(file=pb.File(data=data)),
    }[kind]
    asked = pb.GenerationSpec(model="gpt")
    asked.conversation.messages.add(role=pb.ROLE_USER, parts=[media])
    with pytest.raises(InvalidArgument) as caught:
        limits.check_spec(asked)

    assert caught.value.field_violations[0].field == f"{AT}.parts[0].{kind}.data"


def test_the_path_begins_where_the_spec_stands() -> None:
    """In a batch the item is named too."""
    with pytest.raises(InvalidArgument) as caught:
        limits.check_spec(spec(model=""), "specs[3]")

    assert caught.value.field_violations[0].field == "specs[3].model"


def test_request_ids() -> None:
    """The field's own id wins, the metadata's stands in, and one that no header could carry is refused."""
    assert limits.check_request_id("a.B_c:1-2", "other") == "a.B_c:1-2"
    assert limits.check_request_id("", "other") == "other"
    for bad in ("a b", "x" * 129, "ü", "a\nb"):
        with pytest.raises(InvalidArgument) as caught:
            limits.check_request_id(bad, "other")
        assert caught.value.field_violations[0].field == "request_id"


@pytest.mark.parametrize(
    ("texts", "chars_min", "field"),
    [([], 0, "texts"), (["a"] * 3, 0, "texts"), (["a", ""], 1, "texts[1]"), (["x" * 100_001], 0, "texts[0]")],
)
def test_lists_of_texts(texts: list[str], chars_min: int, field: str) -> None:
    """How many, how short and how long."""
    with pytest.raises(InvalidArgument) as caught:
        limits.check_texts(texts, 2, chars_min)

    assert caught.value.field_violations[0].field == field
    limits.check_texts(["a", "b"], 2, 1)


def test_nonsense_durations_are_out_of_range() -> None:
    """A duration whose nanoseconds go against its seconds is read as it stands."""
    with pytest.raises(InvalidArgument):
        limits.check_spec(_with_ttl(Duration(seconds=1, nanos=-1)))


def _with_ttl(ttl: Duration) -> pb.GenerationSpec:
    asked = spec()
    asked.cache.ttl.CopyFrom(ttl)
    return asked
