"""Models with a window or a recurrent state, served one request at a time: the same answers as `generate` gives."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from kit.errors import FailedPrecondition
from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.model import load
from services.inference.engines.local.turns import PREFILL_TOKENS, Reader, Turns
from tests.fakes.tiny_gpt2 import END_ID, write_tiny_of
from tests.inference.local_answers import collect, ids_of, raw

HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024}
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
# By what each goes on from: a window, Mamba's state under a name of its own, layers of both, a cache of its own class,
# and a state that is no cache.
KINDS: dict[str, dict[str, Any]] = {
    "gemma3_text": HEADS | {"sliding_window": 8},
    "mamba": {"state_size": 8},
    "mamba2": {"state_size": 8, "head_dim": 16, "num_heads": 4, "n_groups": 1},
    "granitemoehybrid": HEADS
    | MAMBA
    | {"layer_types": ["mamba", "attention"], "num_local_experts": 2, "num_experts_per_tok": 1},
    "bamba": HEADS | MAMBA | {"attn_layer_indices": [1]},
    "qwen3_5_text": HEADS | DELTA | {"layer_types": ["linear_attention", "full_attention"]},
    "minimax": HEADS | {"num_local_experts": 2, "num_experts_per_tok": 1},
    "rwkv": {"attention_hidden_size": 32},
}
TEXTS = ("the thin winter", "rain in the river " * 30, "x")
TOKENS = 12


@pytest.mark.parametrize("kind", KINDS)
async def test_answers_are_those_of_generate(kind: str, tmp_path: Path) -> None:
    """Side by side, longer than one piece of a prompt, with two choices each: greedy answers are token-identical."""
    engine = LocalEngine(str(write_tiny_of(tmp_path, kind, **KINDS[kind])), threads=1)
    try:
        await engine.warm()
        assert engine._serving is not None
        assert isinstance(engine._serving.work, Turns)
        prompts = [raw(text, max_tokens=TOKENS, temperature=0, n=2, logprobs=True) for text in TEXTS]
        answers = await asyncio.gather(*(collect(engine, prompt) for prompt in prompts))
    finally:
        await engine.close()

    model = load(str(tmp_path))
    for prompt, events in zip(prompts, answers, strict=True):
        ids = torch.tensor([model.encode(prompt)])
        output = model.network.generate(ids, max_new_tokens=TOKENS, do_sample=False, suppress_tokens=[END_ID])
        wanted = [model.token_bytes(token_id) for token_id in output[0, ids.shape[1] :].tolist()]
        assert ids_of(events, 0) == ids_of(events, 1) == wanted
    assert max(len(model.encode(prompt)) for prompt in prompts) > PREFILL_TOKENS


async def test_a_model_that_remembers_by_itself_is_refused(tmp_path: Path) -> None:
    """RecurrentGemma keeps its state in its layers, where the next request would go on from it: it is not served."""
    sizes = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "lru_width": 32, "num_hidden_layers": 3}
    engine = LocalEngine(str(write_tiny_of(tmp_path, "recurrent_gemma", attention_window_size=8, **sizes)), threads=1)
    try:
        with pytest.raises(FailedPrecondition, match="does not go on from what it has read"):
            await engine.warm()
    finally:
        await engine.close()


@pytest.mark.parametrize("raises", [False, True])
def test_what_cannot_read_on_reads_prompts_at_once(raises: bool, tmp_path: Path) -> None:
    """A network that goes wrong on a second piece of a prompt, but not on a token, is given whole prompts."""
    network = load(str(write_tiny_of(tmp_path, "mamba", **KINDS["mamba"]))).network
    forward = network.forward

    def forgetful(input_ids: torch.Tensor, cache_params: Any = None, **options: Any) -> Any:
        if input_ids.shape[1] > 1 and cache_params is not None:
            if raises:
                raise NotImplementedError("reading on")
            cache_params = None
        return forward(input_ids=input_ids, cache_params=cache_params, **options)

    network.forward = forgetful
    reader = Reader(network)

    reader.check()

    assert reader.piece_tokens is None
