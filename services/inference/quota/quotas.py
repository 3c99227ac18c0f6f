"""Quotas: lets a request in if every limit of its caller has room for what it may use.

    which limits hold -> what the request may use of each -> claimed all at once, or refused -> a reservation

Callers without limits cost nothing: no store is asked. What a request has used is settled by whoever ends it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

import msgspec

from kit.errors import FailedPrecondition
from kit.identity import Caller
from services.inference.events import Receipt
from services.inference.generation import Usage
from services.inference.quota.applying import Applying, slot_of
from services.inference.quota.demand import cost_micro_usd_max, prompt_token_count, text_token_count
from services.inference.quota.exceeding import quota_exceeded
from services.inference.quota.keeper import Keeper
from services.inference.quota.limit import Claim, Limit, LimitState, Standing, Unit, Window, amount_in
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.opening import Opening
from services.inference.quota.reservation import Reservation
from services.inference.quota.store import QuotaStore
from services.inference.quota.tiers import QuotaRules
from services.inference.request import Request
from services.inference.routing.router import Route


class Quotas:
    """Lets requests in.

    Args:
        rules: The quotas file.
        store: Counts.
        keeper: Looks after reservations.
        opening: Tells budgets what was used of them before they were counted; None tells them nothing.
    """

    def __init__(self, rules: QuotaRules, store: QuotaStore, keeper: Keeper, opening: Opening | None = None) -> None:
        self._applying = Applying(rules)
        self._store, self._keeper, self._opening = store, keeper, opening

    def put_in_force(self, rules: QuotaRules) -> None:
        """Goes by another reading of the quotas file from now on; what is reserved stays as it is."""
        self._applying = Applying(rules)

    async def admit(self, request: Request, route: Route, receipt: Receipt) -> Request:
        """Reserves what a generation may use; its reservation, and where the limits stand, go into the receipt.

        Returns:
            The request, with a bound on its answer where it sets none and tokens or money are limited.
        Raises:
            ResourceExhausted: A limit has no room (RATE_LIMITED, TOKENS_LIMITED, BUDGET_EXCEEDED, CONCURRENCY_LIMITED).
            FailedPrecondition: Money is limited and the price is not known (PRICE_UNKNOWN), where the file minds.
            InvalidArgument: The request names a limit that there is not.
            Unavailable: The counts are away and requests are to be refused then (QUOTAS_UNAVAILABLE).
        """
        limits = self._limits(request)
        if not limits:
            return request
        if all(limit.unit is Unit.REQUESTS for limit in limits):
            await self._reserve(request, route, limits, Usage(), receipt)
            return request
        request = self._bounded(request)
        sampling = request.prompt.sampling
        usage = Usage(prompt_token_count(request.prompt), (sampling.max_tokens or 0) * sampling.n)
        await self._reserve(request, route, limits, usage, receipt)
        return request

    async def admit_texts(self, request: Request, texts: Sequence[str], route: Route, receipt: Receipt) -> None:
        """Reserves what an embedding may use; raises as `admit`."""
        if limits := self._limits(request):
            usage = Usage(text_token_count(list(texts)))
            await self._reserve(request, route, limits, usage, receipt)

    async def standing(self, caller: Caller) -> tuple[LimitState, ...]:
        """Where the limits of a caller stand; asking counts for nothing.

        Raises:
            Unavailable: The counts are away and requests are refused then (QUOTAS_UNAVAILABLE).
        """
        limits = self._applying.limits_of(caller, "")
        if not limits:
            return ()
        claim = Claim("", slot_of(caller.tenant), limits, (0,) * len(limits))
        return _states(limits, await self._take(claim, caller))

    def _limits(self, request: Request) -> tuple[Limit, ...]:
        if request.cache.lease_id:
            return ()  # the cache has an answer made anew on its own account: whoever asked last did not ask for that
        return self._applying.limits_of(request.caller, request.limit)

    def _bounded(self, request: Request) -> Request:
        sampling = request.prompt.sampling
        if sampling.max_tokens is not None:
            return request
        bounded = msgspec.structs.replace(sampling, max_tokens=self._applying.rules.answer_token_count_max)
        return msgspec.structs.replace(request, prompt=msgspec.structs.replace(request.prompt, sampling=bounded))

    def _cost(self, limits: tuple[Limit, ...], route: Route, usage: Usage) -> int:
        if all(limit.unit is not Unit.MICRO_USD for limit in limits):
            return 0
        cost = cost_micro_usd_max(route, usage)
        if cost is None and self._applying.rules.unpriced == "refuse":
            raise FailedPrecondition("PRICE_UNKNOWN", f"no price is known for model {route.model_name!r}; set one")
        return cost or 0

    async def _reserve(
        self, request: Request, route: Route, limits: tuple[Limit, ...], usage: Usage, receipt: Receipt
    ) -> None:
        cost = self._cost(limits, route, usage)
        tokens = usage.prompt_token_count + usage.completion_token_count
        amounts = tuple([amount_in(limit.unit, 1, tokens, cost) for limit in limits])
        claim = Claim(secrets.token_hex(12), slot_of(request.caller.tenant), limits, amounts)
        try:
            standings = await self._take(claim, request.caller)
        except asyncio.CancelledError:
            self._keeper.wake()  # it may have been granted to nobody
            raise
        receipt.limits = _states(limits, standings)
        if not all(standing.fits for standing in standings):
            raise quota_exceeded(limits, amounts, standings)
        if claim.is_held:
            receipt.reservation = Reservation(claim, self._keeper.end)
            receipt.reservation.progress = lambda: _so_far(receipt, route, usage)
            self._keeper.hold(receipt.reservation)

    async def _take(self, claim: Claim, caller: Caller) -> tuple[Standing, ...]:
        return await (self._opening.take(claim, caller) if self._opening else self._store.take(claim))


def unlimited() -> Quotas:
    """Quotas that limit nobody."""
    store = MemoryStore()
    return Quotas(QuotaRules(version=1), store, Keeper(store))


def _so_far(receipt: Receipt, route: Route, reserved: Usage) -> tuple[Usage, int] | None:
    """What a request has used by now, as far as its answer has grown; None where nobody counts as it grows."""
    if not receipt.produced:
        return None
    usage = Usage(reserved.prompt_token_count, sum(receipt.produced.values()))
    return usage, cost_micro_usd_max(route, usage) or 0


def _states(limits: Sequence[Limit], standings: Sequence[Standing]) -> tuple[LimitState, ...]:
    return tuple([_state(limit, standing) for limit, standing in zip(limits, standings, strict=True)])


def _state(limit: Limit, standing: Standing) -> LimitState:
    maximum = limit.burst if limit.window is Window.MINUTE else limit.maximum
    return LimitState(limit.name, limit.unit, limit.window, maximum, standing.remaining, standing.reset_ms / 1000)
