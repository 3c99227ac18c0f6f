"""Networks that OpenVINO computes."""

from __future__ import annotations

import gc
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

from services.inference.engines.local import graph_ops, int8_products, paged_cache, probe, serving
from services.inference.engines.local.attention import UnknownAttention
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.extents import Extent
from services.inference.engines.local.linears import PackedLinear
from services.inference.engines.local.loading import Progress
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Copy, Plan, Row
from services.inference.engines.local.sequence import Sequence
from services.inference.engines.local.serving import serve
from services.inference.engines.local.traced_node import UnknownOperation
from tests.fakes.tiny_gpt2 import END_ID, write_tiny, write_tiny_of
from tests.inference.local_batch import Bench

SHAPES = ("gpt2", "llama", "qwen2", "qwen3")
# What the last step of the comparison reads: three tokens of each prompt, each with all blocks up to it.
LAST_BLOCKS = 8


def compile_tiny(folder: Path, shape: str, *, int8: bool) -> LocalModel:
    """A tiny model of a shape, compiled."""
    model = load(str(write_tiny(folder, shape)))
    probe.prepare(model.network)
    model.network = Compiled(model.network, int8=int8, threads=2)
    return model


@pytest.fixture(params=["groups", "rows"])
def rounded_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 8 bits the runtime rounds groups, or we whole rows: what a processor has tiles for, others compute too."""
    if request.param == "rows" and not torch.cpu._is_vnni_supported():
        pytest.skip("without VNNI sums of whole numbers overflow")
    monkeypatch.setattr(int8_products, "has_tiles", lambda: request.param == "rows")
    monkeypatch.setattr(int8_products, "TILED_MIN", 0)


@pytest.mark.usefixtures("rounded_by")
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


@pytest.mark.usefixtures("rounded_by")
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_near(shape: str, tmp_path: Path) -> None:
    """In 8 bits the logits of a prompt lie near those of float32."""
    plain = load(str(write_tiny(tmp_path, shape)))
    probe.prepare(plain.network)

    probe.compare(plain.network, Compiled(plain.network, int8=True, threads=1), int8=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_rounded_rows_meet_weights_as_whole_numbers(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime makes a product of whole numbers of every product that is written for it."""
    monkeypatch.setattr(int8_products, "has_tiles", lambda: True)
    monkeypatch.setattr(int8_products, "TILED_MIN", 0)
    network: Any = compile_tiny(tmp_path, shape, int8=True).network

    graph = network._request.get_compiled_model().get_runtime_model()
    kinds = [node.get_rt_info() for node in graph.get_ops()]
    products = [kind["primitiveType"].value for kind in kinds if kind["layerType"].value == "FullyConnected"]
    assert len(products) > 2 * network.config.num_hidden_layers
    assert all(kind.endswith("i8") for kind in products), products


def test_pieces_of_a_prompt_draw_nothing(tmp_path: Path) -> None:
    """A step that only reads a prompt on computes no logits."""
    bench = Bench(compile_tiny(tmp_path, "llama", int8=True), prefill_tokens=8)
    reader = bench.add([1] * 20, max_tokens=1)

    steps = [bool(reader.tokens()) for _ in range(3) if bench.step()]

    assert steps == [False, False, True]


