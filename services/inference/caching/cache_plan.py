"""The plan of how the cache takes part in one request: the route's rules, narrowed by the caller's wish.

The caller can ask for less of the cache and for stricter matches, never for more than the operator allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from kit.identity import ANONYMOUS, Caller
from services.inference.caching import canonical
from services.inference.caching.cache_port import CacheDraft, CacheKey, CacheQuery, SemanticQuery
from services.inference.request import CacheWish, Request
from services.inference.routing.router import Route
from services.inference.routing.rules import CacheRule

ONLY_IF_CACHED = "only_if_cached"
OWNER_LENGTH_MAX = 256  # what the cache's contract takes as a user
LEASE_S = 3.0  # three times as long as one who makes an answer is silent towards the cache


class CachePlan(msgspec.Struct, frozen=True):
    """How the cache takes part in one request; `reason` tells why where it does not.

    Attributes:
        query: What is looked up before; None: nothing.
        draft: What an answer is kept as; None: none is kept.
        spare: What is looked up where every target has failed; None: nothing.
    """

    reason: str = ""
    query: CacheQuery | None = None
    draft: CacheDraft | None = None
    spare: CacheQuery | None = None


def plan(request: Request, route: Route) -> CachePlan:
    """Joins the caller's wish with the route's rules.

    Raises:
        InvalidArgument: The route does not offer the safety profile that is asked for.
    """
    rule, degrade, wish = route.rules.cache, route.rules.degrade, request.cache
    if reason := _bypass(request, rule):
        return CachePlan(reason)
    profile = route.rules.safety.chosen(request.safety_profile)
    text = canonical.compared_text(request.prompt) if rule.semantic.enabled or degrade.similar else None
    key = _key(request, route, profile, text)
    similar = _semantic(text, rule, wish)
    writes = wish.mode not in ("read_only", ONLY_IF_CACHED)
    query = spare = draft = None
    if wish.mode != "refresh":
        lease_s = LEASE_S if writes and rule.single_flight else None
        semantic, refresh = similar if rule.semantic.enabled else None, lease_s is not None and rule.refresh_ahead
        query = CacheQuery(key, wish.age_max_s, semantic=semantic, lease_s=lease_s, refresh=refresh)
        if degrade.stale or (degrade.similar and similar):
            spare = CacheQuery(key, wish.age_max_s, degrade.stale, similar if degrade.similar else None)
    if writes:
        ttl_s = max(1.0, min(rule.ttl_s, wish.ttl_s or rule.ttl_s))  # the cache's contract knows none shorter
        draft = CacheDraft(key, ttl_s, degrade.stale_for_s if degrade.stale else None, wish.tags, text)
    return CachePlan("" if query else "the caller asked for a fresh answer", query, draft, spare)


def _bypass(request: Request, rule: CacheRule) -> str:
    """Why the cache takes no part; empty where it does."""
    wish, sampling = request.cache, request.prompt.sampling
    if not rule.enabled:
        return "the route does not use the cache"
    if wish.mode == "off":
        return "the caller asked for no caching"
    if sampling.temperature and sampling.seed is None and not rule.sampled:
        return "the request asks for variety: temperature above 0 and no seed"
    if _is_per_user(wish, rule) and not owner(request.caller, request.prompt.end_user_id):
        return "entries are per user, and the request names none"
    return ""


def owner(caller: Caller, end_user_id: str | None) -> str:
    """Whose entries are a user's own: those of the principal that calls, for the end user that it names.

    What a request says of its user is its caller's word, so that no principal reads what another one's users were told.
    A principal that names nobody stands for itself; an anonymous caller who names nobody owns nothing: empty.
    """
    principal = caller.principal
    if principal == ANONYMOUS and not end_user_id:
        return ""
    name = f"{len(principal)}:{principal}:{end_user_id or ''}"  # the length tells where the principal ends
    return name if len(name) <= OWNER_LENGTH_MAX else hashlib.sha256(name.encode()).hexdigest()


def _is_per_user(wish: CacheWish, rule: CacheRule) -> bool:
    return "user" in (wish.scope, rule.scope)


def _key(request: Request, route: Route, profile: str, text: str | None) -> CacheKey:
    """The key: that of an answer which may serve similar requests differs from that of one which may not."""
    is_own = _is_per_user(request.cache, route.rules.cache)
    user = owner(request.caller, request.prompt.end_user_id) if is_own else ""
    targets = tuple(candidate.identity for candidate in route.targets)
    shaping = (route.model_name, targets, request.prompt, profile)
    context = canonical.context_digest(*shaping) if text is not None else b""
    return CacheKey(request.tenant, user, route.model_name, canonical.digest(*shaping), context)


def _semantic(text: str | None, rule: CacheRule, wish: CacheWish) -> SemanticQuery | None:
    """What similar answers will do: of each bound the stricter one."""
    if text is None or wish.semantic is False:
        return None
    return SemanticQuery(
        text,
        _stricter(max, rule.semantic.similarity_min, wish.similarity_threshold),
        _stricter(min, rule.semantic.error_max, wish.error_max),
    )


def _stricter(choose: Callable[[list[float]], float], theirs: float | None, ours: float | None) -> float | None:
    given = [bound for bound in (theirs, ours) if bound is not None]
    return choose(given) if given else None
