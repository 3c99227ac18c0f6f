"""Output formats: whatever a model would like to say, what it says fits."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch

from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.grammar import Ending, Grammars
from services.inference.engines.local.model import LocalModel, load
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    FinishReason,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
)
from tests.fakes.tiny_gpt2 import write_tiny
from tests.inference.local_answers import collect, text_of
from tests.inference.local_batch import Bench

SCHEMA_COUNT = 500
CONTEXT = 2048


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with room for long answers."""
    return write_tiny(tmp_path_factory.mktemp("llama"), "llama", context=CONTEXT)


@pytest.fixture(scope="module")
def model(directory: Path) -> LocalModel:
    """The same, loaded apart."""
    torch.set_num_threads(1)
    return load(str(directory))


@pytest.fixture
async def engine(directory: Path) -> AsyncIterator[LocalEngine]:
    """The engine on it."""
    engine = LocalEngine(str(directory))
    await engine.warm()
    yield engine
    await engine.close()


def random_schema(rng: random.Random, depth: int = 2) -> dict[str, Any]:
    """A schema of the kinds that callers send, whose answers cannot go on for ever."""
    kinds = ["string", "integer", "boolean", "enum", "const", "null"] + ["object", "array", "anyOf"] * (depth > 0)
    match rng.choice(kinds):
        case "string":
            return {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 8)}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 200)}
        case "enum":
            return {"enum": rng.sample(["red", "ä ö", 'say "hi"', 3, None, True], rng.randint(1, 4))}
        case "const":
            return {"const": rng.choice([["a", 1], {"k": "v"}, "only"])}
        case "array":
            least = rng.randint(0, 2)
            items = random_schema(rng, depth - 1)
            return {"type": "array", "items": items, "minItems": least, "maxItems": least + rng.randint(0, 2)}
        case "anyOf":
            return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}
        case "object":
            names = rng.sample(["name", "size", "tags", "ok", "größe"], rng.randint(1, 4))
            properties = {name: random_schema(rng, depth - 1) for name in names}
            required = [name for name in names if rng.random() < 0.7]
            return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        case kind:
            return {"type": kind}


def test_random_schemas_are_kept(model: LocalModel) -> None:
    """A model that knows no language answers 500 random JSON schemas, and every answer that ends validates."""
    rng, bench, grammars = random.Random(7), Bench(model, prefill_tokens=64, row_count_max=32), Grammars(model)
    asked = []
    for _ in range(SCHEMA_COUNT):
        schema = random_schema(rng)
        grammar = grammars.compile(OutputFormat("json_schema", schema_json=json.dumps(schema)))
        sampling = {"temperature": 1.0, "seed": rng.randrange(1000), "max_tokens": 1000, "logprobs": False}
        asked.append((schema, bench.add([rng.randrange(256)], constrain=grammar.constraint, **sampling)))
        bench.step()
    bench.finish()

    for schema, reader in asked:
        assert reader.error is None
        assert ChoiceFinished(0, FinishReason.STOP) in reader.events
        jsonschema.validate(json.loads(text_of(reader.events)), schema)


@pytest.mark.parametrize(
    ("output_format", "fits"),
    [
        (OutputFormat("regex", regex=r"[A-F]{4}-[0-9]{2,6}!"), r"[A-F]{4}-[0-9]{2,6}!"),
        (OutputFormat("choice", choices=("yes", 'no, "never"', "vielleicht: ä")), r'yes|no, "never"|vielleicht: ä'),
    ],
    ids=["regex", "choice"],
)
async def test_answers_fit(engine: LocalEngine, output_format: OutputFormat, fits: str) -> None:
    """Every choice matches the whole expression, or is one of the texts, and ends by itself."""
    sampling = Sampling(temperature=1.0, n=6, seed=2, max_tokens=60)
    events = await collect(engine, Prompt(raw_prompt="a", output_format=output_format, sampling=sampling))

    texts = [text_of(events, at) for at in range(6)]
    assert all(re.fullmatch(fits, text) for text in texts)
    assert len(set(texts)) > 1


async def test_a_json_object_is_one_as_far_as_it_goes(engine: LocalEngine) -> None:
    """A JSON object begins as one; one that is cut by its length says so."""
    sampling = Sampling(temperature=1.0, seed=3, max_tokens=20)
    prompt = Prompt(raw_prompt="a", output_format=OutputFormat("json_object"), sampling=sampling)
    events = await collect(engine, prompt)

    (finished,) = [event for event in events if isinstance(event, ChoiceFinished)]
    assert text_of(events).startswith("{")
    if finished.finish_reason is FinishReason.STOP:
        assert isinstance(json.loads(text_of(events)), dict)
    else:
        assert finished.finish_reason is FinishReason.LENGTH


