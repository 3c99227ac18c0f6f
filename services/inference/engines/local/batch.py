"""All requests of one model in one batch: in each step some get their next token, and some a piece of their prompt.

Continuous batching: requests join and leave between steps. It belongs to the model's thread and waits for nothing. A
request whose reader has fallen behind rests until its box has room; the others go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from services.inference.engines.local.job import Answer, Job
from services.inference.engines.local.metrics import LocalMetrics, unread
from services.inference.engines.local.sampler import NOT_DRAWN, draw
from services.inference.engines.local.sequence import Sequence

if TYPE_CHECKING:
    from services.inference.engines.local.model import LocalModel
    from services.inference.engines.local.runner import Runner
    from services.inference.engines.local.scheduler import Row, Scheduler


class Batch:
    """The work of one model."""

    def __init__(
        self,
        model: LocalModel,
        scheduler: Scheduler,
        runner: Runner,
        metrics: LocalMetrics | None = None,
        observe: Callable[[int, int, float, int], None] = lambda *_: None,
    ) -> None:
        """Makes it.

        `observe` is told of each step how many sequences decoded, how many tokens it had, its seconds, and its guesses.
        """
        self._model = model
        self._metrics = (metrics or unread()).of(model.name)
        self._preemption_count = 0
        self._scheduler = scheduler
        self._runner = runner
        self._observe = observe
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
            count = len(job.prompt_ids)
            longest = count + answer.choice.token_count_max
            sequence = Sequence(list(job.prompt_ids), count, longest, job.tenant, job.priority, leader=leader)
            leader = leader or sequence
            self._answers[sequence] = answer
            self._scheduler.add(sequence)

    def drop(self, job: Job) -> None:
        """Forgets a request, finished or not."""
        self._drop(job)

    def _drop(self, job: Job, *, is_spoilt: bool = False) -> None:
        """Forgets a request, and where its place holds what is no number, that as well."""
        for sequence in [sequence for sequence, answer in self._answers.items() if answer.job is job]:
            if is_spoilt and sequence.extent:
                self._runner.clear(sequence.extent)
            self._end(sequence, is_spoilt=is_spoilt)

    def step(self) -> bool:
        """Computes a step; False where there is nothing that can be computed now."""
        for sequence, answer in self._answers.items():
            sequence.is_paused = answer.job.outbox.is_full
        begin = time.monotonic()
        plan = self._scheduler.schedule()
        if not plan.rows:
            self._show()
            return False
        decode_count = sum(row.count == 1 and row.gives_token for row in plan.rows)
        for row in plan.rows:
            self._start(self._answers[row.sequence].job, begin)
        rows, logits = self._runner.run(plan)
        self._scheduler.complete(plan)
        self._emit(rows, logits)
        took_s = time.monotonic() - begin
        reads = decode_count < len(plan.rows)
        (self._metrics.prefill_s if reads else self._metrics.decode_s).observe(took_s)
        self._metrics.draft_tokens.inc(plan.draft_count)
        self._observe(decode_count, plan.token_count, took_s, plan.draft_count)
        self._show()
        return True

    def _start(self, job: Job, now: float) -> None:
        if not job.is_started:
            job.started_s = now
            self._metrics.queue_s.observe(job.queue_s)
            self._metrics.prompt_tokens.inc(len(job.prompt_ids))

    def _show(self) -> None:
        """Tells how full the model is."""
        scheduler, metrics = self._scheduler, self._metrics
        metrics.running.set(len(scheduler.running))
        metrics.waiting.set(len(scheduler.waiting))
        metrics.cache_used.set(scheduler.used_token_count / scheduler.extents.token_count)
        metrics.preemptions.inc(scheduler.preemption_count - self._preemption_count)
        self._preemption_count = scheduler.preemption_count

    def _time(self, answer: Answer, now: float) -> None:
        """Tells how long a token took."""
        if answer.last_token_s is None:
            self._metrics.ttft_s.observe(now - answer.job.arrived_s)
        else:
            self._metrics.inter_token_s.observe(now - answer.last_token_s)
        answer.last_token_s = now

    @torch.inference_mode()
    def _emit(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Draws the next token of each row, and another one as long as what was guessed is what is drawn."""
        firsts = accumulate((1 + len(row.draft_ids) for row in rows), initial=0)
        drawing = list(zip(rows, firsts, strict=False))
        ahead = 0
        while drawing:
            answers = [self._answers[row.sequence] for row, _ in drawing]
            chosen = [logits[first + ahead] for _, first in drawing]
            token_ids = draw(chosen, [answer.draw for answer in answers])
            self._metrics.completion_tokens.inc(len(token_ids) - token_ids.count(NOT_DRAWN))
            now = time.monotonic()
            for (row, _), answer, token_id, scores in zip(drawing, answers, token_ids, chosen, strict=True):
                self._take(row.sequence, answer, token_id, scores, now)
            drawn = zip(drawing, token_ids, strict=True)
            drawing = [one for one, token_id in drawn if self._goes_on(one[0], ahead, token_id)]
            ahead += 1

    def _take(self, sequence: Sequence, answer: Answer, token_id: int, logits: torch.Tensor, now: float) -> None:
        """Adds a token that was drawn from logits of shape (vocabulary,)."""
        if sequence not in self._answers:  # another choice of its request has failed
            return
        if token_id != NOT_DRAWN:
            sequence.token_ids.append(token_id)
            self._time(answer, now)
        try:
            events = answer.add(self._model, logits, token_id)
        except Exception as error:  # the edge of one request: its reader gets the error, the others go on
            answer.job.fail(error)
            self._drop(answer.job, is_spoilt=token_id == NOT_DRAWN)
            return
        if answer.choice.index == 0 and answer.choice.token_count == 1:
            answer.job.cached_count = sequence.reused_count
            self._metrics.reused_tokens.inc(sequence.reused_count)
        if answer.choice.is_ended:
            self._end(sequence)
        answer.job.put(events)

    def _goes_on(self, row: Row, ahead: int, token_id: int) -> bool:
        """Whether the token that was drawn is the one that was guessed: then it is computed, and gives the next."""
        if row.draft_ids[ahead : ahead + 1] != (token_id,) or row.sequence not in self._answers:
            return False
        self._scheduler.accept(row.sequence)
        self._metrics.accepted_tokens.inc()
        return True

    def _end(self, sequence: Sequence, *, is_spoilt: bool = False) -> None:
        self._scheduler.remove(sequence, is_spoilt=is_spoilt)
        del self._answers[sequence]
