"""The local engine on real networks: a tiny GPT-2 with random weights, and the embedded model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError
from services.inference.accounting.metering import Meter, lend
from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.turns import PREFILL_TOKENS
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    FinishReason,
    Message,
    OutputFormat,
    Prompt,
    Role,
    Sampling,
    TextPart,
    Tool,
)
from tests.fakes.tiny_gpt2 import CONTEXT, END_ID, add_token, write_tiny, write_tiny_gpt2
from tests.inference.local_answers import chat, collect, ids_of, raw, text_of, until

DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 as a Hugging Face directory."""
    return write_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture
async def tiny(directory: Path) -> AsyncIterator[LocalEngine]:
    """The engine on the tiny GPT-2."""
    engine = LocalEngine(str(directory), active_max=2, queue_max=1)
    await engine.warm()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def model(directory: Path) -> LocalModel:
    """The tiny GPT-2 loaded apart, to compare with."""
    return load(str(directory))


@pytest.fixture
async def embedded() -> AsyncIterator[LocalEngine]:
    """The engine on the embedded model."""
    engine = LocalEngine("embedded")
    await engine.warm()
    yield engine
    await engine.close()


async def test_what_is_drawn_while_its_reader_leaves_is_counted(tiny: LocalEngine) -> None:
    """A request that is cancelled when the model has just taken it ends with the step that draws its first token."""
    work, has_taken, may_step = tiny._ready().work, threading.Event(), threading.Event()
    step = work.step

    def held() -> bool:
        if tiny._worker._jobs:
            has_taken.set()
            may_step.wait(DEADLINE_S)
        return step()

    work.step = held  # type: ignore[method-assign]
    meter = Meter()
    with lend(meter):
        reading = asyncio.create_task(collect(tiny, raw(max_tokens=40)))
    assert await asyncio.to_thread(has_taken.wait, DEADLINE_S)
    reading.cancel()
    await asyncio.sleep(0)
    may_step.set()
    await asyncio.gather(reading, return_exceptions=True)

    assert meter.usage.completion_token_count == 1


async def test_who_waits_for_a_place_and_leaves_says_so(tiny: LocalEngine) -> None:
    """A request that the model never began with has used nothing, and was waiting all the time; one at work has not."""
    work, may_step = tiny._ready().work, threading.Event()
    step = work.step
    work.step = lambda: may_step.is_set() and step()  # type: ignore[method-assign]
    waiting, working = Meter(), Meter()
    with lend(waiting):
        reading = asyncio.create_task(collect(tiny, raw(max_tokens=4)))
    await until(lambda: tiny.job_count == 1 and tiny.is_idle)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    may_step.set()
    with lend(working):
        await collect(tiny, raw(max_tokens=4))

    assert (waiting.is_queued, waiting.usage.prompt_token_count) == (True, 0)
    assert waiting.queue_s > 0
    assert not working.is_queued
    assert working.usage.completion_token_count == 4


@pytest.mark.parametrize("penalty", [1.0, 1.3])
async def test_greedy_equals_generate(tiny: LocalEngine, model: LocalModel, penalty: float) -> None:
    """Greedy decoding gives the tokens of transformers' own `generate`, repetition penalty included."""
    prompt_ids = torch.tensor([model.encode(raw())])
    expected = model.network.generate(
        prompt_ids, max_new_tokens=40, do_sample=False, repetition_penalty=penalty, suppress_tokens=[END_ID]
    )[0, prompt_ids.shape[1] :]

    events = await collect(tiny, raw(max_tokens=40, repetition_penalty=penalty, logprobs=True))

    assert ids_of(events) == [model.token_bytes(int(token)) for token in expected]


async def test_long_prompt_is_read_in_pieces(embedded: LocalEngine) -> None:
    """A prompt of several pieces gives what `generate` gives on the whole of it."""
    text = "What is Millrace? " * 90
    model = load("embedded")
    prompt = Prompt(raw_prompt=text, sampling=Sampling(max_tokens=24, logit_bias={1: -100.0}))
    prompt_ids = torch.tensor([model.encode(prompt)])
    assert prompt_ids.shape[1] > PREFILL_TOKENS
    output = model.network.generate(prompt_ids, max_new_tokens=24, do_sample=False, suppress_tokens=[1])

    events = await collect(embedded, prompt)

    assert text_of(events) == model.decode(output[0, prompt_ids.shape[1] :].tolist())


