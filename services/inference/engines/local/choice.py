"""One answer as it grows: from tokens to the events that its reader gets, and when it ends. It knows no torch."""

from __future__ import annotations

from collections.abc import Sequence

from services.inference.engines.local.text import Decode, Detokenizer, StopGate
from services.inference.engines.local.tool_calls import ToolCallReader, joined
from services.inference.generation import (
    ChoiceFinished,
    Delta,
    EngineEvent,
    FinishReason,
    Sampling,
    TokenLogprob,
    ToolCallDelta,
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
        calls: ToolCallReader | None = None,
    ) -> None:
        """Begins an answer.

        Args:
            decode: Turns ids into text.
            end_ids: Tokens that end an answer of the model.
            sampling: Where it stops.
            prompt_ids: What it continues.
            index: Which choice it is.
            token_count_max: Most tokens of the answer.
            calls: Reads calls of tools out of it; None: there are none.
        """
        self.token_count = 0
        self.is_ended = False
        self.index = index
        self.token_count_max = token_count_max
        self._end_ids = end_ids | set(sampling.stop_token_ids)
        self._detokenizer = Detokenizer(decode, prompt_ids)
        self._gate = StopGate(sampling.stop)
        self._calls = calls
        self._logprobs: tuple[TokenLogprob, ...] = ()  # of text that may be the beginning of a call

    def add(self, token_id: int, logprob: TokenLogprob | None, is_complete: bool = False) -> list[EngineEvent]:
        """Takes the next token and returns what may leave because of it; a complete answer ends with it."""
        self.token_count += 1
        if token_id in self._end_ids:
            return self._end(FinishReason.STOP, *self._gate.flush())
        text, logprobs = self._gate.add(self._detokenizer.add(token_id), logprob)
        if self._gate.stopped_by:
            return self._end(FinishReason.STOP, text, logprobs)
        delta = self._delta(text, logprobs)
        if is_complete or (self._calls and self._calls.is_over):
            return [*delta, *self._end(FinishReason.STOP, *self._gate.flush())]
        if self.token_count >= self.token_count_max:
            return [*delta, *self._end(FinishReason.LENGTH, *self._gate.flush())]
        return delta

    def _delta(
        self, text: str, logprobs: tuple[TokenLogprob, ...], end: FinishReason | None = None
    ) -> list[EngineEvent]:
        calls: tuple[ToolCallDelta, ...] = ()
        if self._calls is not None:
            text, calls = self._calls.add(text)
            if end is not None:
                rest, more = self._calls.flush(is_cut=end is FinishReason.LENGTH)
                text, calls = text + rest, joined((*calls, *more))
            logprobs = self._of_text(text, logprobs)
        if not text and not logprobs and not calls:
            return []
        return [Delta(self.index, text, tool_calls=calls, logprobs=logprobs, completion_token_count=self.token_count)]

    def _of_text(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> tuple[TokenLogprob, ...]:
        """Log probabilities that may leave: those of text, which wait for it; a call has none."""
        assert self._calls
        self._logprobs += logprobs
        leaving = self._logprobs if text else ()
        if text or self._calls.call_count:
            self._logprobs = ()
        return leaving

    def _end(self, reason: FinishReason, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[EngineEvent]:
        self.is_ended = True
        delta = self._delta(text, logprobs, reason)
        if reason is FinishReason.STOP and self._calls and self._calls.call_count:
            reason = FinishReason.TOOL_CALLS
        return [*delta, ChoiceFinished(self.index, reason, self._gate.stopped_by)]
