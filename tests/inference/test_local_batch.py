"""The batch on real networks: whatever happens around it, an answer is what the model alone would have given."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.errors import Internal
from services.inference.engines.local.attention import UnknownAttention
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.probe import prepare
from services.inference.engines.local.serving import serve
from services.inference.engines.local.turns import Turns
from services.inference.generation import ChoiceFinished, EngineCompleted, FinishReason
from tests.fakes.tiny_gpt2 import END_ID, write_tiny
from tests.inference.local_batch import Bench, Reader, random_prompts, tiny_model

REQUEST_COUNT = 200
ENDLESS = {END_ID: -100.0}
BROKEN_ID = 7


@pytest.fixture(scope="module", params=["gpt2", "llama", "qwen2", "qwen3"])
def shape(request: pytest.FixtureRequest) -> str:
    """Of a model."""
    return str(request.param)


@pytest.fixture(scope="module", params=["torch", "openvino"])
def computing(request: pytest.FixtureRequest) -> str:
    """Who computes."""
    return str(request.param)


@pytest.fixture(scope="module")
def model(shape: str, computing: str, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A tiny model of each shape, computed by each."""
    return tiny_model(tmp_path_factory.mktemp(shape), shape, computing)


@pytest.fixture(scope="module")
def gpt2(computing: str, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """The tiny GPT-2, computed by each."""
    return tiny_model(tmp_path_factory.mktemp("gpt2"), "gpt2", computing)


Asked = list[tuple[list[int], int, list[bytes]]]


@pytest.fixture(scope="module")
def asked(shape: str, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """Prompts, lengths of answers, and what `generate` answers to each alone."""
    model = tiny_model(tmp_path_factory.mktemp(shape), shape, "torch")
    rng = random.Random(5)
    asked = []
    for prompt in random_prompts(REQUEST_COUNT, rng, END_ID):
        count = rng.randint(1, 30)
        ids = torch.tensor([prompt])
        whole = model.network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            suppress_tokens=[END_ID],
            pad_token_id=END_ID,
        )
        asked.append((prompt, count, [model.token_bytes(at) for at in whole[0, len(prompt) :].tolist()]))
    return asked


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reuses_prefixes": False},
        {"cache_tokens": 12 * EXTENT_TOKENS_MIN, "growth_tokens": 0},
        {"cache_tokens": 12 * EXTENT_TOKENS_MIN, "growth_tokens": 0, "reuses_prefixes": False, "prefill_tokens": 5},
    ],
    ids=["plain", "no-reuse", "preempted", "preempted-no-reuse"],
)
def test_greedy_equals_generate(model: LocalModel, asked: Asked, options: dict[str, Any]) -> None:
    """200 requests at random times, some cancelled, get the tokens of `generate` alone."""
    bench, rng = Bench(model, **options), random.Random(6)
    readers: list[Reader] = []
    doomed: list[Reader] = []
    for prompt, count, _ in asked:
        readers.append(bench.add(prompt, max_tokens=count, logit_bias=ENDLESS))
        if rng.random() < 0.2:
            doomed.append(bench.add(prompt, max_tokens=30))
        while rng.random() < 0.7:
            bench.step()
        if doomed and rng.random() < 0.3:
            bench.drop(doomed.pop(rng.randrange(len(doomed))))
    bench.finish()

    assert [reader.tokens() for reader in readers] == [tokens for _, _, tokens in asked]
    assert bool(bench.scheduler.preemption_count) == ("growth_tokens" in options)
    reused = sum(job.cached_count for job in bench.jobs)
    assert bool(reused) == bench.reuses_prefixes


def test_seeded_answers_are_the_same_in_company(gpt2: LocalModel) -> None:
    """A seed gives the same answer alone, in a full batch, and after a preemption, whatever cuts the others ask for."""
    rng = random.Random(8)
    prompts = random_prompts(24, rng, END_ID)
    cuts: list[dict[str, object]] = [{}, {"top_p": 0.8}, {"top_k": 20}, {"min_p": 0.02}, {"presence_penalty": 0.5}]
    asks = [{"temperature": 0.9, "seed": at, "max_tokens": 25, **cuts[at % len(cuts)]} for at in range(24)]
    alone = []
    for prompt, ask in zip(prompts, asks, strict=True):
        bench = Bench(gpt2)
        alone.append(bench.add(prompt, **ask))
        bench.finish()

    together = Bench(gpt2, cache_tokens=12 * EXTENT_TOKENS_MIN, growth_tokens=0)
    readers = [together.add(prompt, **ask) for prompt, ask in zip(prompts, asks, strict=True)]
    together.finish()

    assert together.scheduler.preemption_count
    assert [reader.tokens() for reader in readers] == [reader.tokens() for reader in alone]


def test_choices_share_their_prompt(gpt2: LocalModel) -> None:
    """The choices of one request compute the prompt once, and each is what its seed gives alone."""
    prompt = random_prompts(1, random.Random(9), END_ID)[0] + [7] * 30
    bench = Bench(gpt2, reuses_prefixes=False)
    reader = bench.add(prompt, n=4, seed=3, temperature=1.0, max_tokens=8, logit_bias=ENDLESS)
    computed = 0
    while bench.batch.scheduler.waiting or bench.batch.scheduler.running:
        before = {one: one.computed_count for one in bench.scheduler.running}
        bench.step()
        computed += sum(one.computed_count - before.get(one, 0) for one in bench.scheduler.running if one in before)
    tokens = [reader.tokens(at) for at in range(4)]

    assert len({tuple(one) for one in tokens}) == 4
    assert all(len(one) == 8 for one in tokens)
    assert isinstance(reader.events[-1], EngineCompleted)
    assert reader.events[-1].usage.completion_token_count == 32
    assert sum(one.reused_count for one in bench.scheduler.running) == 0
    assert computed < 2 * len(prompt) + 32


