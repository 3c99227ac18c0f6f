"""The local engine beside OpenVINO GenAI's continuous batching: the same model, in one run, in turns.

OpenVINO has an environment of its own, for its tools pin another transformers. Once:

    python -m venv OV
    OV/bin/pip install openvino-genai 'optimum-intel[openvino]' nncf
    python -c "from pathlib import Path; from cli.bench_engine import machine; machine.write_random_gpt2(Path('GPT2'))"
    OV/bin/optimum-cli export openvino --model GPT2 --task text-generation-with-past --weight-format fp32 GPT2-FLOAT32
    OV/bin/optimum-cli export openvino --model GPT2 --task text-generation-with-past --weight-format int8 GPT2-INT8

Any causal model that both know will do in place of GPT2. Then, on an idle machine:

    python -m bench.openvino --python OV/bin/python --model GPT2 --float32 GPT2-FLOAT32 --int8 GPT2-INT8 --json OUT

Both engines are loaded in every precision first, each in a process of its own that sleeps while another computes. Every
round they take their turns at each number of callers, one right after the other, who goes first by turns as well. All
callers ask at once, each with a prompt of its own, and get as many tokens as was asked for. Told are the medians over
rounds of tokens per second, and of the ratio of two neighbouring turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

MILLRACE, OPENVINO = "millrace", "openvino-genai"
PRECISIONS = ("float32", "int8")
CACHE_GIB = 2  # more than 100 callers of a GPT-2 fill
WARM_UP_ROUNDS = 1

Turn = Callable[[int], float]
"""Computes answers for a number of callers; returns tokens per second."""


def main(args: argparse.Namespace) -> None:
    """Measures all, tells each turn as it ends, and prints the medians."""
    levels = [int(part) for part in args.concurrency.split(",")]
    precisions = [precision for precision in PRECISIONS if getattr(args, precision)]
    told: dict[tuple[str, int, str], list[float]] = {}
    with ExitStack() as processes:
        turns = {
            (engine, precision): processes.enter_context(_process(engine, precision, args, max(levels)))
            for precision in precisions
            for engine in (OPENVINO, MILLRACE)
        }
        for number in range(WARM_UP_ROUNDS + args.rounds):
            for precision in precisions:
                for level in levels:
                    for engine in (OPENVINO, MILLRACE) if number % 2 else (MILLRACE, OPENVINO):
                        rate = turns[engine, precision](level)
                        if number >= WARM_UP_ROUNDS:
                            told.setdefault((precision, level, engine), []).append(rate)
                            print(f"{precision} {level:3} {engine}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)
    records = [one for precision in precisions for level in levels for one in _records(told, precision, level)]
    _print(records)
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n")


def _records(told: dict[tuple[str, int, str], list[float]], precision: str, level: int) -> Iterator[dict[str, Any]]:
    ours, theirs = told[precision, level, MILLRACE], told[precision, level, OPENVINO]
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    for engine, rates, relative in ((MILLRACE, ours, round(ratio, 3)), (OPENVINO, theirs, 1.0)):
        yield {
            "engine": engine,
            "precision": precision,
            "concurrency": level,
            "tokens_per_s": round(statistics.median(rates), 1),
            "tokens_per_s_min": round(min(rates), 1),
            "tokens_per_s_max": round(max(rates), 1),
            "ratio": relative,
            "rounds": len(rates),
        }


def _print(records: list[dict[str, Any]]) -> None:
    print(f"{'precision':<10}{'callers':>8}{MILLRACE:>12}{OPENVINO:>16}{'ratio':>8}")
    for ours, theirs in zip(records[::2], records[1::2], strict=True):
        rates = f"{ours['tokens_per_s']:>12.1f}{theirs['tokens_per_s']:>16.1f}{ours['ratio']:>8.2f}"
        print(f"{ours['precision']:<10}{ours['concurrency']:>8}{rates}")


@contextmanager
def _process(engine: str, precision: str, args: argparse.Namespace, level_max: int) -> Iterator[Turn]:
    """An engine with one model, loaded; it ends with the block."""
    # OpenVINO's Python runs this file alone and apart (-I), so that `import openvino` does not find this file.
    program = [args.python, "-I", __file__] if engine == OPENVINO else [sys.executable, "-m", "bench.openvino"]
    model = getattr(args, precision) if engine == OPENVINO else args.model
    lengths = ["--prompt-tokens", str(args.prompt_tokens), "--new-tokens", str(args.new_tokens)]
    options = ["--worker", engine, "--precision", precision, "--model", model, "--concurrency", str(level_max)]
    command = [*program, *options, *lengths, "--threads", str(args.threads), *["--no-drafts"] * args.no_drafts]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        orders, answers = process.stdin, process.stdout
        assert orders
        assert answers

        def answer() -> str:
            if not (line := answers.readline()):
                raise SystemExit(f"{engine} {precision} has ended; what it said last is above")
            return line

        def turn(level: int) -> float:
            orders.write(f"{level}\n")
            return float(answer())

        try:
            answer()  # it is loaded
            yield turn
        finally:
            orders.close()


def work(args: argparse.Namespace) -> None:
    """One engine: says that it is loaded, then takes a turn for each line that it reads."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is for people
    with (_openvino if args.worker == OPENVINO else _millrace)(args) as turn:
        print("loaded", file=answers)
        for line in sys.stdin:
            print(turn(int(line)), file=answers)


