"""Draws one choice's next token from the logits, as its request asks.

The order is vLLM's: bias, end held back, penalties, temperature, then the cuts min_p, top_k, top_p. Presence and
frequency penalties look at what was generated, the repetition penalty at the prompt as well. Its random numbers are
its own, so that a seed gives the same answer whatever runs beside it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import torch

from services.inference.engines.local_model import Defaults, LocalModel
from services.inference.generation import Sampling, TokenLogprob, TopLogprob

SEED_BITS = 63
# A constant of splitmix64, so that the choices of one seed share no numbers.
CHOICE_STRIDE = 0x9E3779B97F4A7C15


class Sampler:
    """The sampling state of one choice."""

    def __init__(self, model: LocalModel, sampling: Sampling, prompt_ids: Sequence[int], choice_index: int) -> None:
        self._model = model
        self._sampling = sampling
        defaults = model.defaults
        self._temperature = _default(sampling.temperature, defaults.temperature)
        self._cut = _Cut(sampling, defaults)
        self._repetition = _default(sampling.repetition_penalty, defaults.repetition_penalty)
        self._presence, self._frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
        self._counts = torch.zeros(model.vocab_size, device=model.device)
        self._seen = torch.zeros(model.vocab_size, dtype=torch.bool, device=model.device)
        if self._repetition != 1.0:
            self._seen[torch.tensor(prompt_ids, device=model.device)] = True
        bias = [(token, value) for token, value in sampling.logit_bias.items()]
        self._bias_ids = torch.tensor([token for token, _ in bias], dtype=torch.long, device=model.device)
        self._bias = torch.tensor([value for _, value in bias], dtype=torch.float32, device=model.device)
        ends = sorted(model.end_ids | set(sampling.stop_token_ids))
        self._end_ids = torch.tensor(ends, dtype=torch.long, device=model.device)
        self._drawn_count = 0
        self._random = torch.Generator(device=model.device)
        seed = secrets.randbits(SEED_BITS) if sampling.seed is None else sampling.seed
        self._random.manual_seed((seed + choice_index * CHOICE_STRIDE) % 2**SEED_BITS)

    def draw(self, logits: torch.Tensor) -> tuple[int, TokenLogprob | None]:
        """Draws from logits of shape (vocabulary,); the log probability is the model's own, before all adjustments."""
        raw = logits.float()
        adjusted = self._adjust(raw)
        if self._temperature == 0.0:
            token_id = int(adjusted.argmax())
        else:
            # Divided after the largest was taken away: a tiny temperature then makes zeros and never infinities.
            scaled = (adjusted - adjusted.max()) / self._temperature
            kept = torch.softmax(self._cut(scaled), dim=-1)
            token_id = int(torch.multinomial(kept, 1, generator=self._random))
        self._counts[token_id] += 1
        self._seen[token_id] = True
        self._drawn_count += 1
        return token_id, self._logprob(raw, token_id) if self._sampling.logprobs else None

    def _adjust(self, raw: torch.Tensor) -> torch.Tensor:
        logits = raw.clone()
        if len(self._bias_ids):
            logits[self._bias_ids] += self._bias
        if self._drawn_count < (self._sampling.min_tokens or 0):
            logits[self._end_ids] = -torch.inf
        if self._repetition != 1.0:
            scaled = torch.where(logits > 0, logits / self._repetition, logits * self._repetition)
            logits = torch.where(self._seen, scaled, logits)
        if self._frequency or self._presence:
            logits -= self._frequency * self._counts + self._presence * (self._counts > 0)
        return logits

    def _logprob(self, raw: torch.Tensor, token_id: int) -> TokenLogprob:
        logprobs = torch.log_softmax(raw, dim=-1)
        values, ids = logprobs.topk(min(self._sampling.top_logprobs, len(logprobs)))
        top = tuple(
            TopLogprob((token := self._model.token_bytes(other)).decode("utf-8", "replace"), value, token)
            for other, value in zip(ids.tolist(), values.tolist(), strict=True)
        )
        token = self._model.token_bytes(token_id)
        return TokenLogprob(token.decode("utf-8", "replace"), float(logprobs[token_id]), token, top)


class _Cut:
    """Takes unlikely tokens out of logits whose largest is 0."""

    def __init__(self, sampling: Sampling, defaults: Defaults) -> None:
        self._min_p = _default(sampling.min_p, defaults.min_p)
        self._top_k = int(_default(sampling.top_k, defaults.top_k))
        self._top_p = _default(sampling.top_p, defaults.top_p)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        if self._min_p > 0:
            probabilities = torch.softmax(logits, dim=-1)
            logits = logits.masked_fill(probabilities < self._min_p * probabilities.max(), -torch.inf)
        if 0 < self._top_k < len(logits):
            least = logits.topk(self._top_k).values[-1]
            logits = logits.masked_fill(logits < least, -torch.inf)
        if self._top_p < 1:
            ordered, order = logits.sort(descending=True, stable=True)
            probabilities = torch.softmax(ordered, dim=-1)
            before = probabilities.cumsum(dim=-1) - probabilities
            logits = logits.index_fill(0, order[before >= self._top_p], -torch.inf)
        return logits


def _default(value: float | None, default: float) -> float:
    return default if value is None else value
