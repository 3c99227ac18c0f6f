"""Networks that ONNX Runtime computes between their attentions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from services.inference.engines.local import graph_ops, probe, serving
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.extents import Extent
from services.inference.engines.local.kv_cache import KVCache
from services.inference.engines.local.linears import PackedLinear
from services.inference.engines.local.loading import Progress
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Plan, Row
from services.inference.engines.local.sequence import Sequence
from services.inference.engines.local.serving import serve
from tests.fakes.tiny_gpt2 import END_ID, write_tiny
from tests.inference.local_batch import Bench

SHAPES = ("gpt2", "llama", "qwen2", "qwen3")


def compile_tiny(folder: Path, shape: str, *, int8: bool) -> LocalModel:
    """A tiny model of a shape, compiled."""
    model = load(str(write_tiny(folder, shape)))
    probe.prepare(model.network)
    model.network = Compiled(model.network, int8=int8, threads=2)
    return model


def prompts(count: int, seed: int = 1) -> list[list[int]]:
    """Prompts of up to 40 tokens."""
    rng = random.Random(seed)
    return [[rng.randrange(END_ID) for _ in range(rng.randint(1, 40))] for _ in range(count)]


@pytest.mark.parametrize("shape", SHAPES)
def test_compiled_model_answers_like_generate(shape: str, tmp_path: Path) -> None:
    """A compiled model gives the tokens of `generate`, while others join and prompts are read in pieces."""
    plain = load(str(write_tiny(tmp_path, shape)))
    options = {"max_new_tokens": 20, "do_sample": False, "suppress_tokens": [END_ID], "pad_token_id": END_ID}
    wanted = []
    for prompt in prompts(20):
        ids = torch.tensor([prompt])
        whole = plain.network.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :]
        wanted.append([plain.token_bytes(at) for at in whole.tolist()])
    bench = Bench(compile_tiny(tmp_path, shape, int8=False))

    readers = [bench.add(prompt, max_tokens=20, logit_bias={END_ID: -100.0}) for prompt in prompts(20)]
    bench.finish()

    assert [reader.tokens() for reader in readers] == wanted


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_logits_do_not_depend_on_company(shape: str, tmp_path: Path) -> None:
    """In 8 bits a token's logits are the same alone and beside others, to the last bit."""
    runner = Runner(compile_tiny(tmp_path, shape, int8=True).network, KVCache(512))
    rng = random.Random(2)
    rows = []
    for at in range(8):
        ids = [rng.randrange(END_ID) for _ in range(30)]
        rows.append(Row(Sequence(ids, 30, 31, extent=Extent(at * 32, 32)), 29, 1))
        runner.run(Plan([Row(rows[-1].sequence, 0, 29)]))

    _, together = runner.run(Plan(rows))

    for at, row in enumerate(rows):
        _, alone = runner.run(Plan([row]))
        assert torch.equal(alone[0], together[at])


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_near(shape: str, tmp_path: Path) -> None:
    """In 8 bits the logits of a prompt lie near those of float32."""
    plain = load(str(write_tiny(tmp_path, shape)))
    probe.prepare(plain.network)

    probe.compare(plain.network, Compiled(plain.network, int8=True, threads=1), int8=True)


def test_pieces_of_a_prompt_draw_nothing(tmp_path: Path) -> None:
    """A step that only reads a prompt on computes no logits."""
    bench = Bench(compile_tiny(tmp_path, "llama", int8=True), prefill_tokens=8)
    reader = bench.add([1] * 20, max_tokens=1)

    steps = [bool(reader.tokens()) for _ in range(3) if bench.step()]

    assert steps == [False, False, True]


class Odd(GPT2LMHeadModel):
    """A network with an operation that is not known."""

    def forward(self, *args: Any, **options: Any) -> Any:
        """As a GPT-2, and something strange at the end."""
        output = super().forward(*args, **options)
        output.logits = torch.erfinv(torch.tanh(output.logits))
        return output


def test_unknown_operations_are_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model with an operation that is not known is served all the same, by torch, and the log says so."""
    caplog.set_level("INFO")
    monkeypatch.setattr(serving, "COMPILED_PARAMETER_COUNT_MIN", 0)
    model = load(str(write_tiny(tmp_path, "gpt2")))
    model.network.__class__ = Odd

    serve(model, 4, 16)

    assert isinstance(model.network.lm_head, PackedLinear)
    assert any("aten.erfinv.default is not known" in record.getMessage() for record in caplog.records)


def test_wrong_answers_are_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose compiled form answers otherwise than its own code does is served by torch."""
    caplog.set_level("INFO")
    monkeypatch.setattr(serving, "COMPILED_PARAMETER_COUNT_MIN", 0)
    monkeypatch.setitem(graph_ops.WRITERS, "aten.relu.default", graph_ops.WRITERS["aten.neg.default"])
    model = load(str(write_tiny(tmp_path, "gpt2")))
    model.network.transformer.ln_f = nn.Sequential(model.network.transformer.ln_f, nn.ReLU())

    serve(model, 4, 16)

    assert isinstance(model.network.lm_head, PackedLinear)
    assert any("its logits differ" in record.getMessage() for record in caplog.records)


def test_large_models_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is worth the time is compiled when it is loaded, and its pieces count as its loading."""
    monkeypatch.setattr(serving, "COMPILED_PARAMETER_COUNT_MIN", 0)
    model, progress = load(str(write_tiny(tmp_path, "llama"))), Progress("tiny")

    serve(model, 4, 16, progress=progress)

    assert isinstance(model.network, Compiled)
    assert progress.share == 0.5
