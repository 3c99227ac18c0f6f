"""The canonical form: which requests are the same question."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.inference.caching import canonical
from services.inference.generation import (
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
)


def digest(asked: Prompt, model: str = "gpt", profile: str = "default", fallbacks: tuple[str, ...] = ()) -> bytes:
    return canonical.digest(model, fallbacks, asked, profile)


def context(asked: Prompt, model: str = "gpt", profile: str = "default", fallbacks: tuple[str, ...] = ()) -> bytes:
    return canonical.context_digest(model, fallbacks, asked, profile)


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
    others = {"model", "streamed", "end_user_id", "metadata", "tenant", "priority"}

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
    assert canonical.CANONICALISATION_VERSION == 2
    assert digest(BASE).hex() == "7a1a832623751644e97ad20a31919ee196e2be6d2cc0cf3a4c8a5616c6bb7232"


ASKED = Prompt(
    messages=(
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("Hi."),)),
        Message(Role.ASSISTANT, (TextPart("Hello!"),)),
        Message(Role.USER, (TextPart("What is a lease?"),)),
    )
)


def with_last(*parts: Any, role: Role = Role.USER, **fields: Any) -> Prompt:
    return msgspec.structs.replace(ASKED, messages=(*ASKED.messages[:-1], Message(role, parts, **fields)))


def test_similar_requests_differ_in_the_last_turn_only() -> None:
    """Its text is what is compared; the context is the same for another text and for no other difference."""
    other = with_last(TextPart("Explain leases."))

    assert canonical.compared_text(ASKED) == "What is a lease?"
    assert canonical.compared_text(other) == "Explain leases."
    assert context(other) == context(ASKED) != digest(ASKED)
    assert digest(other) != digest(ASKED)


def test_all_but_the_text_is_context() -> None:
    """Another history, instruction, sampling, format, speaker, model, profile or target is another context."""
    others = [
        context(msgspec.structs.replace(ASKED, messages=ASKED.messages[1:])),
        context(msgspec.structs.replace(ASKED, messages=(ASKED.messages[0], ASKED.messages[-1]))),
        context(msgspec.structs.replace(ASKED, sampling=Sampling(max_tokens=5))),
        context(msgspec.structs.replace(ASKED, output_format=OutputFormat("json_object"))),
        context(msgspec.structs.replace(ASKED, reasoning_effort="low")),
        context(with_last(TextPart("What is a lease?"), name="ann")),
        context(ASKED, model="b"),
        context(ASKED, profile="strict"),
        context(ASKED, fallbacks=("b",)),
    ]

    assert len({context(ASKED), *others}) == len(others) + 1


@pytest.mark.parametrize(
    "asked",
    [
        Prompt(raw_prompt="What is a lease?"),
        Prompt(),
        with_last(TextPart("What is"), TextPart("this?")),
        with_last(TextPart("What is this?"), ImagePart("https://a/b.png")),
        with_last(ImagePart("https://a/b.png")),
        with_last(TextPart("4"), role=Role.TOOL, tool_call_id="c1"),
        with_last(TextPart("The answer is"), role=Role.ASSISTANT),
        with_last(TextPart(" \n")),
        with_last(TextPart("x" * 32_769)),
        with_last(),
        msgspec.structs.replace(ASKED, tools=(Tool("look"),)),
    ],
    ids=[
        "raw",
        "nothing",
        "two parts",
        "picture too",
        "picture",
        "tool",
        "assistant",
        "blank",
        "long",
        "empty",
        "tools",
    ],
)
def test_some_requests_are_like_no_other(asked: Prompt) -> None:
    """Where a small difference may mean anything, only the very same request will do."""
    assert canonical.compared_text(asked) is None
