"""Networks that OpenVINO computes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import GPT2LMHeadModel

from services.inference.engines.local import graph_ops, probe
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.extents import Extent
from services.inference.engines.local.linears import PackedLinear
from services.inference.engines.local.loading import Progress
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Copy, Plan, Row
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


@pytest.mark.parametrize("shape", SHAPES)
def test_int8_logits_do_not_depend_on_company(shape: str, tmp_path: Path) -> None:
    """What is rounded to 8 bits is rounded alone: a token's logits are the same beside others, to the last bit."""
    runner = Runner(compile_tiny(tmp_path, shape, int8=True).network, 512)
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


def test_unknown_operations_are_left_to_torch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model with an operation that is not known is served all the same, by torch, and the log says so."""
    caplog.set_level("INFO")
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
    monkeypatch.setitem(graph_ops.WRITERS, "aten.relu.default", graph_ops.WRITERS["aten.neg.default"])
    model = load(str(write_tiny(tmp_path, "gpt2")))
    model.network.transformer.ln_f = nn.Sequential(model.network.transformer.ln_f, nn.ReLU())

    serve(model, 4, 16)

    assert isinstance(model.network.lm_head, PackedLinear)
    assert any("its logits differ" in record.getMessage() for record in caplog.records)


def test_without_the_runtime_torch_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there is no OpenVINO for the platform, torch serves the model, and the log says so."""
    caplog.set_level("INFO")
    for name in ("compiled", "graph_ops", "paged_cache", "openvino_runtime"):
        monkeypatch.delitem(sys.modules, f"services.inference.engines.local.{name}")
    monkeypatch.setitem(sys.modules, "openvino", None)
    model = load(str(write_tiny(tmp_path, "llama")))

    serve(model, 4, 16)

    assert isinstance(model.network.lm_head, PackedLinear)
    assert any("torch computes this model: " in record.getMessage() for record in caplog.records)


def test_models_are_compiled(tmp_path: Path) -> None:
    """A model is compiled when it is loaded, which counts as its loading."""
    model, progress = load(str(write_tiny(tmp_path, "llama"))), Progress("tiny")

    serve(model, 4, 16, progress=progress)

    assert isinstance(model.network, Compiled)
    assert progress.share == 0.5


@pytest.mark.parametrize("int8", [False, True])
def test_copied_positions_are_what_they_were(int8: bool, tmp_path: Path) -> None:
    """A sequence that goes on from copied positions gives the logits of the one that computed them."""
    runner = Runner(compile_tiny(tmp_path, "qwen3", int8=int8).network, 512)
    ids = [(5 * at + 2) % END_ID for at in range(81)]
    first, second = (Sequence(ids, 81, 81, extent=Extent(start, 128)) for start in (0, 256))
    runner.run(Plan([Row(first, 0, 45)]))
    _, wanted = runner.run(Plan([Row(first, 45, 36)]))

    _, found = runner.run(Plan([Row(second, 45, 36)], [Copy(0, 256, 45)]))

    assert torch.equal(found, wanted)


def test_the_runtime_tells_nobody(tmp_path: Path) -> None:
    """Nothing of what counts imports of OpenVINO is loaded, and no file of it comes into the home directory."""
    program = """
import sys
from services.inference.engines.local.openvino_runtime import openvino
assert openvino.Core().available_devices
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "HOME": str(tmp_path)})

    assert not list(tmp_path.iterdir())