# Of each family what it needs beside the usual sizes, for operations that no model of SHAPES has.
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128}
ONE_KIND = {"num_attention_heads": 4, "max_position_embeddings": 128}
FAMILIES: dict[str, dict[str, Any]] = {
    "apertus": HEADS,
    "arcee": HEADS | {"head_dim": 8},
    "cohere": HEADS | {"logit_scale": 0.5},
    "ernie4_5": HEADS | {"head_dim": 8},
    "gemma": HEADS | {"head_dim": 8},
    "glm": HEADS | {"head_dim": 8},
    "glm4": HEADS | {"head_dim": 8},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gpt_neox": ONE_KIND | {"rotary_pct": 0.25},
    "helium": HEADS | {"head_dim": 8},
    "olmo": HEADS,
    "opt": ONE_KIND | {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": ONE_KIND,
    "phi3": HEADS | {"sliding_window": None},
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_families_answer_as_generate_does(kind: str, tmp_path: Path) -> None:
    """A model of a family is compiled, and draws the tokens that the model's own code draws, beside others."""
    write_tiny_of(tmp_path, kind, **FAMILIES[kind])
    own, model = load(str(tmp_path)), load(str(tmp_path))
    probe.prepare(model.network)
    model.network = Compiled(model.network, int8=False, threads=2)
    bench = Bench(model)
    prompts = [[(5 * at + 2) % END_ID for at in range(count)] for count in (3, 45, 70)]

    readers = [bench.add(ids, max_tokens=20, temperature=0) for ids in prompts]
    bench.finish()

    for ids, reader in zip(prompts, readers, strict=True):
        given = torch.tensor([ids])
        made = own.network.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=20, do_sample=False)
        expected = [own.token_bytes(token_id) for token_id in made[0, len(ids) :].tolist() if token_id != END_ID]
        assert [token for token in reader.tokens() if token != own.token_bytes(END_ID)] == expected


ATEN = torch.ops.aten
ROWS = torch.tensor([[0.5, -1.5, 2.0], [1.0, 0.25, -3.0]])


@pytest.mark.parametrize(
    ("target", "source", "arguments", "options"),
    [
        (ATEN.mean.dim, ROWS, ([-1],), {"dtype": torch.float64}),
        (ATEN.softplus.default, ROWS, (2.0,), {}),
        (ATEN.add.Tensor, ROWS, (1.0,), {"alpha": 2}),
        (ATEN.repeat_interleave.self_int, ROWS, (2, 0), {}),
        (ATEN.mul.Tensor, torch.arange(3), (0.5,), {}),  # the runtime would round it
        (ATEN.div.Tensor, torch.arange(3), (2,), {}),
        (ATEN.cos.default, torch.arange(3), (), {}),
    ],
    ids=str,
)
def test_what_is_not_written_is_refused(
    target: Any, source: torch.Tensor, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    """An operation that is asked for more than what is read of it is not known, however well its name is."""
    traced = torch.fx.Graph()
    given = traced.placeholder("given")
    given.meta["val"] = source
    node = traced.call_function(target, (given, *arguments), options)
    node.meta["val"] = target(source, *arguments, **options)

    with pytest.raises(UnknownOperation, match="with such arguments is not known"):
        graph_ops.Graph({"given": source}, {}, int8=False).add(node)


def test_little_is_reshaped(tmp_path: Path) -> None:
    """A GPT-2 has four values of a layer in another shape, of fourteen that its own code asks for."""
    network: Any = compile_tiny(tmp_path, "gpt2", int8=False).network

    graph = network._request.get_compiled_model().get_runtime_model()
    count = sum(node.get_rt_info()["layerType"].value == "Reshape" for node in graph.get_ops())
    assert count <= 4 * network.config.num_hidden_layers + 3


def test_other_blocks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the runtime keeps keys and values in blocks of another size than ours, it is not used."""
    monkeypatch.setattr(paged_cache, "BLOCK_TOKENS", 16)

    with pytest.raises(UnknownOperation, match="blocks of 32 positions, not of 16"):
        compile_tiny(tmp_path, "llama", int8=False)


@pytest.mark.parametrize("misread", range(LAST_BLOCKS))
def test_the_comparison_sees_every_block(misread: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that read one of their blocks from another place than it was written to are found out."""
    model = load(str(write_tiny(tmp_path, "llama")))
    probe.prepare(model.network)
    compiled = Compiled(model.network, int8=False, threads=1)
    step = paged_cache.PagedCache.step

    def misreading(cache: paged_cache.PagedCache, rows: list[Row]) -> paged_cache.PagedStep:
        said = step(cache, rows)
        blocks = said.inputs["block_indices"]
        if len(blocks) == LAST_BLOCKS and all(row.draft_ids for row in rows):
            blocks[misread] = 0
        return said

    probe.compare(model.network, compiled, int8=False)
    monkeypatch.setattr(paged_cache.PagedCache, "step", misreading)

    with pytest.raises(UnknownAttention, match="logits differ"):
        probe.compare(model.network, compiled, int8=False)


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
    (said,) = (record for record in caplog.records if "torch computes this model" in record.getMessage())
    assert said.levelname == "WARNING"
    assert said.getMessage().endswith(": aten.erfinv.default is not known")


def test_wrong_answers_are_left_to_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A model whose compiled form answers otherwise than its own code does is served by torch, and that form let go."""
    caplog.set_level("INFO")
    left: list[Compiled] = []

    def collect() -> None:
        gc.collect()
        left.extend(one for one in gc.get_objects() if type(one) is Compiled)

    monkeypatch.setattr(serving, "give_memory_back", collect)
    monkeypatch.setitem(graph_ops.WRITERS, "aten.relu.default", graph_ops.WRITERS["aten.neg.default"])
    model = load(str(write_tiny(tmp_path, "gpt2")))
    model.network.transformer.ln_f = nn.Sequential(model.network.transformer.ln_f, nn.ReLU())

    serve(model, 4, 16)

    assert isinstance(model.network.lm_head, PackedLinear)
    assert any("its logits differ" in record.getMessage() for record in caplog.records)
    assert not left


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
    (said,) = (record for record in caplog.records if "torch computes this model: " in record.getMessage())
    assert said.levelname == "INFO"


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
    """A model is compiled and computes a step, and nothing of what counts imports of OpenVINO is loaded, no connection
    is opened, and no file comes into the home directory.
    """
    home, network = tmp_path / "home", write_tiny(tmp_path / "model", "llama")
    home.mkdir()
    program = f"""
import sys
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event in ("socket.connect", "socket.getaddrinfo") else None)
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.model import load
from services.inference.engines.local.serving import serve
from services.inference.engines.local.traced_node import UnknownOperation
model = load({str(network)!r})
serve(model, 1, 1)
assert isinstance(model.network, Compiled)
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
assert not opened, opened
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "HOME": str(home)})

    assert not list(home.iterdir())


def test_a_thread_keeps_its_stack_for_signals(tmp_path: Path) -> None:
    """What one thread compiled another lets go, and signals still reach the first one."""
    network = write_tiny(tmp_path, "llama")
    program = f"""
import faulthandler, gc, signal, threading
from services.inference.engines.local import probe
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.model import load
faulthandler.enable()  # has Python's handlers run on a stack for signals
told = []
signal.signal(signal.SIGHUP, lambda *_: told.append("hung up"))
model = load({str(network)!r})
probe.prepare(model.network)
held = [Compiled(model.network, int8=False, threads=1)]
thread = threading.Thread(target=lambda: (held.clear(), gc.collect()))
thread.start()
thread.join()
signal.raise_signal(signal.SIGHUP)
assert told
"""
    subprocess.run([sys.executable, "-c", program], check=True)
