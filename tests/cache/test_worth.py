import pytest

from services.cache.entry import Savings
from services.cache.worth import EvictionReason, bound_passed, score, worth


@pytest.mark.parametrize(
    ("less", "more"),
    [
        (None, Savings(10, 20)),
        (Savings(10, 20), Savings(10, 21)),
        (Savings(10, 20, cost_micro_usd=5), Savings(10, 20, cost_micro_usd=6)),
        (Savings(10, 20, cost_micro_usd=5), Savings(10, 20, cost_micro_usd=5, generation_ms=100)),
        (Savings(cost_micro_usd=0, generation_ms=500), Savings(cost_micro_usd=0, generation_ms=5_000)),
    ],
)
def test_worth_follows_price_and_time(less: Savings | None, more: Savings):
    """A hit is worth more the dearer and the slower the answer was; tokens count where no price is known."""
    assert 0 < worth(less) < worth(more)


def test_known_price_goes_before_tokens():
    """Where the price is known, tokens say nothing more."""
    assert worth(Savings(10, 20, 7)) == worth(Savings(1000, 2000, 7))


def test_score_rises_with_uses_density_and_floor():
    """An entry is scored by what it has saved per byte on top of the floor, so a newcomer is always above the floor."""
    assert score(5.0, 0, 0.001) > 5.0
    assert score(5.0, 3, 0.001) > score(5.0, 2, 0.001)
    assert score(5.0, 2, 0.002) > score(5.0, 2, 0.001)
    assert score(6.0, 0, 0.001) > score(5.0, 0, 0.001)


def test_bounds_are_inclusive():
    """A store may hold exactly its bounds; beyond one of them it says which."""
    assert bound_passed(10, 10, 100, 100) is None
    assert bound_passed(11, 10, 100, 100) is EvictionReason.ENTRIES
    assert bound_passed(10, 10, 101, 100) is EvictionReason.BYTES
