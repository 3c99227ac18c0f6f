"""All requests of one model in one batch: in each step some get their next token, and some a piece of their prompt.

Continuous batching: requests join and leave between steps. It belongs to the model's thread and waits for nothing. A
request whose reader has fallen behind rests until its box has room; the others go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from services.inference.engines.local.job import Answer, Job
from services.inference.engines.local.sampler import draw
from services.inference.engines.local.sequence import Sequence

if TYPE_CHECKING:
    from services.inference.engines.local.model import LocalModel
    from services.inference.engines.local.runner import Runner
    from services.inference.engines.local.scheduler import Scheduler


class Batch:
    """The work of one model."""

    def __init__(self, model: LocalModel, scheduler: Scheduler, runner: Runner) -> None:
        self._model = model
        self._scheduler = scheduler
        self._runner = runner
        self._answers: dict[Sequence, Answer] = {}

    @property
    def scheduler(self) -> Scheduler:
        """Who runs and who waits; to be read only."""
        return self._scheduler

    def add(self, job: Job) -> None:
        """Takes a request on: a sequence for each of its choices, which share the prompt."""
        job.begin(self._model)
        leader: Sequence | None = None
        for answer in job.answers:
            sequence = Sequence(
                list(job.prompt_ids), len(job.prompt_ids), job.token_count_max, job.tenant, job.priority, leader=leader
            )
            leader = leader or sequence
            self._answers[sequence] = answer
            self._scheduler.add(sequence)

    def drop(self, job: Job) -> None:
        """Forgets a request, finished or not."""
        for sequence in [sequence for sequence, answer in self._answers.items() if answer.job is job]:
            self._end(sequence)

    def step(self) -> bool:
        """Computes a step; False where there is nothing that can be computed now."""
        for sequence, answer in self._answers.items():
            sequence.is_paused = answer.job.outbox.is_full
        plan = self._scheduler.schedule()
        if not plan.rows:
            return False
        for row in plan.rows:
            self._answers[row.sequence].job.is_started = True
        sequences, logits = self._runner.run(plan)
        self._scheduler.complete(plan)
        self._emit(sequences, logits)
        return True

    @torch.inference_mode()
    def _emit(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        if not sequences:
            return
        answers = [self._answers[sequence] for sequence in sequences]
        token_ids = draw(logits, [answer.draw for answer in answers])
        for at, (sequence, answer, token_id) in enumerate(zip(sequences, answers, token_ids, strict=True)):
            if sequence not in self._answers:  # another choice of its request has failed
                continue
            sequence.token_ids.append(token_id)
            try:
                events = answer.add(self._model, logits[at], token_id)
            except Exception as error:  # the edge of one request: its reader gets the error, the others go on
                answer.job.fail(error)
                self.drop(answer.job)
                continue
            if answer.choice.index == 0 and answer.choice.token_count == 1:
                answer.job.cached_count = sequence.reused_count
            if answer.choice.is_ended:
                self._end(sequence)
            answer.job.put(events)

    def _end(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._answers[sequence]
