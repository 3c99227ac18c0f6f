"""What the machine itself allows, and a model of a known size to measure it with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NAME = "machine limit"
COPY_FLOATS = 32 << 20
MATRIX = 1024
RUNS = 3
POSITIONS = 4096  # so that a long prompt has room; GPT-2 itself has 1,024


def limits(directory: str, levels: Sequence[int], threads: int) -> list[dict[str, Any]]:
    """The most tokens per second in float32: weights cannot be read faster than memory, nor multiplied faster.

    Bandwidth is that of a sum over more than the caches hold; the matrix rate that of a square product.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if threads:
        torch.set_num_threads(threads)
    network = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    weight_count = network.num_parameters()
    del network
    numbers, square = torch.ones(COPY_FLOATS), torch.ones(MATRIX, MATRIX)
    bytes_per_s = 4 * COPY_FLOATS / _fastest(lambda: numbers.sum())
    flops = 2 * MATRIX**3 / _fastest(lambda: square @ square)
    empty = {"ttft_p50_ms": None, "itl_p50_ms": None, "itl_p99_ms": None, "goodput_per_s": None}
    return [
        {
            "engine": NAME,
            "precision": "float32",
            "concurrency": level,
            "tokens_per_s": round(min(level * bytes_per_s / (4 * weight_count), flops / (2 * weight_count)), 1),
            **empty,
        }
        for level in levels
    ]


def write_random_gpt2(directory: Path) -> None:
    """Writes a GPT-2 of 124M random weights, with a word for each of its tokens, so that every one makes text."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = GPT2Config(n_positions=POSITIONS, bos_token_id=None, eos_token_id=None)
    GPT2LMHeadModel(config).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({f"w{at}": at for at in range(config.vocab_size)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(directory)


def _fastest(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)
