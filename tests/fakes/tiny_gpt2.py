"""Tiny models with random weights and a byte-level tokenizer, written as Hugging Face directories.

Each stands for "any model": it speaks no language, so that its text is full of broken characters, and it ends
only when it is made to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

END = "<|end|>"
END_ID = 259
CONTEXT = 128
COMMON: dict[str, Any] = {
    "vocab_size": END_ID + 1,
    "eos_token_id": END_ID,
    "bos_token_id": END_ID,
    "initializer_range": 0.4,
}
SHAPES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
    "mistral": (MistralForCausalLM, MistralConfig),
}


def write_tiny_gpt2(directory: Path, **generation: object) -> Path:
    """Writes a GPT-2; `generation` goes into its generation_config.json."""
    config = GPT2Config(n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=2, **COMMON)
    return _write(directory, GPT2LMHeadModel, config, generation)


def write_tiny(directory: Path, shape: str, context: int = CONTEXT, template: str = "", markers: str = "") -> Path:
    """Writes a model of a shape: gpt2, llama, qwen2, qwen3, or mistral with a window, which no batch can serve.

    It chats where it has a template; `markers` become special tokens.
    """
    if shape == "gpt2":
        return write_tiny_gpt2(directory)
    network, config = SHAPES[shape]
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": context}
    window = {"sliding_window": 8} if shape == "mistral" else {}
    common = {**COMMON, "vocab_size": END_ID + 1 + len(markers.split())}
    return _write(directory, network, config(**sizes, **heads, **window, **common), {}, template, markers)


def write_tiny_of(directory: Path, kind: str, **sizes: object) -> Path:
    """Writes a model of a kind that transformers knows, 32 wide and two layers deep unless sizes say otherwise."""
    width: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = CONFIG_MAPPING[kind](**COMMON | {"pad_token_id": END_ID} | width | sizes)
    return _write(directory, MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], config, {})


def add_token(directory: Path, token: str) -> Path:
    """Adds a token to the tokenizer of a model that was written, and no row to its embedding, as some have it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    tokenizer.add_tokens([AddedToken(token, special=True)])
    tokenizer.save_pretrained(directory)
    return directory


def _write(
    directory: Path, network: Any, config: Any, generation: dict[str, object], template: str = "", markers: str = ""
) -> Path:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: at for at, letter in enumerate([*letters, "th", "in", "er"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("i", "n"), ("e", "r")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
    assert tokenizer.convert_tokens_to_ids(END) == END_ID
    tokenizer.add_tokens([AddedToken(marker, special=True) for marker in markers.split()])
    tokenizer.chat_template = template or None
    torch.manual_seed(3)
    model = network(config)
    model.generation_config = GenerationConfig(eos_token_id=END_ID, pad_token_id=END_ID, **generation)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
