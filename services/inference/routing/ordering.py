"""Ordering: which target of a route is asked first, and which follow where it fails.

A route's policy orders the targets of one model; those of the caller's fallbacks come after, each model's by its own
policy. Pure: what is known of the targets, and chance, is handed in. It asks nobody and remembers nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from kit.errors import InvalidArgument
from services.inference.attempts.targets import TargetState
from services.inference.generation import Usage
from services.inference.request import Request
from services.inference.routing.capabilities import needs
from services.inference.routing.router import Route, RouteTarget

StateOf = Callable[[RouteTarget], TargetState]
CHARS_PER_TOKEN = 4  # of English text with common tokenizers; prices are compared, never charged, by it
COMPLETION_TOKEN_COUNT = 256  # of an answer whose length the caller leaves open


def order(route: Route, request: Request, state_of: StateOf, draw: Callable[[], float]) -> tuple[RouteTarget, ...]:
    """Orders the targets that are able to answer a request.

    Policies: `ordered` keeps the order of the file. The others put those last that rest or whose breaker is open, and
    before them those of weight 0: `weighted` draws by weight, `least_busy` takes the less busy of two that are drawn,
    `cheapest` looks at what the request would cost, unknown prices last.

    Args:
        route: From the router.
        request: What is asked.
        state_of: What is known of a target.
        draw: Uniform numbers from 0 up to 1.
    Raises:
        InvalidArgument: No target can do what is asked; names the field.
    """
    if len(route.own) == 1 and not route.fallbacks and route.own[0].target.capabilities is None:
        return route.own  # the usual route costs nothing; an engine refuses by itself what it cannot do
    ordered: list[RouteTarget] = []
    for one in (route, *route.fallbacks):
        ordered += _by_policy(one, request, state_of, draw)
    if route.fallbacks:  # one may name what the model has already
        ordered = list(dict.fromkeys(ordered))
    return _able(ordered, request)


def longer_than(left: Iterable[RouteTarget], failed: RouteTarget) -> list[RouteTarget]:
    """Those of the targets left that may take a prompt which was too long for one of them.

    Where the context of either is unknown it may; the same model at the same place never does.
    """
    limit = failed.target.context_token_count_max
    return [one for one in left if one.identity != failed.identity and _is_longer(one, limit)]


def _is_longer(one: RouteTarget, limit: int | None) -> bool:
    context = one.target.context_token_count_max
    return limit is None or context is None or context > limit


def _able(candidates: Sequence[RouteTarget], request: Request) -> tuple[RouteTarget, ...]:
    needed = needs(request.prompt)
    able = tuple(one for one in candidates if needed.keys() <= one.target.abilities)
    # One that declares nothing is asked for anything: its engine refuses in its own words.
    able = able or tuple(one for one in candidates if one.target.capabilities is None)
    if able:
        return able
    most = max(candidates, key=lambda one: len(needed.keys() & one.target.abilities))
    missing = next(name for name in needed if name not in most.target.abilities)
    raise InvalidArgument(needed[missing], f"no target of this model supports {missing}; leave it out")


def _by_policy(route: Route, request: Request, state_of: StateOf, draw: Callable[[], float]) -> Sequence[RouteTarget]:
    policy = route.rules.policy
    if policy == "ordered" or len(route.own) == 1:
        return route.own
    if policy == "weighted":
        ordered = sorted(route.own, key=lambda one: _weighted(one, draw), reverse=True)
    elif policy == "least_busy":
        ordered = _least_busy(list(route.own), state_of, draw)
    else:
        expected = _expected(request)
        ordered = sorted(route.own, key=lambda one: _price(one, expected))
    return sorted(ordered, key=lambda one: (state_of(one).retry_after_s() > 0, one.target.weight == 0))


def _weighted(candidate: RouteTarget, draw: Callable[[], float]) -> float:
    """A key by which to sort for a weighted draw without replacement.

    Source: Efraimidis and Spirakis 2006, weighted random sampling with a reservoir.
    """
    weight = candidate.target.weight
    return math.log(1 - draw()) / weight if weight else -math.inf


def _least_busy(left: list[RouteTarget], state_of: StateOf, draw: Callable[[], float]) -> list[RouteTarget]:
    """Draws two of those left, again and again, and takes the less busy one.

    Source: Mitzenmacher 2001, the power of two choices in randomized load balancing: as even as looking at all, and
    callers that look at the same moment do not all run to the same target.
    """
    ordered = []
    while len(left) > 1:
        first = int(draw() * len(left))
        second = int(draw() * (len(left) - 1))
        second += second >= first
        takes_second = _is_less_busy(state_of(left[second]), state_of(left[first]))
        ordered.append(left.pop(second if takes_second else first))
    return ordered + left


def _is_less_busy(one: TargetState, other: TargetState) -> bool:
    """Whether one is expected to begin sooner; where the time of either is unknown, whether it has fewer calls."""
    if one.first_tokens.ewma_s is None or other.first_tokens.ewma_s is None:
        return one.running_count < other.running_count
    return _load(one.first_tokens.ewma_s, one) < _load(other.first_tokens.ewma_s, other)


def _load(ewma_s: float, state: TargetState) -> float:
    return ewma_s * (state.running_count + 1)


def _expected(request: Request) -> Usage:
    asked = request.prompt.sampling.max_tokens
    return Usage(request.char_count // CHARS_PER_TOKEN, COMPLETION_TOKEN_COUNT if asked is None else asked)


def _price(candidate: RouteTarget, expected: Usage) -> float:
    cost = candidate.target.cost_micro_usd(expected)
    return float("inf") if cost is None else cost
