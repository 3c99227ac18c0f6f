"""What others do with the same model: transformers' pipeline in threads, its padded `generate`, its own batching.

None of them streams here, so that only tokens per second and the time to a whole answer can be told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, pipeline

from cli.bench_engine.load import Prompts
from cli.bench_engine.record import Answer, Limits, record
from cli.errors import CommandError


def measure(
    name: str, directory: str, prompts: Prompts, args: argparse.Namespace, level: int, limits: Limits
) -> list[dict[str, Any]]:
    """The records of one peer at one number of callers; the pipeline has two, alone and in batches of 8."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    network: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    network.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0, do_sample=False)
    works: dict[str, Callable[[], list[Answer]]] = {
        "generate": lambda: _padded(network, prompts, args, level),
        "cb": lambda: _batched(network, prompts, args, level),
    }
    if name == "pipeline":
        works = {
            "pipeline": lambda: _pipeline(network, directory, prompts, args, level, 1),
            "pipeline of 8": lambda: _pipeline(network, directory, prompts, args, level, 8),
        }
    else:
        works = {name: works[name]}
    records = []
    for each, work in works.items():
        begin = time.process_time()
        with torch.inference_mode():
            answers = work()
        spent_s = time.process_time() - begin
        records.append(record(each, "float32", level, answers, limits, spent_s, streams=False))
    return records


def _pipeline(
    network: Any, directory: str, prompts: Prompts, args: argparse.Namespace, level: int, size: int
) -> list[Answer]:
    """As most services do it: a pool of threads that share one pipeline."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.convert_ids_to_tokens(0), "left"
    generate: Any = pipeline("text-generation", model=network, tokenizer=tokenizer)

    def call(count: int) -> list[Answer]:
        begin = time.perf_counter()
        texts = [prompts.text() for _ in range(count)]
        with torch.inference_mode():
            generate(texts, batch_size=size, max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens)
        return [_whole(begin, args.new_tokens) for _ in range(count)]

    total = level * args.rounds
    shares = [min(size, total - at) for at in range(0, total, size)]
    with ThreadPoolExecutor(level) as pool:
        return [answer for answers in pool.map(call, shares) for answer in answers]


def _padded(network: Any, prompts: Prompts, args: argparse.Namespace, level: int) -> list[Answer]:
    """One padded batch of all callers, again and again."""
    answers = []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        rows = [prompts.ids() for _ in range(level)]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        network.generate(
            ids, attention_mask=mask, max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens, do_sample=False
        )
        answers += [_whole(begin, args.new_tokens) for _ in rows]
    return answers


def _batched(network: Any, prompts: Prompts, args: argparse.Namespace, level: int) -> list[Answer]:
    """transformers' continuous batching."""
    answers = []
    wanted = GenerationConfig(max_new_tokens=args.new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    for _ in range(args.rounds):
        begin = time.perf_counter()
        given = network.generate_batch(inputs=[prompts.ids() for _ in range(level)], generation_config=wanted)
        told = [len(one.generated_tokens) for one in given.values()]  # it may give up on some, or break off
        answers += [_whole(begin, count) for count in told if count]
    if not answers:
        raise CommandError("--peer cb: transformers' batching gave no answer")
    return answers


def _whole(begin: float, token_count: int) -> Answer:
    return Answer(begin, [time.perf_counter()] * token_count)
