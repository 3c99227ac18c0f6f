"""How long a step takes by the tokens in it, and how many of a prompt may therefore join it.

Measured when the model is warm: a step costs what it takes to read the weights, and something for each token. What
steps in service take corrects it. Running answers share their steps with prompts, and slow down by a bounded factor
only.
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


# How fast what is seen in service replaces what was known: one odd step of a busy machine must not rule.
LEARNING = 0.25
# No step counts for more than so many times what was expected: it was the machine's doing.
SURPRISE_MAX = 4.0


@dataclass(slots=True)
class Pace:
    """The cost of a step, `step_s + token_s * tokens`, corrected by what steps in service take.

    Tokens of prompts have a price of their own: the further a prompt has been read, the more each must attend to.

    Attributes:
        step_s: Of a step, whatever is in it.
        token_s: Of each token.
        stretch: How much longer than without prompts a step may take.
        slowness: What steps that only decode take, in parts of what was measured.
        prompt_token_s: Of each token of a prompt; 0: as any other.
    """

    step_s: float
    token_s: float
    stretch: float = STRETCH
    slowness: float = 1.0
    prompt_token_s: float = 0.0

    def step_token_count(self, decode_count: int, in_play_count: int) -> int:
        """Tokens that a step may compute: the running answers', and as many of prompts as the stretch allows.

        Args:
            decode_count: Sequences that get a token in this step.
            in_play_count: Sequences that will decode once those that wait have joined: while a batch fills up, its
                steps may take as long as those of the full batch.
        """
        if decode_count == 0:
            return STEP_TOKENS_MAX
        spare_s = self.stretch * self._decode_s(in_play_count) - self._decode_s(decode_count)
        prompt_count = max(int(spare_s / (self.prompt_token_s or self.token_s)), PREFILL_TOKENS_MIN)
        return min(decode_count + prompt_count, max(STEP_TOKENS_MAX, decode_count))

    def observe(self, decode_count: int, token_count: int, seconds: float) -> None:
        """Learns from a step that took so long; one in which nobody decodes is bound by nothing and teaches nothing."""
        if decode_count == 0:
            return
        prompt_count, expected_s = token_count - decode_count, self._decode_s(decode_count)
        if prompt_count == 0:
            seen = min(seconds / expected_s, SURPRISE_MAX)
            self.slowness += LEARNING * (self.slowness * seen - self.slowness)
            return
        known_s = self.prompt_token_s or self.token_s
        seen_s = min(max((seconds - expected_s) / prompt_count, self.token_s), SURPRISE_MAX * known_s)
        self.prompt_token_s = known_s + LEARNING * (seen_s - known_s)

    def _decode_s(self, count: int) -> float:
        return self.slowness * (self.step_s + count * self.token_s)


def measure(run: Callable[[int], float]) -> Pace:
    """Times steps; `run` computes one of so many tokens and returns the seconds."""
    few, many = SAMPLE_TOKENS
    short = min(run(few) for _ in range(SAMPLE_COUNT))
    long = min(run(many) for _ in range(SAMPLE_COUNT))
    token_s = max((long - short) / (many - few), 1e-7)
    return Pace(max(short - few * token_s, 0.0), token_s)
