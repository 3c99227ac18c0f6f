"""The wait before a target is asked again: exponential, with full jitter, so that callers who failed together do not
come back together. It only reckons; whether there is time for it is the deadline's matter.
"""

from __future__ import annotations

from collections.abc import Callable

from services.inference.routing.rules import RetryRule


def backoff_s(rule: RetryRule, retry_number: int, retry_after_s: float | None, random: Callable[[], float]) -> float:
    """Draws how long to wait before a repeated try.

    Args:
        rule: The bounds.
        retry_number: Repeated tries before this one; 0 for the first.
        retry_after_s: What the target asked for: the wait is never shorter. None: it asked for nothing.
        random: Numbers in [0, 1).
    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    bound_s = min(rule.backoff_s_max, rule.backoff_s * 2.0**retry_number)
    return max(bound_s * random(), retry_after_s or 0.0)
