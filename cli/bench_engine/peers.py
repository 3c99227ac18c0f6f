"""What others do with the same model: transformers' pipeline in threads, its padded `generate`, its own batching.

Only its own batching tells when each token was made; of the others tokens per second and the time to a whole answer
can be told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    ContinuousBatchingConfig,
    GenerationConfig,
    pipeline,
)

from cli.bench_engine.load import WARM_UP_TOKENS, Prompts
from cli.bench_engine.record import Answer, Limits, record
from cli.errors import CommandError

# transformers' batching gets room for twice what is asked, in pages of its own size. By itself it takes 60 % of the
# machine's memory and fills it with zeros first, which took 18 s where there were 23 GiB.
PAGE_TOKENS = 256
SILENCE_S = 1.0


def measure(
    name: str, directory: str, prompts: Prompts, args: argparse.Namespace, level: int, limits: Limits
) -> list[dict[str, Any]]:
    """The records of one peer at one number of callers; the pipeline has two, alone and in batches of 8."""
    torch.set_num_threads(args.threads or torch.get_num_threads())
    network: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    network.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0, do_sample=False)
    if name == "cb":
        return [_batched(network, prompts, args, level, limits)]
    works = {"generate": _padded(network, prompts, args, level)}
    if name == "pipeline":
        works = {
            "pipeline": _pipeline(network, directory, prompts, args, level, 1),
            "pipeline of 8": _pipeline(network, directory, prompts, args, level, 8),
        }
    records = []
    for each, work in works.items():
        begin = time.process_time()
        answers = work()
        spent_s = time.process_time() - begin
        records.append(record(each, "float32", level, answers, limits, spent_s, streams=False))
    return records


def _pipeline(
    network: Any, directory: str, prompts: Prompts, args: argparse.Namespace, level: int, size: int
) -> Callable[[], list[Answer]]:
    """As most services do it: a pool of threads that share one pipeline; warm."""
    tokenizer: Any = AutoTokenizer.from_pretrained(directory)
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.convert_ids_to_tokens(0), "left"
    generate: Any = pipeline("text-generation", model=network, tokenizer=tokenizer)

    def call(count: int) -> list[Answer]:
        begin = time.perf_counter()
        texts = [prompts.text() for _ in range(count)]
        with torch.inference_mode():
            generate(texts, batch_size=size, max_new_tokens=args.new_tokens, min_new_tokens=args.new_tokens)
        return [_whole(begin, args.new_tokens) for _ in range(count)]

    def work() -> list[Answer]:
        total = level * args.rounds
        shares = [min(size, total - at) for at in range(0, total, size)]
        with ThreadPoolExecutor(level) as pool:
            return [answer for answers in pool.map(call, shares) for answer in answers]

    generate(prompts.text(), max_new_tokens=WARM_UP_TOKENS)
    return work


def _padded(network: Any, prompts: Prompts, args: argparse.Namespace, level: int) -> Callable[[], list[Answer]]:
    """One padded batch of all callers, again and again; warm."""

    @torch.inference_mode()
    def call(count: int, new_tokens: int) -> list[Answer]:
        begin = time.perf_counter()
        rows = [prompts.ids() for _ in range(count)]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        network.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, min_new_tokens=new_tokens, do_sample=False
        )
        return [_whole(begin, new_tokens) for _ in rows]

    call(1, WARM_UP_TOKENS)
    return lambda: [answer for _ in range(args.rounds) for answer in call(level, args.new_tokens)]


def _batched(network: Any, prompts: Prompts, args: argparse.Namespace, level: int, limits: Limits) -> dict[str, Any]:
    """transformers' continuous batching, set up and warm before the first question.

    Never in inference mode: its thread writes to tensors that this one makes, which is refused then.
    """
    wanted = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    pages = 2 * level * -(-(args.prompt_tokens + args.new_tokens) // PAGE_TOKENS) + 1
    room = ContinuousBatchingConfig(page_size=PAGE_TOKENS, num_blocks=pages)
    with network.continuous_batching_context_manager(wanted, continuous_batching_config=room) as manager:
        _wave(manager, [prompts.ids()], WARM_UP_TOKENS)
        begin = time.process_time()
        waves = [_wave(manager, [prompts.ids() for _ in range(level)], args.new_tokens) for _ in range(args.rounds)]
        spent_s = time.process_time() - begin
    return record("cb", "float32", level, [answer for wave in waves for answer in wave], limits, spent_s)


def _wave(manager: Any, rows: list[list[int]], new_tokens: int) -> list[Answer]:
    """Asks for all at once, and waits for the last."""
    manager.add_requests(inputs=rows, max_new_tokens=new_tokens, record_timestamps=True)
    answers: list[Answer] = []
    while len(answers) < len(rows):
        result = manager.get_result(timeout=SILENCE_S)
        if result is None and not manager.is_running():
            raise CommandError("--peer cb: transformers' batching has ended by itself; what it logged says why")
        if result is not None and result.error:
            raise CommandError(f"--peer cb: transformers' batching failed: {result.error}")
        if result is not None and result.is_finished():
            answers.append(Answer(result.created_time, list(result.timestamps)))
    return answers


def _whole(begin: float, token_count: int) -> Answer:
    return Answer(begin, [time.perf_counter()] * token_count)
