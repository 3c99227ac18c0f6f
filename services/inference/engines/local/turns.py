"""Models that the batch does not know: each request has transformers' own cache, and requests take turns.

Windows, recurrent states and whatever a model's own cache can hold are served this way, with the same parameters and
the same streams, at the speed of one request at a time. A turn is a step: a piece of the prompt, or a token for every
choice. All choices of a request have the same length while they run, so they are the rows of one cache.
"""

from __future__ import annotations

import inspect
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from services.inference.engines.local.job import Job
from services.inference.engines.local.sampler import draw
from services.inference.generation import EngineEvent

if TYPE_CHECKING:
    from services.inference.engines.local.model import LocalModel

# Tokens of a prompt that are read in one turn: long enough to be efficient, short enough that others wait little.
PREFILL_TOKENS = 256


class Turns:
    """The work of one model."""

    def __init__(self, model: LocalModel, active_max: int) -> None:
        """At most so many requests hold a cache at once."""
        self._model = model
        self._active_max = active_max
        self._waiting: deque[Job] = deque()
        self._decodings: dict[Job, _Decoding] = {}

    def add(self, job: Job) -> None:
        """Queues a request."""
        self._waiting.append(job)

    def drop(self, job: Job) -> None:
        """Forgets a request, finished or not."""
        self._decodings.pop(job, None)
        if job in self._waiting:
            self._waiting.remove(job)

    def step(self) -> bool:
        """Gives each request a turn; False where none can use one."""
        while self._waiting and len(self._decodings) < self._active_max:
            self._start(self._waiting.popleft())
        ready = [(job, decoding) for job, decoding in self._decodings.items() if not job.outbox.is_full]
        for job, decoding in ready:
            try:
                events = decoding.step()
            except Exception as error:  # the edge of one request: its reader gets the error, the others go on
                job.fail(error)
                self.drop(job)
                continue
            job.put(events)
            if job.is_done:
                self.drop(job)
        return bool(ready)

    def _start(self, job: Job) -> None:
        job.is_started = True
        try:
            job.begin(self._model)
            self._decodings[job] = _Decoding(self._model, job)
        except Exception as error:  # as above
            job.fail(error)


class _Decoding:
    """A request at work."""

    def __init__(self, model: LocalModel, job: Job) -> None:
        self._model = model
        self._prompt_ids = job.prompt_ids
        self._read_count = 0
        self._rows = list(job.answers)
        self._last_ids: list[int] = []
        self._cache: Any = DynamicCache(config=model.network.config)
        keeps_last = "logits_to_keep" in inspect.signature(model.network.forward).parameters
        self._options = {"logits_to_keep": 1} if keeps_last else {}

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Reads a piece of the prompt, or adds a token to each choice."""
        if self._read_count < len(self._prompt_ids):
            logits = self._read()
            if logits is None:
                return []
        else:
            logits = self._forward([[token_id] for token_id in self._last_ids])
        events: list[EngineEvent] = []
        self._last_ids = draw(logits, [row.draw for row in self._rows])
        for row, row_logits, token_id in zip(self._rows, logits, self._last_ids, strict=True):
            events += row.add(self._model, row_logits, token_id)
        self._drop_ended_rows()
        return events

    def _read(self) -> torch.Tensor | None:
        """Reads the next piece; returns logits for every choice after the last one."""
        piece = self._prompt_ids[self._read_count : self._read_count + PREFILL_TOKENS]
        logits = self._forward([piece])
        self._read_count += len(piece)
        if self._read_count < len(self._prompt_ids):
            return None
        if len(self._rows) > 1:
            self._cache.batch_repeat_interleave(len(self._rows))
        return logits.expand(len(self._rows), -1)

    def _forward(self, rows: list[list[int]]) -> torch.Tensor:
        """Runs the network on the next ids of each row; returns the logits of the last, shape (rows, vocabulary)."""
        input_ids = torch.tensor(rows, device=self._model.device)
        output = self._model.network(input_ids=input_ids, past_key_values=self._cache, use_cache=True, **self._options)
        logits: torch.Tensor = output.logits[:, -1]
        return logits.float()

    def _drop_ended_rows(self) -> None:
        running = [at for at, row in enumerate(self._rows) if not row.choice.is_ended]
        if len(running) == len(self._rows):
            return
        self._rows = [self._rows[at] for at in running]
        self._last_ids = [self._last_ids[at] for at in running]
        if running:
            self._cache.batch_select_indices(torch.tensor(running, device=self._model.device))
