"""The limits of the contract: each is refused by the name of its field, and the last value within it is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import text_format

from kit import identity
from kit.errors import Code, InvalidArgument
from kit.identity import CallContext, Caller
from millrace.inference.v1 import generation_pb2
from services.inference import limits
from services.inference.limits import RANGES, check_request_id, check_spec, check_texts

Spec = generation_pb2.GenerationSpec
HI = 'conversation { messages { role: ROLE_USER parts { text: "hi" } } }'
SAID = 'role: ROLE_USER parts { text: "a" }'
TOOL = 'tools { name: "look" }'


def many(name: str, count: int) -> str:
    """A repeated field of so many strings."""
    return f'{name}: "a" ' * count


def spec(text: str = "", head: str = f'model: "m" {HI}') -> Spec:
    """A spec of one user message and what is given, in protobuf's text format."""
    return text_format.Parse(f"{head} {text}", Spec())


def message(text: str) -> Spec:
    """A spec of one message."""
    return spec(head=f'model: "m" conversation {{ messages {{ {text} }} }}')


def refused(checked: Spec) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        check_spec(checked)
    assert caught.value.code is Code.INVALID_ARGUMENT
    return caught.value


def field(checked: Spec) -> str:
    """The field that is refused."""
    return refused(checked).field_violations[0].field