def test_reader_that_falls_behind_stops_its_own_decode_only(gpt2: LocalModel) -> None:
    """A full box pauses one answer; another goes on, and takes the place in the cache where there is no other."""
    bench = Bench(gpt2, cache_tokens=2 * EXTENT_TOKENS_MIN, growth_tokens=0)
    slow = bench.add([1, 2, 3], max_tokens=40, logit_bias=ENDLESS)
    for _ in range(5):
        bench.step()
    slow.is_behind = True
    told = len(slow.tokens())
    other = bench.add([4, 5, 6], max_tokens=50, logit_bias=ENDLESS)
    while bench.step():
        pass

    assert len(other.tokens()) == 50
    assert len(slow.tokens()) == told

    slow.is_behind = False
    bench.finish()
    assert len(slow.tokens()) == 40


def test_steps_tell_what_was_in_them(gpt2: LocalModel) -> None:
    """Of each step it is told how many answers decoded, and how many tokens were computed."""
    bench = Bench(gpt2, prefill_tokens=24)

    bench.add([1] * 30, max_tokens=3, min_tokens=3)
    bench.finish()

    assert bench.told == [(0, 24), (0, 6), (1, 1), (1, 1)]


def test_cancel_frees_the_place_at_once(gpt2: LocalModel) -> None:
    """A request that is dropped holds no position of the cache when the next step is planned."""
    bench = Bench(gpt2, reuses_prefixes=False)
    reader = bench.add([1] * 50, n=3, max_tokens=40)
    for _ in range(6):
        bench.step()
    assert bench.scheduler.used_token_count

    bench.drop(reader)

    assert bench.scheduler.used_token_count == 0
    assert bench.scheduler.extents.free_token_count == bench.scheduler.extents.token_count
    assert not bench.step()


def test_ten_thousand_requests_leak_nothing(gpt2: LocalModel) -> None:
    """After 10,000 requests with random lengths, stops and cancels every position is free or kept for reuse."""
    bench, rng = Bench(gpt2, cache_tokens=1024, prefill_tokens=64), random.Random(10)
    prompts = random_prompts(100, rng, END_ID)
    live: list[Reader] = []
    for _ in range(10_000):
        stop = (rng.choice("abc\n"),) if rng.random() < 0.5 else ()
        live.append(bench.add(rng.choice(prompts), max_tokens=rng.randint(1, 3), stop=stop, logprobs=False))
        while len(bench.scheduler.waiting) > 8:
            bench.step()
        if rng.random() < 0.3:
            bench.drop(live.pop(rng.randrange(len(live))))
        del live[:-20], bench.jobs[:-200]
    bench.finish()

    assert not bench.batch._answers
    kept = sum(one.extent.size for one in bench.scheduler._kept if one.extent)
    assert kept + bench.scheduler.extents.free_token_count == bench.scheduler.extents.token_count


@pytest.fixture(scope="module")
def broken(computing: str, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    """A model that computes NaN for whatever comes after one token."""
    model = tiny_model(tmp_path_factory.mktemp("broken"), "llama", "torch")
    with torch.no_grad():
        model.network.get_input_embeddings().weight[BROKEN_ID] = torch.nan
    if computing == "openvino":
        prepare(model.network)
        model.network = Compiled(model.network, int8=False, threads=1)
    return model


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9}], ids=str)
def test_what_is_no_number_ends_one_request_only(broken: LocalModel, sampling: dict[str, Any]) -> None:
    """It gets an error; who runs beside it, or has its place after it, gets the answer that it gets alone."""
    asked: dict[str, Any] = {"max_tokens": 12, "seed": 1, "logit_bias": ENDLESS, **sampling}
    prompt, longer = [1, 2, 3, 4, 5], [1, 2, 3, 4, 5] * 5
    bench = Bench(broken)
    alone = bench.add(prompt, **asked)
    bench.finish()
    bench = Bench(broken, growth_tokens=0)

    spoilt = bench.add([1, 2, 3, 4] * 7 + [BROKEN_ID], **asked)
    beside = bench.add(prompt, **asked)
    bench.finish()
    after, neighbour = bench.add(prompt, **asked), bench.add(longer, **{**asked, "max_tokens": 7})
    bench.finish()

    assert isinstance(spoilt.error, Internal)
    assert (spoilt.error.reason, spoilt.events) == ("LOGITS_NOT_FINITE", [])
    assert beside.tokens() == after.tokens() == alone.tokens()
    assert len(neighbour.tokens()) == 7


def test_finish_reasons(gpt2: LocalModel) -> None:
    """An answer ends with LENGTH at its bound or the context's, and with STOP at the end token."""
    bench = Bench(gpt2)
    bounded = bench.add([1, 2], max_tokens=3, logit_bias=ENDLESS)
    ended = bench.add([1, 2], max_tokens=3, logit_bias={END_ID: 100.0})
    full = bench.add([1] * 120, logit_bias=ENDLESS)
    bench.finish()

    assert ChoiceFinished(0, FinishReason.LENGTH) in bounded.events
    assert ChoiceFinished(0, FinishReason.STOP) in ended.events
    assert ChoiceFinished(0, FinishReason.LENGTH) in full.events
    assert len(full.tokens()) == 8


def test_a_window_is_served_without_a_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model whose attention the batch does not know takes turns instead, says so, and keeps its own attention."""
    model = load(str(write_tiny(tmp_path, "mistral")))
    with pytest.raises(UnknownAttention, match="window"):
        prepare(model.network)

    serving = serve(model, 4, 16)

    assert isinstance(serving.work, Turns)
    assert "one request at a time" in caplog.text
    assert model.network.config._attn_implementation == "sdpa"
