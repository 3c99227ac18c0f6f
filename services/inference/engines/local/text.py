"""From tokens to text that may leave: whole characters only, and never a part of a stop string.

`Detokenizer` turns ids into text as they come; `StopGate` holds text back for as long as it could be the beginning of
a stop string. Neither knows torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.inference.generation import TokenLogprob

REPLACEMENT = "\ufffd"
# Tokens of the prompt that give the first token its context: some tokenizers write a space depending on what stands
# before.
CONTEXT_TOKENS = 5
# A character has at most four bytes, hence at most four tokens. More that make no character are broken and pass as
# such.
BROKEN_TOKENS = 8


class Decode(Protocol):
    """Turns ids into text, without special tokens."""

    def __call__(self, token_ids: Sequence[int], /) -> str:
        """Returns the text."""
        ...


class Detokenizer:
    """Decodes a growing sequence, a token at a time.

    Source: the two offsets of text-generation-inference and vLLM; correct for every tokenizer, at two short decodes a
    token.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int]) -> None:
        self._decode = decode
        self._window = list(prompt_ids[-CONTEXT_TOKENS:])
        self._known = len(self._window)

    def add(self, token_id: int) -> str:
        """Returns the text that this token completes; empty within a character."""
        self._window.append(token_id)
        before = self._decode(self._window[: self._known])
        text = self._decode(self._window)
        if len(text) <= len(before) or (
            text.endswith(REPLACEMENT) and len(self._window) - self._known <= BROKEN_TOKENS
        ):
            return ""
        self._window = self._window[self._known :]
        self._known = len(self._window)
        return text[len(before) :]


@dataclass
class StopGate:
    """Lets text and its log probabilities through that no stop string can claim any more."""

    stops: Sequence[str]
    stopped_by: str = ""
    _held: str = ""
    _let_through: int = 0  # characters, from the beginning of the answer
    _logprobs: list[tuple[int, TokenLogprob]] = field(default_factory=list)  # with the character that each ends at

    def add(self, text: str, logprob: TokenLogprob | None) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Takes the text of one token and returns what may leave; after a stop string, `stopped_by` names it."""
        self._held += text
        if logprob is not None:
            # A token within a character ends with that character, which is at least one further on.
            end = self._let_through + len(self._held) + (0 if text else 1)
            self._logprobs.append((end, logprob))
        # The one that is complete first ends the answer, as if characters came one by one; of two, the longer.
        found = min(((at + len(s), at, s) for s in self.stops if (at := self._held.find(s)) >= 0), default=None)
        if found is None:
            return self._release(len(self._held) - self._possible_beginning())
        _, begin, self.stopped_by = found
        return self._release(begin)

    def flush(self) -> tuple[str, tuple[TokenLogprob, ...]]:
        """Returns what is still held, for an answer that ended otherwise."""
        text, logprobs = self._release(len(self._held))
        unfinished = tuple(logprob for _, logprob in self._logprobs)
        self._logprobs.clear()
        return text, logprobs + unfinished

    def _possible_beginning(self) -> int:
        """Length of the longest end of the held text that a stop string begins with."""
        longest = max(map(len, self.stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self.stops):
                return length
        return 0

    def _release(self, length: int) -> tuple[str, tuple[TokenLogprob, ...]]:
        text, self._held = self._held[:length], self._held[length:]
        self._let_through += length
        count = 0
        while count < len(self._logprobs) and self._logprobs[count][0] <= self._let_through:
            count += 1
        released = tuple(logprob for _, logprob in self._logprobs[:count])
        del self._logprobs[:count]
        return text, released