def user(part: str) -> str:
    return f"role: ROLE_USER parts {{ {part} }}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TOOL * 129, "tools"),
        ('tools { name: "" }', "tools[0].name"),
        (TOOL + 'tools { name: "a b" }', "tools[1].name"),
        (f'tools {{ name: "{"x" * 65}" }}', "tools[0].name"),
        ('tools { name: "a" parameters_json: "[]" }', "tools[0].parameters_json"),
        ('tools { name: "a" parameters_json: "{" }', "tools[0].parameters_json"),
        (f'tools {{ name: "a" parameters_json: "{"[" * 100_000}" }}', "tools[0].parameters_json"),
        (TOOL + 'tool_choice { mode: TOOL_CHOICE_MODE_NAMED name: "no" }', "tool_choice.name"),
        ("tool_choice { mode: TOOL_CHOICE_MODE_REQUIRED }", "tool_choice"),
        ("tool_choice { mode: 99 }", "tool_choice.mode"),
        ("reasoning_effort: 99", "reasoning_effort"),
        ('sampling { stop: "" }', "sampling.stop[0]"),
        (f'sampling {{ stop: "a" stop: "{"x" * 1_001}" }}', "sampling.stop[1]"),
        (f"sampling {{ {many('stop', 5)} }}", "sampling.stop"),
        (f"sampling {{ {'stop_token_ids: 1 ' * 65} }}", "sampling.stop_token_ids"),
        ("sampling { logit_bias { key: 7 value: 100.5 } }", "sampling.logit_bias[7]"),
        ("sampling { logit_bias { key: 7 value: nan } }", "sampling.logit_bias[7]"),
        (f"sampling {{ {''.join(f'logit_bias {{ key: {n} }}' for n in range(1_025))} }}", "sampling.logit_bias"),
        ("sampling { top_logprobs: 2 }", "sampling.top_logprobs"),
        ("sampling { temperature: nan }", "sampling.temperature"),
        ("sampling { temperature: inf }", "sampling.temperature"),
        ("sampling { top_p: 0 }", "sampling.top_p"),
        ("sampling { repetition_penalty: 0 }", "sampling.repetition_penalty"),
        ('output_format { json_schema { name: "" schema_json: "{}" } }', "output_format.json_schema.name"),
        ('output_format { json_schema { name: "a" schema_json: "1" } }', "output_format.json_schema.schema_json"),
        ('output_format { json_schema { name: "a" } }', "output_format.json_schema.schema_json"),
        ("output_format { choice {} }", "output_format.choice.choices"),
        (f"output_format {{ choice {{ {many('choices', 257)} }} }}", "output_format.choice.choices"),
        ('output_format { regex: "" }', "output_format.regex"),
        (f'output_format {{ regex: "{"a" * 10_001}" }}', "output_format.regex"),
        ("cache { mode: 99 }", "cache.mode"),
        ("cache { scope: 99 }", "cache.scope"),
        ("cache { scope: CACHE_SCOPE_USER }", "cache.scope"),  # as nobody
        ("cache { ttl { nanos: 999999999 } }", "cache.ttl"),
        ("cache { ttl { seconds: 2592001 } }", "cache.ttl"),
        ("cache { ttl { seconds: 1 nanos: -1 } }", "cache.ttl"),
        ("cache { ttl { seconds: -5 } }", "cache.ttl"),
        ("cache { age_max { seconds: -1 } }", "cache.age_max"),
        ("cache { similarity_threshold: 1.1 }", "cache.similarity_threshold"),
        ("cache { error_max: 0 }", "cache.error_max"),
        ("cache { error_max: nan }", "cache.error_max"),
        (f"cache {{ {many('tags', 9)} }}", "cache.tags"),
        ('cache { tags: "a" tags: "" }', "cache.tags[1]"),
        (f'cache {{ tags: "{"a" * 65}" }}', "cache.tags[0]"),
        (f"routing {{ {many('fallbacks', 9)} }}", "routing.fallbacks"),
        ('routing { fallbacks: "a" fallbacks: "" }', "routing.fallbacks[1]"),
        (f'routing {{ fallbacks: "{"a" * 257}" }}', "routing.fallbacks[0]"),
        ("routing { priority: 101 }", "routing.priority"),
        ("routing { priority: -101 }", "routing.priority"),
        ("routing { ttft_max {} }", "routing.ttft_max"),
        ("routing { inter_token_latency_max { seconds: 86401 } }", "routing.inter_token_latency_max"),
        (f'safety {{ profile: "{"a" * 65}" }}', "safety.profile"),
        (f'end_user_id: "{"a" * 257}"', "end_user_id"),
        (f'session_id: "{"a" * 129}"', "session_id"),
        ("".join(f'metadata {{ key: "{n}" value: "" }}' for n in range(17)), "metadata"),
        ('metadata { key: "" value: "a" }', "metadata"),
        (f'metadata {{ key: "{"a" * 65}" value: "" }}', "metadata"),
        (f'metadata {{ key: "a" value: "{"a" * 513}" }}', "metadata"),
    ],
)
def test_what_is_out_of_bounds_is_named(text: str, name: str) -> None:
    """The violation names the field from the request's root on."""
    assert field(spec(text)) == f"spec.{name}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('parts { text: "a" }', "role"),
        ('role: 9 parts { text: "a" }', "role"),
        ("role: ROLE_USER", "parts"),
        ("role: ROLE_ASSISTANT", "parts"),
        ("role: ROLE_USER parts {}", "parts[0]"),
        ('role: ROLE_USER parts { text: "a" } tool_calls { id: "1" }', "tool_calls"),
        ('role: ROLE_USER parts { text: "a" } refusal: "no"', "refusal"),
        ('role: ROLE_TOOL parts { text: "a" }', "tool_call_id"),
        (user('text: "a"') + f' name: "{"a" * 65}"', "name"),
        (user("image {}"), "parts[0].image.source"),
        (user('image { url: "file:///etc/passwd" }'), "parts[0].image.url"),
        (user('image { url: "https://a" detail: "most" }'), "parts[0].image.detail"),
        (user('audio { data: "a" format: "ogg" }'), "parts[0].audio.format"),
        (user("file {}"), "parts[0].file.source"),
    ],
)
def test_what_is_wrong_with_a_message_is_named(text: str, name: str) -> None:
    """By the index of the message and of the part."""
    assert field(message(text)) == f"spec.conversation.messages[0].{name}"


