"""Spending: what a request has used, all its attempts together, the failed and the overtaken ones included.

What a caller is told as usage is that of the answer alone; what is charged and kept is what was really spent.
"""

from __future__ import annotations

from typing import NamedTuple

from services.inference.events import AttemptOutcome, Receipt
from services.inference.generation import Usage

# How surely tokens are known: by the upstream's own word, by Millrace's count, by the length of the text.
REPORTED, COUNTED, ESTIMATED = "reported", "counted", "estimated"
SURENESS = (REPORTED, COUNTED, ESTIMATED)
NOTHING = Usage()


class Spent(NamedTuple):
    """Tokens, how surely they are known (empty where there are none), and what they cost: None where unknown."""

    usage: Usage
    source: str
    cost_micro_usd: int | None


def spent(receipt: Receipt) -> Spent:
    """What all attempts of a request have used; a kept answer has none, but those that it came in place of."""
    made = [one for one in receipt.attempts if one.outcome is not AttemptOutcome.SKIPPED and one.usage != NOTHING]
    if not made and receipt.engine == "cache":
        return Spent(NOTHING, "", 0)
    if not made:
        return Spent(receipt.usage, "", receipt.cost_micro_usd if receipt.usage != NOTHING else 0)
    if len(made) == 1:
        return Spent(made[0].usage, made[0].usage_source, made[0].cost_micro_usd)
    costs = [one.cost_micro_usd for one in made]
    return Spent(
        Usage(
            sum(one.usage.prompt_token_count for one in made),
            sum(one.usage.completion_token_count for one in made),
            sum(one.usage.cached_prompt_token_count for one in made),
            sum(one.usage.reasoning_token_count for one in made),
            any(one.usage.estimated for one in made),
        ),
        max((one.usage_source for one in made), key=SURENESS.index),
        None if None in costs else sum(cost for cost in costs if cost is not None),
    )