@contextmanager
def _millrace(args: argparse.Namespace) -> Iterator[Turn]:
    from cli.bench_engine.load import Load, Prompts
    from kit import openmp

    openmp.wait_asleep()
    prompts = Prompts(args.model, args.prompt_tokens)
    load = Load(args.model, args.precision, int(args.concurrency), args.threads, drafts=not args.no_drafts)

    async def ask(texts: list[str]) -> int:
        answers = await asyncio.gather(*(load.ask(text, args.new_tokens) for text in texts))
        return sum(len(one.tokens_s) for one in answers)

    def turn(level: int) -> float:
        texts = [prompts.text() for _ in range(level)]
        begin = time.perf_counter()
        return runner.run(ask(texts)) / (time.perf_counter() - begin)

    with asyncio.Runner() as runner:
        runner.run(load.warm())
        try:
            yield turn
        finally:
            runner.run(load.close())


@contextmanager
def _openvino(args: argparse.Namespace) -> Iterator[Turn]:
    # Of its own environment: nothing of ours knows them.
    numpy, openvino, openvino_genai = map(import_module, ("numpy", "openvino", "openvino_genai"))
    vocabulary = json.loads((Path(args.model) / "config.json").read_text())["vocab_size"]
    room = openvino_genai.SchedulerConfig()
    room.cache_size, room.max_num_seqs = CACHE_GIB, int(args.concurrency)
    # A processor with bfloat16 would take that by itself; int8 is the weights' own.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if args.precision == "float32":  # by itself it keeps keys and values in 8 bits, which is another answer
        settings["KV_CACHE_PRECISION"] = "f32"
    if args.threads:
        settings["INFERENCE_NUM_THREADS"] = args.threads
    engine = openvino_genai.ContinuousBatchingPipeline(args.model, room, "CPU", settings)
    wanted = openvino_genai.GenerationConfig()
    wanted.max_new_tokens = wanted.min_new_tokens = args.new_tokens
    wanted.ignore_eos, wanted.do_sample = True, False
    wanted.set_eos_token_id(vocabulary - 1)
    numbers = random.Random(0)

    def turn(level: int) -> float:
        rows = [[numbers.randrange(vocabulary) for _ in range(args.prompt_tokens)] for _ in range(level)]
        inputs = [openvino.Tensor(numpy.array([row], dtype=numpy.int64)) for row in rows]
        begin = time.perf_counter()
        asked = [engine.add_request(number, one, wanted) for number, one in enumerate(inputs)]
        while engine.has_non_finished_requests():
            engine.step()
        seconds = time.perf_counter() - begin
        return sum(len(answer.generated_ids) for one in asked for answer in one.read_all()) / seconds

    yield turn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="of OpenVINO's environment")
    parser.add_argument("--model", required=True, help="directory or hub name, as Millrace loads it")
    parser.add_argument("--float32", metavar="DIR", help="the same, converted for OpenVINO with float32 weights")
    parser.add_argument("--int8", metavar="DIR", help="the same, converted with int8 weights")
    parser.add_argument("--concurrency", default="1,8,32", metavar="N,...", help="callers at once (default: 1,8,32)")
    parser.add_argument("--prompt-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--new-tokens", type=int, default=64, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="after one to warm up")
    parser.add_argument("--no-drafts", action="store_true", help="of Millrace: guess no tokens")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of both (default: what each chooses)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures as a list of flat records")
    parser.add_argument("--worker", choices=(MILLRACE, OPENVINO), help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=PRECISIONS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given)
    elif not given.python or not (given.float32 or given.int8):
        parser.error("give --python, and a model of --float32 or --int8 at least")
    else:
        main(given)
