"""What two questions have in common, in numbers."""

import pytest

from services.cache.semantic.features import NAMES, Frequencies, Surroundings, describe
from services.cache.semantic.words import parse

ALONE = Surroundings([0.9], ["one"])


def overlap(one: str, other: str) -> float:
    """The share of the words in common, as the model sees it."""
    return float(describe(parse(one), parse(other), Frequencies(), ALONE, 0)[NAMES.index("overlap")])


@pytest.mark.parametrize("misspelt", ["acount", "acccount", "accuont"])
def test_a_misspelt_word_is_shared(misspelt: str) -> None:
    """A letter left out, doubled or swapped leaves the word the same; another word that begins alike is another."""
    right = overlap("close my account now", "close my account now")

    assert overlap("close my account now", f"close my {misspelt} now") == pytest.approx(right)
    assert overlap("close my account now", "close my accordion now") < right


def test_a_word_is_the_twin_of_one() -> None:
    """Of two words that are misspellings of the same, one is shared and one is left over."""
    both = overlap("account", "acount")

    assert overlap("account", "acount accunt") < both