ENDLESS = {
    "a list of texts": {"steps": {"type": "array", "items": {"type": "string"}}},
    "a text and a number": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "whatever": {"x": {}},
}


@pytest.mark.parametrize("properties", [None, *ENDLESS.values()], ids=["an object", *ENDLESS])
async def test_a_model_that_would_end_closes_its_json(properties: dict[str, Any] | None) -> None:
    """What the embedded model has no more thought for it closes; it went on to the end of its context, two minutes."""
    schema = {"type": "object", "properties": properties, "required": list(properties or {})}
    output_format = OutputFormat("json_object")
    if properties:
        output_format = OutputFormat("json_schema", schema_json=json.dumps({**schema, "additionalProperties": False}))
    engine = LocalEngine("embedded")
    await engine.warm()
    try:
        for text in ("What is Millrace?", "Alice and Bob are going to a science fair on Friday."):
            prompt = Prompt(
                messages=(Message(Role.USER, (TextPart(text),)),),
                output_format=output_format,
                sampling=Sampling(max_tokens=300),
            )
            events = await collect(engine, prompt)

            assert ChoiceFinished(0, FinishReason.STOP) in events
            said = json.loads(text_of(events))
            assert properties is None or set(said) == set(properties)
    finally:
        await engine.close()


def test_only_what_is_asked_for_is_said_after_an_end(model: LocalModel) -> None:
    """A model that would end has its text closed and no further item begun; its later text and number stay its own."""
    item = {"type": "array", "items": {"type": "string"}}
    properties = {"a": item, "b": {"type": "string"}, "c": {"type": "integer"}, "d": {}}
    asked = {"type": "object", "properties": properties, "required": list("abcd"), "additionalProperties": False}
    grammar = Grammars(model).compile(OutputFormat("json_schema", schema_json=json.dumps(asked)))
    constraint, said = grammar.constraint(), ""
    (end_id,) = model.end_ids

    def say(wanted: str) -> None:
        """Draws what the model would like most, sign by sign, as far as it may; an end is written `.`."""
        nonlocal said
        for sign in wanted:
            logits = torch.zeros(model.vocab_size)
            logits[end_id if sign == "." else model.tokenizer.convert_tokens_to_ids(sign)] = 9.0
            constraint.restrict(logits)
            token_id = int(logits.argmax())
            constraint.accept(token_id)
            said += model.token_bytes(token_id).decode()

    say('{"a":["x}.,')
    assert said == '{"a":["x}"]'
    say(',"b":"y]z","c":34.')
    assert said.endswith(',"c":34,')
    say('"d":...')
    assert json.loads(said) == {"a": ["x}"], "b": "y]z", "c": 34, "d": ""}


def test_what_is_begun_to_be_ended_is_empty() -> None:
    """Where a text must be begun so that it can be closed, no token begins it that has brackets in it."""
    tokens = [b"<end>", b'"', b'"}', b"}", b"b", b"1", b"{"]
    tokenizer = SimpleNamespace(tokenize_bytes=lambda text: [tokens.index(text)] if text in tokens else [0, 0])
    ending = Ending(tokenizer, [0], len(tokens))  # type: ignore[arg-type]
    beginning = np.array([False, True, True, False, False, True, True])
    ending.narrow(beginning, is_wanted=True)
    within = np.array([False, True, True, True, True, True, True])
    ending.narrow(within, is_wanted=True)

    assert [tokens[at] for at in beginning.nonzero()[0]] == [b'"']
    assert [tokens[at] for at in within.nonzero()[0]] == [b'"', b'"}']


async def test_log_probabilities_stay_the_models_own(engine: LocalEngine) -> None:
    """A token that the format forces has the log probability that the model gave it, not 0."""
    sampling = Sampling(logprobs=True, max_tokens=10)
    prompt = Prompt(raw_prompt="a", output_format=OutputFormat("choice", choices=("zebra",)), sampling=sampling)
    events = await collect(engine, prompt)

    logprobs = [item.logprob for event in events if isinstance(event, Delta) for item in event.logprobs]
    assert text_of(events) == "zebra"
    assert min(logprobs) < -0.5


async def test_neighbours_are_not_held(engine: LocalEngine) -> None:
    """A format binds its own request only."""
    free = Prompt(raw_prompt="a", sampling=Sampling(max_tokens=30, logprobs=True))
    alone = await collect(engine, free)
    held = Prompt(raw_prompt="a", output_format=OutputFormat("regex", regex="x{30}"))

    beside, _ = await asyncio.gather(collect(engine, free), collect(engine, held))

    assert text_of(beside) == text_of(alone)
