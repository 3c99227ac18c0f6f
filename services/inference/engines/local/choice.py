"""One answer as it grows: from tokens to the events that its reader gets, and when it ends. It knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

from services.inference.engines.local.text import Decode, Detokenizer, StopGate
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineEvent,
    FinishReason,
    Sampling,
    TokenLogprob,
)


class Choice:
    """One choice of a request."""

    def __init__(
        self,
        decode: Decode,
        end_ids: frozenset[int],
        sampling: Sampling,
        prompt_ids: Sequence[int],
        index: int,
        token_count_max: int,
    ) -> None:
        """Begins an answer.

        Args:
            decode: Turns ids into text.
            end_ids: Tokens that end an answer of the model.
            sampling: Where it stops.
            prompt_ids: What it continues.
            index: Which choice it is.
            token_count_max: Most tokens of the answer.
        """
        self.token_count = 0
        self.is_ended = False
        self.index = index
        self._token_count_max = token_count_max
        self._end_ids = end_ids | set(sampling.stop_token_ids)
        self._detokenizer = Detokenizer(decode, prompt_ids)
        self._gate = StopGate(sampling.stop)

    def add(self, token_id: int, logprob: TokenLogprob | None, is_complete: bool = False) -> list[EngineEvent]:
        """Takes the next token and returns what may leave because of it; a complete answer ends with it."""
        self.token_count += 1
        if token_id in self._end_ids:
            return [*self._delta(*self._gate.flush()), self._finish(FinishReason.STOP)]
        delta = self._delta(*self._gate.add(self._detokenizer.add(token_id), logprob))
        if self._gate.stopped_by:
            return [*delta, self._finish(FinishReason.STOP)]
        if is_complete:
            return [*delta, *self._delta(*self._gate.flush()), self._finish(FinishReason.STOP)]
        if self.token_count >= self._token_count_max:
            return [*delta, *self._delta(*self._gate.flush()), self._finish(FinishReason.LENGTH)]
        return delta

    def _delta(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[EngineEvent]:
        if not text and not logprobs:
            return []
        return [Delta(self.index, text, logprobs=logprobs, completion_token_count=self.token_count)]

    def _finish(self, reason: FinishReason) -> ChoiceFinished:
        self.is_ended = True
        return ChoiceFinished(self.index, reason, self._gate.stopped_by)