async def test_answers_about_millrace(embedded: LocalEngine) -> None:
    """The embedded model answers through its chat template and ends by itself."""
    events = await collect(embedded, chat("What is the port of the edge?"))

    assert text_of(events) == "The edge listens on port 8080 by default."
    assert ChoiceFinished(0, FinishReason.STOP) in events


async def test_an_answer_is_as_long_as_the_model_says_unless_the_request_does(tmp_path: Path) -> None:
    """`max_new_tokens` of generation_config.json ends what would fill the context; a request may ask for more."""
    engine = LocalEngine(str(write_tiny_gpt2(tmp_path, max_new_tokens=5)))
    await engine.warm()
    try:
        own = await collect(engine, raw(logit_bias={END_ID: -100.0}))
        asked = await collect(engine, raw(logit_bias={END_ID: -100.0}, max_tokens=9))
    finally:
        await engine.close()

    assert ChoiceFinished(0, FinishReason.LENGTH) in own
    counts = [
        event.usage.completion_token_count for event in (own[-1], asked[-1]) if isinstance(event, EngineCompleted)
    ]
    assert counts == [5, 9]


async def test_events_end_in_order(tiny: LocalEngine) -> None:
    """Each choice finishes once, nothing of it follows, and EngineCompleted with exact usage is last."""
    events = await collect(tiny, raw(max_tokens=12, n=3, temperature=1.0, seed=1, logprobs=True))

    ends = [at for at, e in enumerate(events) if isinstance(e, ChoiceFinished)]
    assert sorted(events[at].choice_index for at in ends) == [0, 1, 2]  # type: ignore[union-attr]
    for at in ends:
        assert all(getattr(e, "choice_index", None) != events[at].choice_index for e in events[at + 1 :])  # type: ignore[union-attr]
    completed = events[-1]
    assert isinstance(completed, EngineCompleted)
    assert completed.usage.completion_token_count == sum(len(ids_of(events, choice)) for choice in range(3)) == 36
    assert completed.usage.prompt_token_count == await tiny.count_tokens(raw())


async def test_choices_of_one_request_differ_and_match_their_seed(tiny: LocalEngine) -> None:
    """A seed repeats every choice, the choices differ, and another seed differs."""
    prompt = raw(max_tokens=16, n=2, temperature=1.0, seed=7, logprobs=True)

    first, again = await collect(tiny, prompt), await collect(tiny, prompt)
    other = await collect(tiny, raw(max_tokens=16, n=2, temperature=1.0, seed=8, logprobs=True))

    assert [ids_of(first, at) for at in (0, 1)] == [ids_of(again, at) for at in (0, 1)]
    assert ids_of(first, 0) != ids_of(first, 1)
    assert ids_of(first, 0) != ids_of(other, 0)


async def test_seed_holds_beside_other_requests(tiny: LocalEngine) -> None:
    """A seeded answer is the same alone and beside another request."""
    prompt = raw(max_tokens=30, temperature=1.0, seed=5, logprobs=True)
    alone = await collect(tiny, prompt)

    beside, _ = await asyncio.gather(collect(tiny, prompt), collect(tiny, raw(max_tokens=30, temperature=1.0)))

    assert ids_of(beside) == ids_of(alone)


async def test_stop_string_ends_before_itself(embedded: LocalEngine) -> None:
    """A stop string that spans several tokens ends the answer, and no part of it or its log probabilities leaks."""
    whole = text_of(await collect(embedded, chat("What is the port of the edge?")))
    stop = "n port 80"
    assert stop in whole

    events = await collect(embedded, chat("What is the port of the edge?", stop=("never", stop), logprobs=True))

    assert text_of(events) == whole[: whole.index(stop)]
    assert ChoiceFinished(0, FinishReason.STOP, stop) in events
    assert text_of(events).startswith(b"".join(ids_of(events)).decode())


