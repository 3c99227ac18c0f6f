"""How long a step takes by the tokens in it, and how many of a prompt may therefore join it.

Measured when the model is warm: a step costs what it takes to read the weights, and something for each token. What
steps in service take corrects it. Running answers share their steps with prompts, and slow down by a bounded factor
only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, islice

# How much longer a step may take because of prompts. Double is what a reader of running text should never notice; the
# rest is for what the figures leave out: attention, and a busy machine. With 1.7, 2,000 tokens made it 2.3 times, with
# 1.5 twice as long in int8.
STRETCH = 1.4
# Tokens of a step in which nobody waits for a token: larger ones bring nothing more on a processor.
STEP_TOKENS_MAX = 512
# A prompt gets on, however little a token more may cost. Where at least eight and half as many wait as run, they come
# in a wave, which is over sooner in larger pieces: of 32 callers who ask a GPT-2 at once the last gets a first token
# after 0.65 s in int8, 1.2 with pieces of 128, and all 6 to 9 % more tokens a second. The 99th percentile of pauses is
# 80 ms for 67 in int8, 240 for 150 in float32.
PREFILL_TOKENS_MIN, WAVE_TOKENS_MIN = 8, 256
# Fewer are no wave: four long prompts beside eight answers would be read in such pieces for seconds. But what is over
# in so many pieces is one, down to two who wait; of a wave most often its end. And where a token is dear, as of a large
# model, a piece must not stretch a step further than this.
WAVE_COUNT_MIN, WAVE_PIECES_MAX, WAVE_STRETCH_MAX = 8, 4, 4.0
# How much longer a step may take because of guesses: those whose own were wrong, or who have none, wait as long.
DRAFT_STRETCH = 2.0
# No guess is taken to cost less than this part: where a step was quick by chance.
DRAFT_PRICE_MIN = 0.25
# A step of so many tokens as none before has kernels made for it, which takes 3 to 10 ms and more. Larger steps
# therefore have whole multiples of these, as far as that is ours to choose: what begins and ends is as long as it is.
DRAFT_STEP_GRAIN, PROMPT_STEP_GRAIN = 4, 16
# Steps that are timed: one token, which is bound by reading weights; a prompt, by computing; and answers that get their
# next token, of which each reads all its keys and values, after one token and once more. The smallest cache holds them.
PROMPT_TOKENS = 64
DECODE_COUNT, DECODE_LENGTH = 8, 64
SAMPLE_COUNT = 3
# How fast what is seen in service replaces what was known: one odd step of a busy machine must not rule.
LEARNING = 0.25
# How fast a price of guesses is forgotten where none is paid, with each step: the machine may be free again.
FORGETTING = 0.02
# No step counts for more than so many times what was expected: it was the machine's doing.
SURPRISE_MAX = 4.0


@dataclass(slots=True)
class Pace:
    """The cost of a step, `step_s + row_s * decoding + token_s * tokens of prompts`, corrected by what steps take.

    Tokens of prompts turn out to cost more the further a prompt has been read: each must attend to more.

    Attributes:
        step_s: Of a step, whatever is in it.
        row_s: Of each sequence that gets its next token.
        token_s: Of each token of a prompt.
        stretch: How much longer than without prompts a step may take.
        slowness: What steps that only decode take, in parts of what was measured.
        prompt_token_s: Of each token of a prompt, as seen in service; 0: as measured.
        draft_price: Of each guess, in parts of a sequence or of a token of a prompt, whichever is dearer.
        change_s: Of a step that has not as many tokens as the one before: where the network is one graph, all its
            operators are given their shapes anew.
    """

    step_s: float
    row_s: float
    token_s: float
    stretch: float = STRETCH
    slowness: float = 1.0
    prompt_token_s: float = 0.0
    draft_price: float = 1.0
    change_s: float = 0.0
    _known_count: int = 0
    _last_count: int = 0

    def step_token_count(self, decode_count: int, in_play_count: int, unread_count: int) -> int:
        """Tokens that a step may compute: the running answers', and as many of prompts as the stretch allows.

        Who waits for a first token counts as much as who waits for the next one: where they are more, steps may be
        stretched by as much more.

        Args:
            decode_count: Sequences that get a token in this step.
            in_play_count: Sequences that will decode once those that wait have joined: while a batch fills up, its
                steps may take as long as those of the full batch.
            unread_count: Tokens of prompts that are still to be read.
        """
        if decode_count == 0:
            return STEP_TOKENS_MAX
        waiting_count = in_play_count - decode_count
        is_over_soon = waiting_count > 1 and unread_count <= WAVE_PIECES_MAX * WAVE_TOKENS_MIN
        is_wave = is_over_soon or waiting_count >= max(WAVE_COUNT_MIN, decode_count / 2)

        def fitting(stretch: float) -> int:
            spare_s = stretch * self._decode_s(in_play_count) - self._decode_s(decode_count)
            return int(spare_s / (self.prompt_token_s or self.token_s))

        share = fitting(1 + (self.stretch - 1) * max(1.0, waiting_count / decode_count))
        wave = min(fitting(WAVE_STRETCH_MAX), WAVE_TOKENS_MIN) if is_wave else 0
        prompt_count = max(share, wave, PREFILL_TOKENS_MIN)
        whole = _whole(decode_count + prompt_count, PROMPT_STEP_GRAIN)
        token_count = whole if whole >= decode_count + PREFILL_TOKENS_MIN else decode_count + prompt_count
        return min(token_count, max(STEP_TOKENS_MAX, decode_count))

    def draft_count(self, decode_count: int, worths: Iterable[float]) -> int:
        """How many guesses a step computes: as many as make most tokens a second.

        Args:
            decode_count: Sequences that get a token in this step.
            worths: How many tokens more each guess counts for, falling: how likely it is right, or more of it or less.
        """
        begin_s, draft_s = self._decode_s(decode_count), self._draft_s()
        count_max = int((DRAFT_STRETCH - 1) * begin_s / draft_s)
        rates = [
            made / (begin_s + count * draft_s + self._change_s(decode_count + count))
            for count, made in enumerate(accumulate(islice(worths, count_max), initial=float(decode_count)))
        ]
        token_count = decode_count + rates.index(max(rates))
        if token_count != self._last_count:
            token_count = max(_whole(token_count, DRAFT_STEP_GRAIN), decode_count)
        return token_count - decode_count

    def observe(self, decode_count: int, token_count: int, seconds: float, draft_count: int = 0) -> None:
        """Learns from a step that took so long.

        One in which nobody decodes is bound by nothing and teaches nothing. Nor does one with prompts where more decode
        than have ever been seen to decode alone: what those cost would be taken for the prompts' price.
        """
        change_s = self._change_s(token_count + draft_count)
        self._last_count = token_count + draft_count
        if decode_count == 0:
            return
        prompt_count, decode_s = token_count - decode_count, self._decode_s(decode_count)
        if prompt_count == 0:
            draft_s = draft_count * self._draft_s()
            expected_s = decode_s + draft_s + change_s
            # Which of them took longer than expected is not known: each has its share in it.
            surprise = LEARNING * _surprise(seconds, expected_s) / expected_s
            self.slowness *= 1 + decode_s * surprise
            self.change_s *= 1 + change_s * surprise
            if draft_count:
                self.draft_price = max(self.draft_price * (1 + draft_s * surprise), DRAFT_PRICE_MIN)
            else:
                self.draft_price += FORGETTING * (1 - self.draft_price)
                self._known_count = max(self._known_count, decode_count)
        elif decode_count <= self._known_count:
            known_s = self.prompt_token_s or self.token_s
            seen_s = min(max((seconds - decode_s) / prompt_count, self.token_s), SURPRISE_MAX * known_s)
            self.prompt_token_s = known_s + LEARNING * (seen_s - known_s)

    def _decode_s(self, count: int) -> float:
        return self.slowness * (self.step_s + count * self.row_s)

    def _change_s(self, token_count: int) -> float:
        return self.slowness * self.change_s if token_count != self._last_count else 0.0

    def _draft_s(self) -> float:
        return self.slowness * self.draft_price * max(self.row_s, self.token_s)


def _whole(token_count: int, grain: int) -> int:
    """So many tokens or fewer, of which small counts are left as they are."""
    return token_count - token_count % grain if token_count > 2 * grain else token_count


def _surprise(seconds: float, expected_s: float) -> float:
    """By what part of what was expected a step took longer."""
    return min(seconds / expected_s, SURPRISE_MAX) - 1


def measure(read: Callable[[int], float], decode: Callable[[int, int], float]) -> Pace:
    """Times steps.

    Args:
        read: Reads a prompt of so many tokens; returns the seconds.
        decode: Computes a token of each of so many answers, which are so long; returns the seconds.
    """
    one = min(read(1) for _ in range(SAMPLE_COUNT))
    prompt = min(read(PROMPT_TOKENS) for _ in range(SAMPLE_COUNT))
    changed, many = [], []
    for _ in range(SAMPLE_COUNT):
        read(1)
        changed.append(decode(DECODE_COUNT, DECODE_LENGTH))
        many.append(decode(DECODE_COUNT, DECODE_LENGTH))
    token_s = max((prompt - one) / (PROMPT_TOKENS - 1), 1e-7)
    row_s = max((min(many) - one) / (DECODE_COUNT - 1), 1e-7)
    change_s = max(min(changed) - min(many), 0.0)
    return Pace(max(one - row_s, 0.0), row_s, token_s, change_s=change_s)
