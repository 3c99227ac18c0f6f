"""Route choice: which targets, in which order, and why."""

from __future__ import annotations

import pytest

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound
from services.inference.generation import Message, Prompt, Role, TextPart
from services.inference.request import Request
from services.inference.routing.router import Route, Router
from tests.inference.parts import catalog, request

MODELS = """
upstreams: {here: {base_url: "http://127.0.0.1:1/v1"}}
models:
  - {name: small, targets: [{engine: local, model: s}]}
  - {name: large, targets: [{engine: local, model: l1}, {engine: local, model: l2}], cache: {ttl_s: 9}}
  - {name: "up/*", targets: [{engine: openai, upstream: here}]}
  - {name: vectors, kind: embedding, targets: [{engine: local, model: v}]}
"""
AUTO = "auto: {simple: small, complex: large, simple_words_max: 3, complex_words_min: 5}"


def router(auto: str = AUTO) -> Router:
    return Router(catalog(MODELS + auto))


def asked(model: str, *fallbacks: str, prompt: Prompt | None = None) -> Request:
    return Request("r1", "acme", model, prompt or Prompt(raw_prompt="hi"), fallbacks=fallbacks)


def targets(route: Route) -> list[str]:
    return [one.target_model for one in route.targets]


def refusal(model: str, *fallbacks: str, auto: str = AUTO) -> MillraceError:
    with pytest.raises(MillraceError) as caught:
        router(auto).choose(asked(model, *fallbacks))
    return caught.value


def test_a_model_leads_to_its_targets() -> None:
    """In the file's order, under the model's own rules."""
    route = router().choose(asked("large"))

    assert (route.model_name, route.kind, route.reason) == ("large", "chat", "")
    assert targets(route) == ["l1", "l2"]
    assert route.rules.cache.ttl_s == 9


def test_a_pattern_passes_the_name_on() -> None:
    """The upstream is asked for the very name that the caller used; each name is a route of its own."""
    made = router()

    assert targets(made.choose(asked("up/one"))) == ["up/one"]
    assert targets(made.choose(asked("up/two"))) == ["up/two"]
    assert made.choose(asked("up/one")).model_name == "up/one"


def test_fallbacks_follow() -> None:
    """The caller's spare models come after the model's own targets, in the caller's order."""
    route = router().choose(asked("small", "up/x", "large"))

    assert targets(route) == ["s", "up/x", "l1", "l2"]
    assert route.model_name == "small"


def test_fallbacks_leave_the_route_of_others_alone() -> None:
    """Routes are shared: one caller's spare models are nobody else's."""
    made = router()
    made.choose(asked("small", "large"))

    assert targets(made.choose(asked("small"))) == ["s"]


def test_an_unknown_model_is_not_found() -> None:
    """The model that does not exist is NOT_FOUND; a fallback that does not exist is a bad field."""
    assert isinstance(refusal("nobody"), NotFound)

    error = refusal("small", "large", "nobody")
    assert isinstance(error, InvalidArgument)
    assert error.field_violations[0].field == "spec.routing.fallbacks[1]"


@pytest.mark.parametrize(("model", "fallbacks"), [("vectors", ()), ("small", ("vectors",))])
def test_an_embedding_model_does_not_chat(model: str, fallbacks: tuple[str, ...]) -> None:
    """The field that names it is told."""
    error = refusal(model, *fallbacks)

    assert error.code is Code.INVALID_ARGUMENT
    assert error.field_violations[0].field == ("spec.routing.fallbacks[0]" if fallbacks else "spec.model")


def test_embeddings_are_made_by_embedding_models() -> None:
    """And by no other."""
    assert targets(router().choose_embedding("vectors")) == ["v"]
    with pytest.raises(InvalidArgument) as caught:
        router().choose_embedding("small")
    assert caught.value.field_violations[0].field == "model"
    with pytest.raises(NotFound):
        router().choose_embedding("nobody")


@pytest.mark.parametrize(
    ("text", "model", "reason"),
    [("hello you", "small", "simple: 2 words, at most 3"), ("a b c d e f", "large", "complex: 6 words, more than 5")],
)
def test_auto_chooses_by_complexity(text: str, model: str, reason: str) -> None:
    """And says why, and which model it took."""
    route = router().choose(request(text, "auto"))

    assert (route.model_name, route.reason) == (model, reason)


def test_auto_looks_at_what_the_user_said_last() -> None:
    """Neither the system's words nor the assistant's make a question complex."""
    long = TextPart("word " * 20)
    messages = (
        Message(Role.USER, (long,)),
        Message(Role.USER, (TextPart("and you?"),)),
        Message(Role.ASSISTANT, (long,)),
        Message(Role.SYSTEM, (long,)),
    )

    assert router().choose(asked("auto", prompt=Prompt(messages=messages))).model_name == "small"
    assert router().choose(asked("auto", prompt=Prompt(messages=messages[:1]))).model_name == "large"
    assert router().choose(asked("auto", prompt=Prompt(messages=messages[2:]))).model_name == "small"
    assert router().choose(asked("auto", prompt=Prompt(raw_prompt=long.text))).model_name == "large"


def test_auto_takes_fallbacks() -> None:
    """The choice is the first, the caller's spare models follow."""
    route = router().choose(request("hello", "auto", fallbacks=("large",)))

    assert (route.model_name, targets(route)) == ("small", ["s", "l1", "l2"])


def test_auto_has_to_be_described() -> None:
    """Without a section in the models file there is nothing to choose between."""
    error = refusal("auto", auto="")

    assert isinstance(error, FailedPrecondition)
    assert error.reason == "AUTO_NOT_CONFIGURED"