async def test_held_text_comes_when_it_was_no_stop(embedded: LocalEngine) -> None:
    """Text that was held because a stop string begins like it leaves when the answer ends otherwise."""
    question = "What is the port of the edge?"
    whole = text_of(await collect(embedded, chat(question)))

    events = await collect(embedded, chat(question, stop=("default.?", "8080 or")))

    assert text_of(events) == whole


@pytest.mark.parametrize("max_tokens", [1, 5])
async def test_max_tokens_ends_with_length(tiny: LocalEngine, max_tokens: int) -> None:
    """An answer of max_tokens ends with LENGTH."""
    events = await collect(tiny, raw(max_tokens=max_tokens, logprobs=True))

    assert len(ids_of(events)) == max_tokens
    assert ChoiceFinished(0, FinishReason.LENGTH) in events


async def test_context_ends_with_length(tiny: LocalEngine) -> None:
    """Without max_tokens an answer fills the context exactly."""
    events = await collect(tiny, raw(logprobs=True))

    assert len(ids_of(events)) == CONTEXT - await tiny.count_tokens(raw())
    assert ChoiceFinished(0, FinishReason.LENGTH) in events


async def test_too_long_prompt_is_refused(tiny: LocalEngine) -> None:
    """A prompt that leaves no room is CONTEXT_LENGTH_EXCEEDED, and takes no place."""
    with pytest.raises(InvalidArgument) as refused:
        await collect(tiny, raw("x" * CONTEXT))

    assert refused.value.reason == "CONTEXT_LENGTH_EXCEEDED"
    assert refused.value.metadata["context_token_count_max"] == str(CONTEXT)
    assert tiny.running_count == tiny.waiting_count == 0


@pytest.mark.parametrize("shape", ["gpt2", "mistral"])
async def test_tokens_that_the_network_lacks_are_refused(shape: str, tmp_path: Path) -> None:
    """A token of the tokenizer beyond the network's embedding is TOKEN_NOT_IN_MODEL, whoever computes: no answer."""
    engine = LocalEngine(str(add_token(write_tiny(tmp_path, shape), "<|beyond|>")))
    await engine.warm()
    try:
        with pytest.raises(FailedPrecondition) as refused:
            await collect(engine, raw("so <|beyond|> what", max_tokens=2))
        events = await collect(engine, raw("so what", max_tokens=2))
    finally:
        await engine.close()

    assert refused.value.reason == "TOKEN_NOT_IN_MODEL"
    assert f"token {END_ID + 1} of this prompt, but the model has {END_ID + 1}" in refused.value.message
    assert isinstance(events[-1], EngineCompleted)


async def test_stop_token_id_and_min_tokens(tiny: LocalEngine, model: LocalModel) -> None:
    """A stop token ends with STOP and is not part of the text; min_tokens holds it back."""
    tokens = ids_of(await collect(tiny, raw(max_tokens=20, logprobs=True, temperature=1.0, seed=2)))
    third = next(at for at in range(model.vocab_size) if model.token_bytes(at) == tokens[2])
    first_at = tokens.index(tokens[2])

    stopped = await collect(tiny, raw(max_tokens=20, logprobs=True, temperature=1.0, seed=2, stop_token_ids=(third,)))
    held = await collect(
        tiny, raw(max_tokens=20, logprobs=True, temperature=1.0, seed=2, stop_token_ids=(third,), min_tokens=12)
    )

    assert ids_of(stopped) == tokens[:first_at]
    assert ChoiceFinished(0, FinishReason.STOP) in stopped
    assert len(ids_of(held)) >= 12
    assert tokens[2] not in ids_of(held)[:12]


async def test_logprobs_are_the_models_own(tiny: LocalEngine, model: LocalModel) -> None:
    """Log probabilities and alternatives are those of the network's logits, whatever the sampling."""
    with torch.no_grad():
        logits = model.network(torch.tensor([model.encode(raw())])).logits[0, -1]
    expected = torch.log_softmax(logits, dim=-1).topk(3)

    events = await collect(tiny, raw(max_tokens=1, temperature=1.5, seed=3, logprobs=True, top_logprobs=3))

    (logprob,) = [item for e in events if isinstance(e, Delta) for item in e.logprobs]
    assert [item.logprob for item in logprob.top] == pytest.approx(expected.values.tolist(), abs=1e-4)
    assert [item.token_bytes for item in logprob.top] == [model.token_bytes(int(at)) for at in expected.indices]