@pytest.mark.parametrize(("kind", "at"), [("image", "image.data"), ("audio", "audio.data"), ("file", "file.data")])
def test_media_have_a_size(kind: str, at: str) -> None:
    """Ten mebibytes are taken, one byte more is not."""
    extra = {"format": "wav"} if kind == "audio" else {}

    def holding(size: int) -> Spec:
        part = generation_pb2.ContentPart(**{kind: {"data": bytes(size), **extra}})  # type: ignore[arg-type]
        said = generation_pb2.Message(role="ROLE_USER", parts=[part])
        return Spec(model="m", conversation=generation_pb2.Conversation(messages=[said]))

    check_spec(holding(10 * 1024 * 1024))
    assert field(holding(10 * 1024 * 1024 + 1)) == f"spec.conversation.messages[0].parts[0].{at}"


def test_a_model_and_a_prompt_are_needed() -> None:
    """An empty spec is told what to set."""
    assert field(spec(head=HI)) == "spec.model"
    assert field(spec(head=f'model: "{"a" * 257}" {HI}')) == "spec.model"
    assert field(spec(head='model: "m"')) == "spec.input"
    assert field(spec(head='model: "m" conversation {}')) == "spec.conversation.messages"
    assert field(spec(head='model: "m" raw_prompt: ""')) == "spec.raw_prompt"


def test_prompts_have_a_length() -> None:
    """A million characters are taken, in one piece or in many; one more is not."""
    half = f'messages {{ role: ROLE_USER parts {{ text: "{"a" * 500_000}" }} }}'

    check_spec(Spec(model="m", raw_prompt="é" * 1_000_000))
    check_spec(spec(head=f'model: "m" conversation {{ {half} {half} }}'))
    assert field(Spec(model="m", raw_prompt="a" * 1_000_001)) == "spec.raw_prompt"
    over = spec(head=f'model: "m" conversation {{ {half} {half} messages {{ {SAID} }} }}')
    assert field(over) == "spec.conversation.messages"


def test_texts_can_all_be_judged() -> None:
    """No more parts of text are taken than safety judges in one call; pictures are not counted."""
    text, picture = 'parts { text: "a" } ', 'parts { image { url: "https://a" } } '

    check_spec(message(f"role: ROLE_USER {text * 2_048} {picture * 10}"))
    assert field(message(f"role: ROLE_USER {text * 2_049}")) == "spec.conversation.messages"


def test_conversations_have_a_length() -> None:
    """2,048 messages are taken, one more is not."""
    one = f"messages {{ {SAID} }} "

    check_spec(spec(head=f'model: "m" conversation {{ {one * 2_048} }}'))
    assert field(spec(head=f'model: "m" conversation {{ {one * 2_049} }}')) == "spec.conversation.messages"


@pytest.mark.parametrize("name", RANGES)
def test_sampling_has_ranges(name: str) -> None:
    """Both ends are within (but for 0 where it means nothing), what lies beyond is not."""
    low, high = RANGES[name]
    step: Any = 0.01 if isinstance(getattr(Spec().sampling, name), float) else 1
    with_logprobs = {"logprobs": True} if name == "top_logprobs" else {}

    def sampling(value: float) -> Spec:
        made = spec()
        made.sampling.MergeFrom(generation_pb2.SamplingParams(**{name: value}, **with_logprobs))  # type: ignore[arg-type]
        return made

    check_spec(sampling(high))
    if name not in limits.ABOVE_ZERO:
        check_spec(sampling(low))
    assert field(sampling(high + step)) == f"spec.sampling.{name}"
    assert field(sampling(low - step)) == f"spec.sampling.{name}"


def test_a_principal_owns_entries_without_naming_a_user() -> None:
    """Nobody else may ask for entries of its own without saying whose."""
    asked = spec("cache { scope: CACHE_SCOPE_USER }")
    with identity.use(CallContext("r1", caller=Caller("ann"))):
        check_spec(asked)
    with identity.use(CallContext("r1")):
        assert "end_user_id" in refused(asked).message


