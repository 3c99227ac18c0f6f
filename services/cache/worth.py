"""What an entry is worth keeping: the rule by which a full store lets entries go.

An entry's score is `floor + (1 + uses) * worth / size`: what it has saved per byte, on top of the age of the store. The
lowest score leaves first, and then is the floor for entries that are stored or used from then on. So an entry that was
used often long ago sinks below one that is used now, without any ever being scored again.

Source: GreedyDual-Size-Frequency, Cherkasova 1998 (HPL-98-69R1).
"""

from collections import Counter
from enum import IntEnum
from typing import Final

from services.cache.entry import Savings

# A machine that is rented for 1 USD an hour, in millionths of a USD per millisecond.
TIME_MICRO_USD_PER_MS: Final = 1_000_000 / 3_600_000
# A small hosted model, in millionths of a USD; taken where the producer knew no price.
TOKEN_MICRO_USD: Final = 1.0


class EvictionReason(IntEnum):
    """Why a store let an entry go by itself, numbered as in the contract."""

    ENTRIES = 1
    BYTES = 2
    EXPIRED = 3


# Entries that a store let go since it started.
Evictions = Counter[EvictionReason]


def worth(savings: Savings | None) -> float:
    """What one hit saves, in millionths of a US dollar: price and time. Above 0, for every hit saves a call."""
    if savings is None:
        return TOKEN_MICRO_USD
    price = float(savings.prompt_token_count + savings.completion_token_count) * TOKEN_MICRO_USD
    if savings.cost_micro_usd is not None:
        price = savings.cost_micro_usd
    return TOKEN_MICRO_USD + price + TIME_MICRO_USD_PER_MS * (savings.generation_ms or 0)


def score(floor: float, use_count: int, density: float) -> float:
    """Scores an entry whose `density` is its worth per byte."""
    return floor + (1 + use_count) * density


def bound_passed(entry_count: int, entries_max: int, size_bytes: int, bytes_max: int) -> EvictionReason | None:
    """Which bound a store has passed, if any."""
    if entry_count > entries_max:
        return EvictionReason.ENTRIES
    return EvictionReason.BYTES if size_bytes > bytes_max else None
