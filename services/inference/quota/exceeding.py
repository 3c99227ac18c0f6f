"""What a caller is told whose limit is used up: which limit, how it stands, and when to come back."""

from __future__ import annotations

from collections.abc import Sequence

from kit.errors import ResourceExhausted
from services.inference.quota.limit import Limit, Standing, Unit, Window

NEVER = float("inf")


def quota_exceeded(limits: Sequence[Limit], amounts: Sequence[int], standings: Sequence[Standing]) -> ResourceExhausted:
    """The error of a claim that was not granted, told by the limit that has the longest wait."""
    refusing = [one for one in zip(limits, amounts, standings, strict=True) if not one[2].fits]
    limit, amount, standing = max(refusing, key=lambda one: NEVER if one[2].wait_ms is None else one[2].wait_ms)
    return ResourceExhausted(
        _reason(limit),
        _message(limit, amount, standing),
        retry_after_ms=standing.wait_ms,
        quota_violations=[(one.subject, _message(one, asked, stands)) for one, asked, stands in refusing],
        metadata={
            "limit": limit.name,
            "maximum": str(limit.maximum),
            "remaining": str(standing.remaining),
            "reset_ms": str(standing.reset_ms),
        },
    )


def _reason(limit: Limit) -> str:
    if limit.window is Window.AT_ONCE:
        return "CONCURRENCY_LIMITED"
    if limit.window is Window.MINUTE:
        return "RATE_LIMITED" if limit.unit is Unit.REQUESTS else "TOKENS_LIMITED"
    return "BUDGET_EXCEEDED"


def _message(limit: Limit, amount: int, standing: Standing) -> str:
    if standing.wait_ms is None:
        most, asked = _amount(limit, limit.burst), _amount(limit, amount)
        return f"the request needs up to {asked}, and {limit.name} allows {most} in all; ask for less (max_tokens)"
    of = _amount(limit, limit.maximum)
    if limit.window is Window.AT_ONCE:
        return f"{limit.name}: {of} run, the most allowed; retry when one has ended"
    left = _amount(limit, standing.remaining)
    return (
        f"{limit.name}: {left} left of {of}, too little for {_amount(limit, amount)}; retry after {standing.wait_ms} ms"
    )


def _amount(limit: Limit, amount: int) -> str:
    if limit.unit is Unit.MICRO_USD:
        return f"{amount / 1e6:.6f} USD"
    return f"{amount:,} {'tokens' if limit.unit is Unit.TOKENS else 'request' + 's' * (amount != 1)}"