def test_the_fullest_spec_is_taken() -> None:
    """Everything at once at its bound, and nothing is refused."""
    labels = "".join(f'metadata {{ key: "{n:064}" value: "{"v" * 512}" }}' for n in range(16))
    check_spec(
        spec(
            'tools { name: "look" parameters_json: "{}" } tool_choice { mode: TOOL_CHOICE_MODE_NAMED name: "look" }'
            f"sampling {{ logprobs: true top_logprobs: 20 {many('stop', 4)} {'stop_token_ids: 1 ' * 64}"
            "  logit_bias { key: 1 value: -100 } logit_bias { key: 2 value: 100 } seed: -9 }"
            'output_format { json_schema { name: "a" schema_json: "{}" } }'
            f"cache {{ mode: CACHE_MODE_REFRESH scope: CACHE_SCOPE_USER ttl {{ seconds: 1 }} {many('tags', 8)} }}"
            f"routing {{ {many('fallbacks', 8)} priority: -100 ttft_max {{ nanos: 1000000 }} }}"
            f'safety {{ profile: "{"p" * 64}" }} end_user_id: "{"u" * 256}" session_id: "{"s" * 128}" {labels}'
            "reasoning_effort: REASONING_EFFORT_HIGH"
        )
    )


@pytest.mark.parametrize(
    "text",
    [
        'role: ROLE_ASSISTANT tool_calls { id: "1" name: "look" arguments_json: "{}" }',
        'role: ROLE_ASSISTANT refusal: "no"',
        'role: ROLE_TOOL tool_call_id: "1" parts { text: "" }',
        user('image { url: "data:image/png;base64,AA==" detail: "low" }'),
        user('image { url: "http://a" }'),
        user('file { file_id: "f" }'),
        user('audio { data: "a" format: "mp3" }'),
    ],
)
def test_messages_of_every_kind_are_taken(text: str) -> None:
    """What an assistant or a tool says may be empty of text."""
    check_spec(message(text))


def test_specs_of_a_batch_have_paths() -> None:
    """A field is named from the root of whichever request holds the spec."""
    with pytest.raises(InvalidArgument) as caught:
        check_spec(spec('sampling { stop: "" }'), "specs[3]")

    assert caught.value.field_violations[0].field == "specs[3].sampling.stop[0]"


def test_the_message_says_what_is_allowed() -> None:
    """In words and figures, with what was given."""
    assert refused(spec("sampling { n: 17 }")).message == "spec.sampling.n: must be from 1 to 16; it is 17"
    assert refused(spec(TOOL * 129)).message == "spec.tools: must have 0 to 128 items; it has 129"


def test_what_was_said_is_never_told() -> None:
    """A refusal names fields and figures; it quotes nothing."""
    secret = json.dumps(["hunter2"]).replace('"', '\\"')

    assert "hunter2" not in refused(spec(f'tools {{ name: "a" parameters_json: "{secret}" }}')).message
    assert "hunter2" not in refused(spec('tools { name: "hunter2!" }')).message


def test_request_ids() -> None:
    """The request's own id counts, else the metadata's; one that is not fit for a header is refused."""
    assert check_request_id("", "from-metadata") == "from-metadata"
    assert check_request_id("mine.1:2_3-4", "from-metadata") == "mine.1:2_3-4"
    for bad in ("a b", "a\n", "é", "a" * 129):
        with pytest.raises(InvalidArgument) as caught:
            check_request_id(bad, "from-metadata")
        assert caught.value.field_violations[0].field == "request_id"


@pytest.mark.parametrize(
    ("texts", "name"), [([], "texts"), (["a"] * 3, "texts"), (["a", ""], "texts[1]"), (["a" * 100_001], "texts[0]")]
)
def test_lists_of_texts(texts: list[str], name: str) -> None:
    """Count and length of each have bounds."""
    with pytest.raises(InvalidArgument) as caught:
        check_texts(texts, 2, 1)
    assert caught.value.field_violations[0].field == name

    check_texts(["a" * 100_000, ""], 2, 0)
