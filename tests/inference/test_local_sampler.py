"""What each sampling parameter does to the draw, on a vocabulary of a few tokens."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from services.inference.engines.local.model import Defaults
from services.inference.engines.local.sampler import CANDIDATES, Draw, draw
from services.inference.generation import Sampling

# Probabilities 0.5, 0.25, 0.15, 0.1.
LOGITS = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
DRAW_COUNT = 400


class Sampler:
    """One sequence on a vocabulary of four tokens whose last one ends the answer."""

    def __init__(self, defaults: Defaults | None = None, prompt_ids: tuple[int, ...] = (), **sampling: Any) -> None:
        parameters = Sampling(**{"seed": 1, **sampling})
        self._draw = Draw(parameters, defaults or Defaults(), frozenset({3}), prompt_ids)

    def draw(self, logits: torch.Tensor) -> int:
        """The next token."""
        (token_id,) = draw([logits], [self._draw])
        return token_id


def sampler(defaults: Defaults | None = None, prompt_ids: tuple[int, ...] = (), **sampling: Any) -> Sampler:
    """A sampler that has drawn nothing yet."""
    return Sampler(defaults, prompt_ids, **sampling)


def shares(defaults: Defaults | None = None, **sampling: Any) -> dict[int, float]:
    """How often each token is drawn."""
    drawn = sampler(defaults, **sampling)
    counts = Counter(drawn.draw(LOGITS) for _ in range(DRAW_COUNT))
    return {token: count / DRAW_COUNT for token, count in counts.items()}


def test_temperature_0_takes_the_likeliest() -> None:
    """Greedy is the default, and what 0 means."""
    assert shares() == shares(temperature=0.0) == {0: 1.0}


def test_greedy_takes_the_first_of_equals() -> None:
    """Of tokens that are equally likely the first is taken, wherever they stand, as torch does."""
    logits = torch.zeros(3, 50_257)
    logits[0, [40_000, 50_256]] = logits[1, [7, 8]] = 1.0
    alone = [Draw(Sampling(), Defaults(), frozenset(), ()) for _ in logits]

    assert draw([*logits], alone) == logits.argmax(dim=-1).tolist() == [40_000, 7, 0]


def test_temperature_1_draws_as_the_model_says() -> None:
    """At 1 the shares are the probabilities, within three standard deviations."""
    assert shares(temperature=1.0) == pytest.approx({0: 0.5, 1: 0.25, 2: 0.15, 3: 0.1}, abs=0.075)


def test_tiny_temperature_is_greedy() -> None:
    """A temperature next to nothing neither overflows nor varies."""
    assert shares(temperature=1e-6) == {0: 1.0}


@pytest.mark.parametrize(
    ("cut", "kept"),
    [
        ({"top_k": 2}, {0, 1}),
        ({"top_k": 0}, {0, 1, 2, 3}),
        ({"top_k": 99}, {0, 1, 2, 3}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.7}, {0, 1}),
        ({"top_p": 0.01}, {0}),
        ({"min_p": 0.4}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "min_p": 0.4}, {0, 1}),
    ],
)
def test_cuts_keep_the_likely(cut: dict[str, Any], kept: set[int]) -> None:
    """top_k, top_p and min_p keep exactly the tokens that they name."""
    assert set(shares(temperature=1.0, **cut)) == kept


def test_logit_bias_forces_and_forbids() -> None:
    """A bias of 100 forces a token, one of -100 forbids it."""
    assert shares(temperature=1.0, logit_bias={2: 100.0}) == {2: 1.0}
    assert 0 not in shares(temperature=1.0, logit_bias={0: -100.0})


def test_frequency_and_presence_penalties_count_what_was_generated() -> None:
    """Greedy decoding leaves a token once its penalty outweighs its lead; the prompt does not count."""
    lead = float(LOGITS[0] - LOGITS[1])
    often = sampler(frequency_penalty=lead * 0.6, prompt_ids=(0, 0, 0))
    once = sampler(presence_penalty=lead * 1.1, prompt_ids=(0,))

    assert [often.draw(LOGITS) for _ in range(3)] == [0, 0, 1]
    assert [once.draw(LOGITS) for _ in range(2)] == [0, 1]


def test_repetition_penalty_counts_the_prompt() -> None:
    """The repetition penalty falls on tokens of the prompt as well."""
    assert sampler(repetition_penalty=3.0, prompt_ids=(0,)).draw(LOGITS) != 0


def test_min_tokens_holds_the_end_back() -> None:
    """The end token cannot be drawn before min_tokens, and can be right after."""
    held = sampler(logit_bias={3: 100.0}, min_tokens=2)

    assert [held.draw(LOGITS) for _ in range(3)] == [0, 0, 3]


def test_seeds_repeat_and_choices_differ() -> None:
    """The same seed repeats its draws; no seed does not."""
    first, again, other = (sampler(temperature=1.0, seed=seed) for seed in (9, 9, None))
    draws = [[one.draw(LOGITS) for _ in range(40)] for one in (first, again, other)]

    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63)])
def test_every_seed_of_the_contract_is_taken(seed: int) -> None:
    """Seeds are any 64-bit number."""
    assert sampler(temperature=1.0, seed=seed).draw(LOGITS) in range(4)


def test_the_models_defaults_stand_in() -> None:
    """What generation_config.json asks for applies where the request says nothing, and gives way where it does."""
    defaults = Defaults(temperature=1.0, top_k=2)

    assert set(shares(defaults)) == {0, 1}
    assert set(shares(defaults, top_k=0)) == {0, 1, 2, 3}
    assert shares(defaults, temperature=0.0) == {0: 1.0}


LARGE = torch.randn(4 * CANDIDATES, generator=torch.Generator().manual_seed(2))


def kept_by_definition(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> set[int]:
    """What the cuts leave, computed the slow way: min_p, then top_k, then top_p on what is left."""
    left = sorted(((float(p), at) for at, p in enumerate(torch.softmax(logits.double(), 0))), reverse=True)
    left = [(p, at) for p, at in left if p >= min_p * left[0][0]][: top_k or None]
    total, before, kept = sum(p for p, _ in left), 0.0, set()
    for p, at in left:
        if before < top_p * total:
            kept.add(at)
        before += p
    return kept


@pytest.mark.parametrize(
    "cut",
    [{"top_p": 0.3}, {"top_p": 0.97}, {"top_k": 50, "top_p": 0.9}, {"top_k": 2000}, {"min_p": 0.3}, {"min_p": 0.001}],
)
def test_cuts_of_a_large_vocabulary(cut: dict[str, Any]) -> None:
    """However far the cuts reach, within the candidates or beyond them, every draw is one that they leave."""
    kept = kept_by_definition(LARGE, **cut)
    draws = [Draw(Sampling(temperature=1.0, seed=at, **cut), Defaults(), frozenset(), ()) for at in range(500)]

    drawn = set(draw([LARGE] * 500, draws))

    assert drawn <= kept
    assert len(drawn) > min(len(kept), 500) / 4


def test_rows_do_not_know_each_other() -> None:
    """A row is drawn alike alone and among rows of every kind, which a batch computes together."""
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 5},
        {"temperature": 1.3, "top_p": 0.99},
        {"temperature": 1.0, "min_p": 0.01, "frequency_penalty": 1.0},
        {"temperature": 0.9, "logit_bias": {5: 3.0}, "repetition_penalty": 1.2},
    ]
    asks = [{**kind, "seed": at} for at, kind in enumerate(kinds * 5)]
    logits = torch.randn(len(asks), len(LARGE), generator=torch.Generator().manual_seed(4))

    def made() -> list[Draw]:
        return [Draw(Sampling(**ask), Defaults(), frozenset({3}), (1, 2)) for ask in asks]

    together, alone = made(), made()
    for _ in range(4):
        drawn = draw([*logits], together)
        assert drawn == [draw([row], [one])[0] for row, one in zip(logits, alone, strict=True)]
