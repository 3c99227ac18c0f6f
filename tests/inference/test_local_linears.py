"""Linear layers laid out for the processor, in float32 and in 8 bits."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from services.inference.engines.local.batch import Batch
from services.inference.engines.local.linears import Int8Linear, PackedLinear, pack, padded_count
from services.inference.engines.local.model import load
from services.inference.engines.local.serving import serve
from tests.fakes.tiny_gpt2 import END_ID, write_tiny
from tests.inference.local_batch import Bench


def inputs(rows: int, seed: int = 1) -> torch.Tensor:
    """Rows of very different sizes, shape (1, rows, 48)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, rows, 48, generator=generator) * torch.logspace(-3, 2, rows)[:, None]


def test_steps_of_any_size_are_computed_in_few() -> None:
    """Steps of 1 to 512 rows need 56 kernels of each layer, and at most an eighth more rows than they have."""
    sizes = {count: padded_count(count) for count in range(1, 513)}

    assert len(set(sizes.values())) == 56
    assert all(count <= size <= count + count // 8 for count, size in sizes.items())
    assert all(sizes[count] == count for count in (*range(17), 24, 32, 64, 512) if count)


@pytest.mark.parametrize("rows", [0, 1, 7, 13, 33, 64])
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_is_the_same_layer(rows: int, bias: bool) -> None:
    """In float32 only the order of sums differs."""
    layer = nn.Linear(48, 80, bias=bias)

    packed = PackedLinear(layer.weight.detach(), layer.bias.detach() if bias else None)

    assert torch.allclose(packed(inputs(rows)), layer(inputs(rows)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_int8_is_near(bias: bool) -> None:
    """In 8 bits each row keeps its direction, however large its neighbours are."""
    layer = nn.Linear(48, 80, bias=bias)
    wanted = layer(inputs(9)) - (layer.bias if bias else 0)

    found = Int8Linear(layer.weight.detach(), layer.bias.detach() if bias else None)(inputs(9))
    found = found - (layer.bias if bias else 0)

    assert (torch.cosine_similarity(found, wanted, dim=-1) > 0.999).all()


@torch.inference_mode()
def test_int8_rows_do_not_know_each_other() -> None:
    """A row's numbers are the same, bit for bit, alone and beside rows a thousand times larger."""
    layer = Int8Linear(torch.randn(80, 48, generator=torch.Generator().manual_seed(3)), None)
    rows = inputs(33)

    together = layer(rows)

    for at in range(33):
        assert torch.equal(layer(rows[:, at : at + 1])[:, 0], together[:, at])


@torch.inference_mode()
def test_without_vnni_sums_cannot_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a processor adds two products in 16 bits: weights have 7 bits there, and are as near as those allow."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    weight = torch.randn(80, 48, generator=torch.Generator().manual_seed(3))
    layer = Int8Linear(weight, None)

    assert int(layer._weight.to_dense().abs().max()) == 63
    assert float((layer.weight - weight).abs().max() / weight.abs().max()) < 0.5 / 63 + 1e-6


def test_every_linear_layer_is_replaced() -> None:
    """Both kinds of layer that language models have are replaced, and nothing else."""
    inner = nn.Sequential(nn.Linear(48, 48), nn.LayerNorm(48))
    network = nn.Sequential(inner, Conv1D(80, 48))
    wanted = network(inputs(3))

    pack(network, int8=False)

    assert isinstance(inner[0], PackedLinear)
    assert isinstance(inner[1], nn.LayerNorm)
    assert isinstance(network[1], PackedLinear)
    assert torch.allclose(network(inputs(3)), wanted, rtol=1e-5, atol=1e-5)


class Block(nn.Module):
    """A feed-forward block as Llama has it; `late` makes the activation of something else."""

    def __init__(self, late: bool) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(48, 96), nn.Linear(48, 96), nn.Linear(96, 48)
        self.act_fn = nn.SiLU()
        self._late = late

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Shape (..., 48) to the same."""
        gate, up = self.gate_proj(rows), self.up_proj(rows)
        made: torch.Tensor = self.down_proj(self.act_fn(gate * up) if self._late else self.act_fn(gate) * up)
        return made


@pytest.mark.parametrize("late", [False, True])
@torch.inference_mode()
def test_activation_joins_its_layer_where_it_follows_it(late: bool) -> None:
    """The product and its activation become one call, and only where the block's numbers stay."""
    torch.manual_seed(0)
    block = Block(late)
    wanted = block(inputs(5))

    pack(block, int8=False)

    assert isinstance(block.act_fn, nn.SiLU if late else nn.Identity)
    assert torch.allclose(block(inputs(5)), wanted, rtol=1e-4, atol=1e-4)


class Routed(Block):
    """A block that computes rows only with shares of a router, as experts do."""

    def forward(self, rows: torch.Tensor, share: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """Shape (..., 48) to the same."""
        return super().forward(rows) * share


class Curious(Block):
    """A block that looks at its activation."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Shape (..., 48) to the same."""
        assert not self.act_fn.inplace
        return super().forward(rows)


@pytest.mark.parametrize("kind", [Routed, Curious])
@torch.inference_mode()
def test_blocks_that_cannot_be_asked_stay_as_they_are(kind: type[Block], caplog: pytest.LogCaptureFixture) -> None:
    """A block whose own code fails on rows alone, or without its activation, loads all the same, and one line tells."""
    caplog.set_level("INFO")
    blocks = nn.Sequential(kind(False), kind(False))
    given = [torch.ones(1)] if kind is Routed else []
    wanted = [block(inputs(5), *given) for block in blocks]

    pack(blocks, int8=False)

    assert all(isinstance(block.act_fn, nn.SiLU) for block in blocks)
    for block, expected in zip(blocks, wanted, strict=True):
        assert torch.allclose(block(inputs(5), *given), expected, rtol=1e-4, atol=1e-4)
    assert [record.message for record in caplog.records] == ["activations are computed apart from their layers"]


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_packed_model_answers_like_generate(shape: str, tmp_path: Path) -> None:
    """A whole model on packed weights gives the tokens of `generate` on plain ones."""
    model, rng = load(str(write_tiny(tmp_path, shape))), random.Random(1)
    prompts = [[rng.randrange(END_ID) for _ in range(rng.randint(1, 40))] for _ in range(20)]
    options = {"max_new_tokens": 20, "do_sample": False, "suppress_tokens": [END_ID], "pad_token_id": END_ID}
    wanted = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.network.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, len(prompt) :]
        wanted.append([model.token_bytes(at) for at in whole.tolist()])
    bench = Bench(model)
    pack(model.network, int8=False)

    readers = [bench.add(prompt, max_tokens=20, logit_bias={END_ID: -100.0}) for prompt in prompts]
    bench.finish()

    assert [reader.tokens() for reader in readers] == wanted


def test_without_onednn_layers_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch computes and has none, a model is served in float32 all the same, and int8 is refused."""
    monkeypatch.setitem(sys.modules, "services.inference.engines.local.compiled", None)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    source = str(write_tiny(tmp_path, "llama"))
    with pytest.raises(ValueError, match="oneDNN"):
        serve(load(source), 4, 16, int8=True)

    model = load(source)

    assert isinstance(serve(model, 4, 16).work, Batch)
    assert type(model.network.lm_head) is nn.Linear


def test_int8_answers_do_not_depend_on_company(tmp_path: Path) -> None:
    """In 8 bits too an answer is the same alone and in a batch."""
    model, rng = load(str(write_tiny(tmp_path, "llama"))), random.Random(2)
    prompts = [[rng.randrange(END_ID) for _ in range(rng.randint(1, 40))] for _ in range(12)]
    first = Bench(model)
    pack(model.network, int8=True)
    alone = []
    for prompt in prompts:
        alone.append(first.add(prompt, max_tokens=15))
        first.finish()

    together = Bench(model)
    readers = [together.add(prompt, max_tokens=15) for prompt in prompts]
    together.finish()

    assert [reader.tokens() for reader in readers] == [reader.tokens() for reader in alone]
