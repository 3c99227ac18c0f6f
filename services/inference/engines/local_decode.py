"""The decoding of one request: its prompt is read in pieces, then each step adds a token to every choice.

All choices of a request have the same length while they run, so they are the rows of one KV cache; a row leaves when
its choice ends. A step is the unit in which requests take turns. It never waits and knows no event loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from services.inference.engines.local_model import LocalModel
from services.inference.engines.local_sampler import Sampler
from services.inference.engines.local_text import Detokenizer, StopGate
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineCompleted,
    EngineEvent,
    FinishReason,
    Sampling,
    Usage,
)

# Tokens of a prompt that are read in one step: long enough to be efficient, short enough that others wait little.
PREFILL_TOKENS = 256


class Decoding:
    """A request at work."""

    def __init__(self, model: LocalModel, name: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        self._model = model
        self._name = name
        self._prompt_ids = list(prompt_ids)
        self._read_count = 0
        room = (model.context_token_count_max or len(prompt_ids) + (sampling.max_tokens or 0)) - len(prompt_ids)
        token_count_max = min(sampling.max_tokens or room, room)
        self._choices = [Choice(model, sampling, prompt_ids, index, token_count_max) for index in range(sampling.n)]
        self._rows = list(self._choices)
        self._cache: Any = DynamicCache(config=model.network.config)
        keeps_last = "logits_to_keep" in inspect.signature(model.network.forward).parameters
        self._options = {"logits_to_keep": 1} if keeps_last else {}

    @property
    def is_done(self) -> bool:
        """Whether every choice has ended."""
        return not self._rows

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Reads a piece of the prompt, or adds a token to each choice; the last step ends with EngineCompleted."""
        if self._read_count < len(self._prompt_ids):
            logits = self._read()
            if logits is None:
                return []
        else:
            logits = self._forward([[row.last_id] for row in self._rows])
        events: list[EngineEvent] = []
        for row, row_logits in zip(self._rows, logits, strict=True):
            events += row.add(row_logits)
        self._drop_ended_rows()
        if self.is_done:
            completion = sum(choice.token_count for choice in self._choices)
            events.append(EngineCompleted(Usage(len(self._prompt_ids), completion), target_model=self._name))
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
        return logits

    def _drop_ended_rows(self) -> None:
        running = [at for at, row in enumerate(self._rows) if not row.is_ended]
        if len(running) == len(self._rows):
            return
        self._rows = [self._rows[at] for at in running]
        if running:
            self._cache.batch_select_indices(torch.tensor(running, device=self._model.device))
        else:
            self._cache = None


class Choice:
    """One answer as it grows."""

    def __init__(
        self, model: LocalModel, sampling: Sampling, prompt_ids: Sequence[int], index: int, token_count_max: int
    ) -> None:
        self.last_id = -1
        self.token_count = 0
        self.is_ended = False
        self._index = index
        self._token_count_max = token_count_max
        self._end_ids = model.end_ids | set(sampling.stop_token_ids)
        self._sampler = Sampler(model, sampling, prompt_ids, index)
        self._detokenizer = Detokenizer(model.decode, prompt_ids)
        self._gate = StopGate(sampling.stop)

    def add(self, logits: torch.Tensor) -> list[EngineEvent]:
        """Draws the next token and returns what may leave because of it."""
        self.last_id, logprob = self._sampler.draw(logits)
        self.token_count += 1
        if self.last_id in self._end_ids:
            return [*self._delta(*self._gate.flush()), self._finish(FinishReason.STOP)]
        delta = self._delta(*self._gate.add(self._detokenizer.add(self.last_id), logprob))
        if self._gate.stopped_by:
            return [*delta, self._finish(FinishReason.STOP)]
        if self.token_count >= self._token_count_max:
            return [*delta, *self._delta(*self._gate.flush()), self._finish(FinishReason.LENGTH)]
        return delta

    def _delta(self, text: str, logprobs: tuple[Any, ...]) -> list[EngineEvent]:
        if not text and not logprobs:
            return []
        return [Delta(self._index, text, logprobs=logprobs, completion_token_count=self.token_count)]

    def _finish(self, reason: FinishReason) -> ChoiceFinished:
        self.is_ended = True
        return ChoiceFinished(self._index, reason, self._gate.stopped_by)
