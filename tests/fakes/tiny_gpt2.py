"""A tiny GPT-2 with random weights and a byte-level tokenizer, written as a Hugging Face directory.

It stands for "any model": it speaks no language, so that its text is full of broken characters, and it ends only when
it is made to.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

END = "<|end|>"
END_ID = 259
CONTEXT = 128


def write_tiny_gpt2(directory: Path, **generation: object) -> Path:
    """Writes the model; `generation` goes into its generation_config.json."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: at for at, letter in enumerate([*letters, "th", "in", "er"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("i", "n"), ("e", "r")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END)
    assert tokenizer.convert_tokens_to_ids(END) == END_ID
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=2,
        eos_token_id=END_ID,
        bos_token_id=END_ID,
        initializer_range=0.4,
    )
    model = GPT2LMHeadModel(config)
    model.generation_config = GenerationConfig(eos_token_id=END_ID, pad_token_id=END_ID, **generation)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
