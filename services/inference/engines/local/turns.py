"""Models that the batch does not know: each answer has the model's own cache, and requests take turns.

Windows, recurrent states and whatever a model's own cache can hold are served this way, with the same parameters and
the same streams, at the speed of one request at a time. A turn is a step: a piece of the prompt, or a token for every
choice. What a model goes on from is its own affair: it makes it at the first call, and is given it back at the next.
"""

from __future__ import annotations

import copy
import inspect
import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import DynamicCache

from services.inference.engines.local.job import Answer, Job
from services.inference.engines.local.probe import PIECES, ids_for, is_near
from services.inference.engines.local.sampler import draw
from services.inference.generation import EngineEvent

if TYPE_CHECKING:
    from services.inference.engines.local.model import LocalModel

# Tokens of a prompt that are read in one turn: long enough to be efficient, short enough that others wait little.
PREFILL_TOKENS = 256
# What models call that from which they go on: keys and values, or a recurrent state.
STATE_NAMES: Final = ("past_key_values", "cache_params", "state")


@dataclass(slots=True)
class State:
    """What a network goes on from, and how many tokens have led there."""

    value: Any = None
    token_count: int = 0


class Reader:
    """Lets a network read tokens after others, from the state that those left.

    Args:
        network: The model.

    Attributes:
        piece_tokens: Tokens of a prompt that may be read at once; None: all, for it reads on one by one only.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._parameters = frozenset(inspect.signature(network.forward).parameters)
        self._state_name = next((name for name in STATE_NAMES if name in self._parameters), STATE_NAMES[0])
        self._makes_state = True
        self.piece_tokens: int | None = PREFILL_TOKENS

    @torch.inference_mode()
    def read(self, ids: list[int], state: State) -> torch.Tensor:
        """Returns the logits after the last of the tokens, shape (vocabulary,); the state is then that after them."""
        begin, end = state.token_count, state.token_count + len(ids)
        if state.value is None and not self._makes_state:
            state.value = DynamicCache(config=self._network.config)
        device = self._network.device
        given: dict[str, Any] = {"input_ids": torch.tensor([ids], device=device), "use_cache": True}
        if state.value is not None:
            given[self._state_name] = state.value
        if "position_ids" in self._parameters:  # some count what is cached by a layer that keeps no tokens
            given["position_ids"] = torch.arange(begin, end, device=device)[None]
        if "logits_to_keep" in self._parameters:
            given["logits_to_keep"] = 1
        output = self._network(**given)
        left = getattr(output, self._state_name, None)  # some change the one that they are given, and return none
        state.value, state.token_count = state.value if left is None else left, end
        logits: torch.Tensor = output.logits[0, -1]
        return logits.float()

    def check(self) -> None:
        """Finds out how the network goes on from its state as if it had read all at once, and nothing else meanwhile.

        Raises:
            ValueError: In no way that is known here: its answers would be wrong, or another's.
        """
        ids = ids_for(self._network)
        wanted = self.read(ids, State())
        problem: Exception | None = None
        for self._makes_state, self.piece_tokens in product((True, False), (PREFILL_TOKENS, None)):
            try:
                logits = self._read_in_pieces(ids)
            except Exception as error:  # whatever a model's own code makes of a piece that it was not written for
                problem = error.with_traceback(None)  # which would hold the network
                continue
            if is_near(wanted, logits, self._network.dtype):
                return
        raise ValueError("it does not go on from what it has read; serve it by another engine") from problem

    def _read_in_pieces(self, ids: list[int]) -> torch.Tensor:
        state, other = State(), State()
        for begin, end in pairwise((0, *(PIECES if self.piece_tokens else PIECES[-2:]))):
            logits = self.read(ids[begin:end], state)
            self.read(ids[-1:], other)  # some keep what they have read in themselves, for whoever comes next
        return logits


class Turns:
    """The work of one model."""

    def __init__(self, model: LocalModel, reader: Reader, active_max: int) -> None:
        """At most so many requests hold a cache at once."""
        self._model = model
        self._reader = reader
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
        job.started_s = time.monotonic()
        try:
            job.begin(self._model)
            self._decodings[job] = _Decoding(self._model, self._reader, job)
        except Exception as error:  # as above
            job.fail(error)


@dataclass(slots=True)
class _Row:
    """A choice at work: the state that its tokens have left, and the last of them."""

    answer: Answer
    state: State
    last_id: int = 0


class _Decoding:
    """A request at work."""

    def __init__(self, model: LocalModel, reader: Reader, job: Job) -> None:
        self._model, self._reader = model, reader
        self._answers = list(job.answers)
        self._unread_ids = list(job.prompt_ids)
        self._state = State()  # of the prompt
        self._rows: list[_Row] = []

    @torch.inference_mode()
    def step(self) -> list[EngineEvent]:
        """Reads a piece of the prompt, or adds a token to each choice."""
        if self._unread_ids:
            piece = self._unread_ids[: self._reader.piece_tokens]
            del self._unread_ids[: len(piece)]
            prompt_logits = self._reader.read(piece, self._state)
            if self._unread_ids:
                return []
            logits = [prompt_logits] * len(self._answers)
            first, *others = self._answers
            self._rows = [_Row(first, self._state), *(_Row(other, copy.deepcopy(self._state)) for other in others)]
        else:
            logits = [self._reader.read([row.last_id], row.state) for row in self._rows]
        events: list[EngineEvent] = []
        drawn = draw(logits, [row.answer.draw for row in self._rows])
        for row, row_logits, token_id in zip(self._rows, logits, drawn, strict=True):
            events += row.answer.add(self._model, row_logits, token_id)
            row.last_id = token_id
        self._rows = [row for row in self._rows if not row.answer.choice.is_ended]
        return events
