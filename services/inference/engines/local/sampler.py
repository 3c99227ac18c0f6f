"""Draws the next token of every sequence of a step, each as its own request asks.

The order is vLLM's: bias, end held back, penalties, what the output format allows, temperature, then the cuts min_p,
top_k, top_p. Presence and frequency penalties look at what was generated, the repetition penalty at the prompt as well.
A sequence's random numbers are its own, and so is every decision of how its numbers are computed, so that a seed gives
the same answer whatever runs beside it.
"""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from services.inference.engines.local.model import Defaults
from services.inference.generation import Sampling

SEED_BITS = 63
# A constant of splitmix64, so that the choices of one seed share no numbers.
CHOICE_STRIDE = 0x9E3779B97F4A7C15
# Tokens that are sorted for the cuts. They hold nearly all that a cut can keep, at a tenth of the cost of a full sort.
CANDIDATES = 1024
# In place of a token where the network's numbers are none.
NOT_DRAWN = -1


class Constraint(Protocol):
    """What the output format allows next."""

    def restrict(self, logits: torch.Tensor) -> None:
        """Sets to minus infinity what may not come next, in place, shape (vocabulary,)."""
        ...

    def accept(self, token_id: int) -> None:
        """Takes the token that was drawn."""
        ...

    @property
    def is_complete(self) -> bool:
        """Whether nothing more may be said."""
        ...


class Draw:
    """How one sequence draws: its parameters, its random numbers and what it has drawn."""

    def __init__(
        self,
        sampling: Sampling,
        defaults: Defaults,
        end_ids: frozenset[int],
        prompt_ids: Sequence[int],
        choice_index: int = 0,
        constraint: Constraint | None = None,
    ) -> None:
        self.temperature = _default(sampling.temperature, defaults.temperature)
        self.min_p = _default(sampling.min_p, defaults.min_p)
        self.top_k = int(_default(sampling.top_k, defaults.top_k))
        self.top_p = _default(sampling.top_p, defaults.top_p)
        self.top_logprobs = sampling.top_logprobs if sampling.logprobs else None
        self._repetition = _default(sampling.repetition_penalty, defaults.repetition_penalty)
        self._presence, self._frequency = sampling.presence_penalty or 0.0, sampling.frequency_penalty or 0.0
        self._bias_ids = torch.tensor(list(sampling.logit_bias), dtype=torch.long)
        self._bias = torch.tensor(list(sampling.logit_bias.values()), dtype=torch.float32)
        self._end_ids = end_ids
        self._min_tokens = sampling.min_tokens or 0
        self._constraint = constraint
        self._counts: dict[int, int] = {}
        self._seen = set(prompt_ids) if self._repetition != 1.0 else set()
        self._drawn_count = 0
        seed = secrets.randbits(SEED_BITS) if sampling.seed is None else sampling.seed
        self._random = random.Random((seed + choice_index * CHOICE_STRIDE) % 2**SEED_BITS)

    def adjusts(self, likeliest_id: int) -> bool:
        """Whether logits of which this is the likeliest are changed before the draw, so that it matters.

        Without a temperature it matters that the end is held back only where it is what would be taken.
        """
        penalises = self._presence or self._frequency or self._repetition != 1.0
        holds_back = self._holds_end and (self.temperature > 0 or likeliest_id in self._end_ids)
        return bool(penalises or len(self._bias) or holds_back or self._constraint is not None)

    @property
    def cuts(self) -> bool:
        """Whether unlikely tokens are taken out."""
        return self.min_p > 0 or self.top_k > 0 or self.top_p < 1

    @property
    def _holds_end(self) -> bool:
        return self._drawn_count < self._min_tokens and len(self._end_ids) > 0

    def adjust(self, logits: torch.Tensor) -> None:
        """Applies bias, penalties and format, in place, shape (vocabulary,)."""
        device = logits.device
        if len(self._bias):
            logits[self._bias_ids.to(device)] += self._bias.to(device)
        if self._holds_end:
            logits[torch.tensor(list(self._end_ids), device=device)] = -torch.inf
        if self._seen and self._repetition != 1.0:
            at = torch.tensor(list(self._seen), device=device)
            found = logits[at]
            logits[at] = torch.where(found > 0, found / self._repetition, found * self._repetition)
        if self._counts and (self._frequency or self._presence):
            at = torch.tensor(list(self._counts), device=device)
            counts = torch.tensor(list(self._counts.values()), dtype=torch.float32, device=device)
            logits[at] -= self._frequency * counts + self._presence
        if self._constraint is not None:
            self._constraint.restrict(logits)

    def uniform(self) -> float:
        """The next random number, at least 0 and less than 1."""
        return self._random.random()

    def accept(self, token_id: int) -> None:
        """Remembers what was drawn."""
        self._drawn_count += 1
        if self._frequency or self._presence:
            self._counts[token_id] = self._counts.get(token_id, 0) + 1
        if self._repetition != 1.0:
            self._seen.add(token_id)
        if self._constraint is not None:
            self._constraint.accept(token_id)


