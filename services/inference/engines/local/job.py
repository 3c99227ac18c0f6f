"""A request on its way through the model's thread: what is asked, who reads the answer, and how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.errors import Internal
from services.inference.engines.local.outbox import Outbox
from services.inference.generation import EngineCompleted, EngineEvent, Sampling, Usage

if TYPE_CHECKING:  # the event loop's side never waits for torch
    import torch

    from services.inference.engines.local.choice import Choice
    from services.inference.engines.local.model import LocalModel
    from services.inference.engines.local.sampler import Constraint, Draw
    from services.inference.engines.local.tool_calls import ToolCallReader

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Job:
    """One call of the engine.

    Attributes:
        name: The model's, for the receipt.
        prompt_ids: What to continue.
        sampling: How.
        outbox: Where its events go.
        token_count_max: Most tokens of prompt and answer together.
        tenant: Who asks.
        priority: Higher goes first.
        constrain: Makes what holds one choice to its output format; None: any text will do.
        read_calls: Makes what reads calls of tools out of one choice; None: it may call none.
        started_s: When the model began to work on it, by the same clock as `arrived_s`; None: not yet.
        is_cancelled: Whether nobody wants the answer any more.
        cached_count: Tokens of the prompt that were not computed, because another request had the same.
        answers: Its choices, once the thread has taken it on.
        arrived_s: When it came, by the monotonic clock.
        is_left: Whether nothing more is done for it.
        on_left: Told of that, in the model's thread.
    """

    name: str
    prompt_ids: list[int]
    sampling: Sampling
    outbox: Outbox
    token_count_max: int
    tenant: str = ""
    priority: int = 0
    constrain: Callable[[], Constraint] | None = None
    read_calls: Callable[[], ToolCallReader] | None = None
    started_s: float | None = None
    is_cancelled: bool = False
    cached_count: int = 0
    answers: list[Answer] = field(default_factory=list)
    arrived_s: float = field(default_factory=time.monotonic)
    is_left: bool = False
    on_left: Callable[[], object] | None = None

    @property
    def is_started(self) -> bool:
        """Whether the model works on it, or has."""
        return self.started_s is not None

    @property
    def queue_s(self) -> float:
        """How long it has waited, or had to, until the model began to work on it."""
        return (time.monotonic() if self.started_s is None else self.started_s) - self.arrived_s

    @property
    def usage(self) -> Usage:
        """What was done for it so far, read by anybody; nothing before the model works on it."""
        if not self.is_started:
            return Usage()
        completion_count = sum(answer.choice.token_count for answer in self.answers)
        return Usage(len(self.prompt_ids), completion_count, cached_prompt_token_count=self.cached_count)

    @property
    def is_done(self) -> bool:
        """Whether every choice has ended."""
        return bool(self.answers) and all(answer.choice.is_ended for answer in self.answers)

    def begin(self, model: LocalModel) -> None:
        """Makes its choices, in the model's thread."""
        from services.inference.engines.local.choice import Choice
        from services.inference.engines.local.sampler import Draw

        room = self.token_count_max - len(self.prompt_ids)
        answer_max = min(self.sampling.max_tokens or model.defaults.max_tokens or room, room)
        end_ids = model.end_ids | set(self.sampling.stop_token_ids)
        for index in range(self.sampling.n):
            constraint = self.constrain() if self.constrain else None
            calls = self.read_calls() if self.read_calls else None
            decode = model.decode_marked if calls else model.decode
            choice = Choice(decode, end_ids, self.sampling, self.prompt_ids, index, answer_max, calls)
            draw = Draw(self.sampling, model.defaults, end_ids, self.prompt_ids, index, constraint)
            self.answers.append(Answer(self, choice, draw, constraint))

    def put(self, events: Sequence[EngineEvent]) -> None:
        """Hands events to the reader, and the receipt after the last of them."""
        if self.is_done:
            events = [*events, EngineCompleted(self.usage, target_model=self.name)]
        self.outbox.put(events)

    def leave(self) -> None:
        """Says that nothing more is done for it; its usage is final."""
        self.is_left = True
        if self.on_left:
            try:
                self.on_left()
            except RuntimeError:
                logger.debug("a job was left after its reader's event loop had closed")

    def fail(self, error: Exception) -> None:
        """Ends it with an error."""
        try:
            self.outbox.fail(error)
        except RuntimeError:
            logger.exception("a job failed after its reader's event loop had closed", exc_info=error)


@dataclass(eq=False, slots=True)
class Answer:
    """One choice of a job at work: what it says, how it draws, and what it is held to."""

    job: Job
    choice: Choice
    draw: Draw
    constraint: Constraint | None
    last_token_s: float | None = None

    def add(self, model: LocalModel, logits: torch.Tensor, token_id: int) -> list[EngineEvent]:
        """Takes the token that was drawn from logits of shape (vocabulary,), and returns what may leave.

        Raises:
            Internal: LOGITS_NOT_FINITE; none could be drawn.
        """
        if token_id < 0:
            problem = "what the model computes for this prompt is no number; ask another model"
            raise Internal("LOGITS_NOT_FINITE", problem)
        logprob = None
        if self.draw.top_logprobs is not None:
            logprob = model.logprob(logits, token_id, self.draw.top_logprobs)
        return self.choice.add(token_id, logprob, self.constraint is not None and self.constraint.is_complete)
