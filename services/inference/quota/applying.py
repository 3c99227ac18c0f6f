"""Applying: from who calls to the limits that hold for the call.

Pure decisions over the quotas file, remembered per caller. It counts nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kit.errors import InvalidArgument
from kit.identity import ANONYMOUS, Caller
from services.inference.quota.limit import Limit, Unit, Window
from services.inference.quota.tiers import Allowance, QuotaRules, Tier

# Callers whose limits are remembered; whoever calls anonymously can invent as many as it likes.
REMEMBERED_MAX = 4096
NO_TIER = Tier()
# What an allowance has a field for: the field, the unit and the window.
RATES = (("requests", Unit.REQUESTS), ("tokens", Unit.TOKENS))
BUDGETS = (("per_day", Window.DAY), ("per_month", Window.MONTH))


class Applying:
    """The limits of each caller, by one reading of the quotas file."""

    def __init__(self, rules: QuotaRules) -> None:
        self.rules = rules
        self._remembered: dict[tuple[Caller, str], tuple[Limit, ...]] = {}

    def limits_of(self, caller: Caller, named: str) -> tuple[Limit, ...]:
        """Every limit that a caller's request has to fit into; none where it is not limited.

        Args:
            caller: Who calls.
            named: The further limit that the request asks for, or nothing.
        Raises:
            InvalidArgument: There is no limit of this name.
        """
        known = self._remembered.get((caller, named))
        if known is not None:
            return known
        limits = tuple(self._find(caller, named))
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[caller, named] = limits
        return limits

    def _find(self, caller: Caller, named: str) -> Iterator[Limit]:
        tier = self.rules.tiers.get(caller.tier) or self.rules.tiers.get(self.rules.roles.get(caller.role, ""), NO_TIER)
        if caller.key_id:
            yield from _limits("key", caller.key_id, tier.key)
        if caller.principal != ANONYMOUS:
            yield from _limits("user", caller.principal, tier.user)
        elif caller.role == "anonymous":  # who is known cannot get more by another client id
            yield from _limits("client", caller.client_id, tier.client)
        yield from _limits("tenant", caller.tenant, self.rules.tenants.get(caller.tenant) or self._any_tenant())
        if named:
            yield from self._named(caller, named)

    def _any_tenant(self) -> Allowance:
        return self.rules.tenants.get("*", Allowance())

    def _named(self, caller: Caller, named: str) -> Iterator[Limit]:
        found = self.rules.named.get(named)
        if found is None:
            known = ", ".join(self.rules.named) or "none"
            raise InvalidArgument("spec.limit", f"there is no limit {named[:64]!r}; known: {known}")
        yield from _limits(f"{named}:client", caller.client_id or caller.principal, found.client)


def slot_of(tenant: str) -> str:
    """What the keys of a tenant share."""
    return _digest(tenant)


def _limits(kind: str, subject: str, allowed: Allowance) -> Iterator[Limit]:
    """The limits of one allowance, for one subject."""
    name = kind.replace(":", "_").replace("-", "_")
    digest = _digest(f"{kind}:{subject}")

    def limit(what: str, unit: Unit, window: Window, maximum: int, burst: int | None = None) -> Limit:
        return Limit(f"{name}_{what}", f"{kind}:{subject}", f"{digest}:{what}", unit, window, maximum, burst or maximum)

    if allowed.concurrent_requests:
        yield limit("concurrent_requests", Unit.REQUESTS, Window.AT_ONCE, allowed.concurrent_requests)
    for what, unit in RATES:
        if maximum := getattr(allowed, f"{what}_per_minute"):
            burst = getattr(allowed, f"{what}_burst")
            yield limit(f"{what}_per_minute", unit, Window.MINUTE, maximum, burst)
    for what, window in BUDGETS:
        if tokens := getattr(allowed, f"tokens_{what}"):
            yield limit(f"tokens_{what}", Unit.TOKENS, window, tokens)
        if dollars := getattr(allowed, f"usd_{what}"):
            yield limit(f"usd_{what}", Unit.MICRO_USD, window, round(dollars * 1_000_000))


def _digest(text: str) -> str:
    """Stands for a name in a store: names of people and addresses have no business there."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