def draw(rows: Sequence[torch.Tensor], draws: Sequence[Draw]) -> list[int]:
    """Draws a token from each row of logits, float32, shape (vocabulary,), which stay as they are.

    Rows whose largest is no number get NOT_DRAWN: their sequences cannot go on, the others do.
    """
    token_ids, are_computed = likeliest(rows)
    changed = {at: rows[at].clone() for at, one in enumerate(draws) if are_computed[at] and one.adjusts(token_ids[at])}
    for at, row in changed.items():
        draws[at].adjust(row)
    rows, can_draw = [changed.get(at, row) for at, row in enumerate(rows)], list(are_computed)
    for at, token_id, is_number in zip(changed, *likeliest(list(changed.values())), strict=True):
        token_ids[at], can_draw[at] = token_id, is_number
    for cuts in (False, True):
        chosen = [at for at, one in enumerate(draws) if one.temperature > 0 and one.cuts == cuts and can_draw[at]]
        if chosen:
            drawn = _draw(torch.stack([rows[at] for at in chosen]), [draws[at] for at in chosen], cuts)
            for at, token_id in zip(chosen, drawn, strict=True):
                token_ids[at] = token_id
    for at, one in enumerate(draws):
        if are_computed[at]:
            one.accept(token_ids[at])
        else:
            token_ids[at] = NOT_DRAWN
    return token_ids


def likeliest(rows: Sequence[torch.Tensor]) -> tuple[list[int], list[bool]]:
    """Of each row the first of its largest, and whether that is a number: NaN counts as the largest of all.

    On a processor numpy finds it 17 times as fast as torch.
    """
    if not rows or rows[0].device.type == "cpu":
        numbers = [row.numpy() for row in rows]
        places = [int(each.argmax()) for each in numbers]
        return places, [math.isfinite(each[at]) for each, at in zip(numbers, places, strict=True)]
    largest = torch.stack(list(rows)).max(-1)
    return largest.indices.tolist(), largest.values.isfinite().tolist()


def _draw(logits: torch.Tensor, draws: Sequence[Draw], cuts: bool) -> list[int]:
    """Draws from logits, shape (rows, vocabulary), which are used up."""
    temperature = _column([one.temperature for one in draws], logits)
    # Divided after the largest was taken away: a tiny temperature then makes zeros and never infinities.
    scaled = logits.sub_(logits.amax(dim=-1, keepdim=True)).div_(temperature)
    uniform = _column([one.uniform() for one in draws], logits)
    if not cuts:
        return _pick(torch.softmax(scaled, dim=-1), uniform)
    return _draw_cut(scaled, draws, uniform, min(CANDIDATES, logits.shape[-1]))


def _draw_cut(scaled: torch.Tensor, draws: Sequence[Draw], uniform: torch.Tensor, candidates: int) -> list[int]:
    """Draws among the likeliest; rows whose cuts may reach beyond these candidates are drawn again among all."""
    vocabulary = scaled.shape[-1]
    values, order = _largest(scaled, candidates)
    shares = values.exp() / scaled.exp().sum(dim=-1, keepdim=True)  # the largest is 0
    min_p = _column([one.min_p for one in draws], scaled)
    top_k = _column([one.top_k or vocabulary for one in draws], scaled)
    top_p = _column([one.top_p for one in draws], scaled)
    likely = (shares >= min_p * shares[:, :1]) & (torch.arange(candidates, device=scaled.device) < top_k)
    kept = shares * likely
    # Where min_p and top_k end within the candidates, top_p counts what they leave; else it counts everything.
    ends = ~likely[:, -1:] | (top_k <= candidates) | (candidates == vocabulary)
    total = torch.where(ends, kept.sum(dim=-1, keepdim=True), 1.0)
    before = kept.cumsum(dim=-1) - kept
    kept = kept * (before < top_p * total)
    is_enough = (ends | (kept[:, -1:] == 0)).flatten().tolist()
    picked = order.gather(1, torch.tensor(_pick(kept, uniform), device=scaled.device)[:, None]).flatten().tolist()
    for at, enough in enumerate(is_enough):
        if not enough:
            (picked[at],) = _draw_cut(scaled[at : at + 1], draws[at : at + 1], uniform[at : at + 1], vocabulary)
    return [int(token_id) for token_id in picked]


def _largest(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest numbers of each row, falling, and where they are. On a processor numpy is twice as fast as torch."""
    if rows.device.type != "cpu":
        return rows.topk(count, dim=-1)
    numbers = -rows.numpy()
    if count == rows.shape[-1]:
        at = numbers.argsort(axis=-1)
    else:
        at = numbers.argpartition(count, axis=-1)[:, :count]
        at = np.take_along_axis(at, np.take_along_axis(numbers, at, axis=-1).argsort(axis=-1), axis=-1)
    order = torch.from_numpy(at)
    return rows.gather(1, order), order


def _pick(shares: torch.Tensor, uniform: torch.Tensor) -> list[int]:
    """Takes from each row the first index at which the sum of shares exceeds its random share of the whole."""
    sums = shares.cumsum(dim=-1)
    total = sums[:, -1:]
    target = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    indices: list[int] = torch.searchsorted(sums, target, right=True).flatten().tolist()
    return indices


def _column(numbers: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32, device=like.device)[:, None]


def _default(value: float | None, default: float) -> float:
    return default if value is None else value
