"""How long a step takes by the tokens in it, and how many of a prompt may therefore join it.

Measured once, when the model is warm: a step costs what it takes to read the weights, and something for each token.
Running answers share their steps with prompts, and slow down by a bounded factor only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

# How much longer a step may take because of prompts. Double is what a reader of running text should never notice; the
# rest is for what the two figures leave out: attention, and a busy machine. With 1.7, 2,000 tokens made it 2.3 times.
STRETCH = 1.5
# Tokens of a step in which nobody waits for a token: larger ones bring nothing more on a processor.
STEP_TOKENS_MAX = 512
# A prompt gets on, however little a token more may cost.
PREFILL_TOKENS_MIN = 8
# Steps that are timed: one that is bound by reading weights, one by computing.
SAMPLE_TOKENS = (1, 64)
SAMPLE_COUNT = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """The cost of a step: `step_s + token_s * tokens`."""

    step_s: float
    token_s: float
    stretch: float = STRETCH

    def step_token_count(self, decode_count: int, in_play_count: int) -> int:
        """Tokens that a step may compute: the running answers', and as many of prompts as the stretch allows.

        Args:
            decode_count: Sequences that get a token in this step.
            in_play_count: Sequences that will decode once those that wait have joined: while a batch fills up, its
                steps may take as long as those of the full batch.
        """
        if decode_count == 0:
            return STEP_TOKENS_MAX
        allowed = self.stretch * in_play_count + (self.stretch - 1) * self.step_s / self.token_s
        return min(max(int(allowed), decode_count + PREFILL_TOKENS_MIN), STEP_TOKENS_MAX)


def measure(run: Callable[[int], float]) -> Pace:
    """Times steps; `run` computes one of so many tokens and returns the seconds."""
    few, many = SAMPLE_TOKENS
    short = min(run(few) for _ in range(SAMPLE_COUNT))
    long = min(run(many) for _ in range(SAMPLE_COUNT))
    token_s = max((long - short) / (many - few), 1e-7)
    return Pace(max(short - few * token_s, 0.0), token_s)
