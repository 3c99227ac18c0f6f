"""A batch of the local engine without its thread: requests at chosen times, and answers when all is done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from services.inference.engines.local import probe
from services.inference.engines.local.batch import Batch
from services.inference.engines.local.compiled import Compiled
from services.inference.engines.local.job import Job
from services.inference.engines.local.model import LocalModel, load
from services.inference.engines.local.outbox import Bell, Outbox
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.sampler import Constraint
from services.inference.engines.local.scheduler import Scheduler
from services.inference.generation import Delta, EngineEvent, Sampling
from tests.fakes.tiny_gpt2 import write_tiny

# Nobody waits for these readers. A loop each would hold three open files until the collector finds it, and ten thousand
# requests use up what a process may have.
_NO_LOOP = asyncio.new_event_loop()
_NO_LOOP.close()


def tiny_model(folder: Path, shape: str, computing: str, *, int8: bool = False) -> LocalModel:
    """A tiny model, computed by torch or by OpenVINO."""
    torch.set_num_threads(1)
    model = load(str(write_tiny(folder, shape)))
    if computing == "openvino":
        probe.prepare(model.network)
        model.network = Compiled(model.network, int8=int8, threads=1)
    return model


class Reader(Outbox):
    """Keeps what it is given, and is as full as it is told to be."""

    def __init__(self) -> None:
        super().__init__(Bell(_NO_LOOP), lambda: None)
        self.events: list[EngineEvent] = []
        self.error: BaseException | None = None
        self.is_behind = False

    @property
    def is_full(self) -> bool:
        """As it was told."""
        return self.is_behind

    def put(self, events: Sequence[EngineEvent]) -> None:
        """Keeps them."""
        self.events += events

    def fail(self, error: BaseException) -> None:
        """Keeps it."""
        self.error = error

    def tokens(self, choice_index: int = 0) -> list[bytes]:
        """The tokens of a choice; needs `logprobs`."""
        deltas = [e for e in self.events if isinstance(e, Delta) and e.choice_index == choice_index]
        return [logprob.token_bytes for delta in deltas for logprob in delta.logprobs]


@dataclass
class Bench:
    """A model in a batch whose invariants are checked at every step."""

    model: LocalModel
    cache_tokens: int = 4096
    row_count_max: int = 16
    prefill_tokens: int = 24
    reuses_prefixes: bool = True
    growth_tokens: int = 64
    draft_tokens: int = 24
    jobs: list[Job] = field(default_factory=list)
    told: list[tuple[int, int]] = field(default_factory=list)
    """Of each step: sequences that decoded, and tokens."""

    def __post_init__(self) -> None:
        if self.model.network.config._attn_implementation != "millrace":
            probe.prepare(self.model.network)
        self.scheduler = Scheduler(
            self.cache_tokens,
            self.row_count_max,
            lambda decode_count, *_: decode_count + self.prefill_tokens,
            reuses_prefixes=self.reuses_prefixes,
            growth_token_count=self.growth_tokens,
            draft_count=lambda _, shares: min(len(shares), self.draft_tokens),
        )
        runner = Runner(self.model.network, self.cache_tokens)
        self.batch = Batch(self.model, self.scheduler, runner, observe=lambda *told: self.told.append(told[:2]))

    def add(
        self, prompt_ids: list[int], constrain: Callable[[], Constraint] | None = None, **sampling: object
    ) -> Reader:
        """Adds a request."""
        reader = Reader()
        parameters = Sampling(**{"logprobs": True, **sampling})  # type: ignore[arg-type]
        context = self.model.context_token_count_max or self.cache_tokens
        job = Job("tiny", prompt_ids, parameters, reader, min(context, self.scheduler.extents.size_max))
        job.constrain = constrain
        self.jobs.append(job)
        self.batch.add(job)
        return reader

    def step(self) -> bool:
        """Does a step and checks what must always hold."""
        is_moving = self.batch.step()
        self.scheduler.check()
        return is_moving

    def finish(self) -> None:
        """Does every step that is left."""
        while self.step():
            pass
        assert not self.scheduler.running
        assert not self.scheduler.waiting

    def drop(self, reader: Reader) -> None:
        """Cancels a request."""
        self.batch.drop(next(job for job in self.jobs if job.outbox is reader))
        self.scheduler.check()


def random_prompts(count: int, rng: random.Random, vocab_size: int) -> list[list[int]]:
    """Prompts of 1 to 60 tokens, half of which begin alike."""
    system = [rng.randrange(vocab_size) for _ in range(40)]
    tails = [[rng.randrange(vocab_size) for _ in range(rng.randint(1, 20))] for _ in range(count)]
    return [(system if rng.random() < 0.5 else []) + tail for tail in tails]