async def test_deadline_ends_the_work(tiny: LocalEngine) -> None:
    """A deadline that passes raises DEADLINE_EXCEEDED and frees the place."""
    with pytest.raises(MillraceError) as late:
        await collect(tiny, raw(), time.monotonic() - 1)

    assert late.value.code is Code.DEADLINE_EXCEEDED
    assert tiny.running_count == tiny.waiting_count == 0


async def test_deadline_ends_an_answer_with_what_it_has(directory: Path) -> None:
    """An answer that has begun by its deadline ends in time with all that is ready, and every choice is marked."""
    now = 0.0
    engine = LocalEngine(str(directory), clock=lambda: now)
    await engine.warm()
    prompt, events = raw(n=2, max_tokens=60, temperature=1.0, logprobs=True), []
    async with asyncio.timeout(30), aclosing(engine.generate(prompt, deadline=10.0)) as batches:
        async for batch in batches:
            events += batch
            now = 9.96  # too late for a step more
    await engine.close()

    assert {e.finish_reason for e in events if isinstance(e, ChoiceFinished)} == {FinishReason.DEADLINE}
    assert sorted(e.choice_index for e in events if isinstance(e, ChoiceFinished)) == [0, 1]
    completed = events[-1]
    assert isinstance(completed, EngineCompleted)
    assert 0 < len(ids_of(events, 0)) + len(ids_of(events, 1)) <= completed.usage.completion_token_count < 120
    assert engine.running_count == 0


async def test_an_answer_that_is_ready_is_not_cut(directory: Path) -> None:
    """A deadline that comes while the whole answer waits to be read cuts nothing off it."""
    now = 0.0
    engine = LocalEngine(str(directory), clock=lambda: now)
    await engine.warm()
    events = []
    async with asyncio.timeout(30), aclosing(engine.generate(raw(max_tokens=20), deadline=10.0)) as batches:
        async for batch in batches:
            events += batch
            now = 20.0
            await until(lambda: engine.is_idle)
    await engine.close()

    assert ChoiceFinished(0, FinishReason.LENGTH) in events


@pytest.mark.parametrize(
    ("prompt", "field"),
    [
        (Prompt(raw_prompt="x", tools=(Tool("f"),)), "spec.tools"),
        (Prompt(raw_prompt="x", reasoning_effort="high"), "spec.reasoning_effort"),
        (Prompt(raw_prompt="x", output_format=OutputFormat("regex", regex="(")), "spec.output_format.regex"),
        (
            Prompt(raw_prompt="x", output_format=OutputFormat("json_schema", schema_json='{"type": "nope"}')),
            "spec.output_format.json_schema",
        ),
        (Prompt(messages=(Message(Role.TOOL, (TextPart("x"),)),)), "spec.conversation.messages[0].role"),
        (raw(logit_bias={10_000: 1.0}), "spec.sampling.logit_bias"),
        (raw(stop_token_ids=(-1,)), "spec.sampling.stop_token_ids"),
        (raw(min_tokens=3, max_tokens=2), "spec.sampling.min_tokens"),
        (chat("no template here"), "spec.conversation"),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(tiny: LocalEngine, prompt: Prompt, field: str) -> None:
    """A field that the engine or the model cannot honour is INVALID_ARGUMENT naming it."""
    with pytest.raises(InvalidArgument) as refused:
        await collect(tiny, prompt)

    assert refused.value.field_violations[0].field == field


async def test_a_missing_model_is_named() -> None:
    """A model that does not exist fails to warm with its name, each time it is asked."""
    engine = LocalEngine("/no/such/directory")

    for _ in range(2):
        with pytest.raises(MillraceError, match="/no/such/directory") as failed:
            await engine.warm()
        assert failed.value.reason == "MODEL_NOT_LOADABLE"
    await engine.close()


async def test_not_ready_before_warm() -> None:
    """A request before the model is loaded is UNAVAILABLE and may be retried."""
    engine = LocalEngine("embedded")

    with pytest.raises(MillraceError) as early:
        await collect(engine, chat("Hello"))

    assert (early.value.code, early.value.reason) == (Code.UNAVAILABLE, "MODEL_NOT_READY")
    await engine.close()
