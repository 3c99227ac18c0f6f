"""The plan: when the cache takes part, and how strictly."""

from __future__ import annotations

from typing import Any

import pytest

from kit.identity import Caller
from services.inference.caching import cache_plan
from services.inference.caching.cache_plan import CachePlan
from services.inference.caching.cache_port import SemanticQuery
from services.inference.generation import Sampling
from services.inference.request import CacheWish, Request
from services.inference.routing.rules import CacheRule, DegradeRule, Rules, SafetyRule, SemanticRule
from tests.inference.parts import prompt, route

RULE = CacheRule()
SEMANTIC = CacheRule(semantic=SemanticRule(enabled=True))


def plan(
    wish: CacheWish | None = None, rule: CacheRule = RULE, degrade: DegradeRule | None = None, **fields: Any
) -> CachePlan:
    asked = Request("r1", "acme", "gpt", prompt(**fields), cache=wish or CacheWish())
    return cache_plan.plan(asked, route(rules=Rules(cache=rule, degrade=degrade or DegradeRule())))


@pytest.mark.parametrize(
    ("mode", "reads", "writes", "leads"),
    [
        (None, True, True, True),
        ("read_write", True, True, True),
        ("read_only", True, False, False),
        ("only_if_cached", True, False, False),
        ("refresh", False, True, False),
        ("off", False, False, False),
    ],
)
def test_callers_choose_how_the_cache_takes_part(mode: str | None, reads: bool, writes: bool, leads: bool) -> None:
    """And are told why, where nothing is looked up. Who keeps nothing makes no answer for others either."""
    said = plan(CacheWish(mode=mode))

    assert (said.query is not None, said.draft is not None) == (reads, writes)
    assert bool(said.query and said.query.lease_s) is leads
    assert bool(said.reason) is not reads


def test_callers_cannot_switch_it_on() -> None:
    """The route's no is final, and a lifetime can only be shortened."""

    def ttl_s(wish: CacheWish) -> float:
        draft = plan(wish).draft
        assert draft
        return draft.ttl_s

    off = plan(CacheWish(mode="read_write"), CacheRule(enabled=False))
    assert (off.query, off.draft, off.spare) == (None, None, None)
    assert "route" in off.reason
    assert ttl_s(CacheWish(ttl_s=60)) == 60
    assert ttl_s(CacheWish(ttl_s=7_200)) == ttl_s(CacheWish()) == RULE.ttl_s


def test_an_answer_past_its_time_is_kept_where_the_route_may_give_it() -> None:
    """For as long as its rule says, and looked up when all else has failed; other routes do neither."""
    stale, never = plan(degrade=DegradeRule(stale=True, stale_for_s=60)), plan(degrade=DegradeRule(stale_for_s=60))

    assert stale.draft
    assert stale.spare
    assert (stale.draft.stale_for_s, stale.spare.allow_stale, stale.spare.lease_s) == (60, True, None)
    assert never.draft
    assert (never.draft.stale_for_s, never.spare) == (None, None)


@pytest.mark.parametrize("mode", ["refresh", "off"])
def test_who_wants_no_kept_answer_gets_none_in_need_either(mode: str) -> None:
    """The caller's wish holds also when all else has failed."""
    assert plan(CacheWish(mode=mode), SEMANTIC, DegradeRule(stale=True, similar=True)).spare is None


@pytest.mark.parametrize(
    ("sampling", "is_cached"),
    [
        (Sampling(), True),
        (Sampling(temperature=0), True),
        (Sampling(temperature=0.7, seed=1), True),
        (Sampling(temperature=0.7, seed=0), True),
        (Sampling(temperature=0.7), False),
    ],
)
def test_a_wish_for_variety_is_honoured(sampling: Sampling, is_cached: bool) -> None:
    """Who asks for chance and fixes no seed gets no kept answer, unless the route says so."""
    assert (plan(sampling=sampling).query is not None) is (plan(sampling=sampling).draft is not None) is is_cached
    assert plan(rule=CacheRule(sampled=True), sampling=sampling).query


@pytest.mark.parametrize(
    ("wished", "ruled", "user"),
    [
        ("user", "tenant", "9:anonymous:u"),
        ("tenant", "user", "9:anonymous:u"),
        (None, "user", "9:anonymous:u"),
        ("tenant", "tenant", ""),
        (None, "tenant", ""),
    ],
)
def test_the_narrower_scope_counts(wished: str | None, ruled: Any, user: str) -> None:
    """Entries are the user's own where either side says so; without a user there are none."""
    wish, rule = CacheWish(scope=wished), CacheRule(scope=ruled)
    named = plan(wish, rule, end_user_id="u")

    assert named.query
    assert named.query.key.user == user
    assert (plan(wish, rule).query is not None) is (user == "")


def test_a_users_entries_are_its_principals() -> None:
    """Naming another principal's user gives nobody its entries; a principal that names none has its own."""
    owners = [cache_plan.owner(Caller(who), user) for who in ("ann", "bob") for user in ("u", "v", None)]

    assert len({*owners, cache_plan.owner(Caller(), "u")}) == 7
    assert cache_plan.owner(Caller(), None) == cache_plan.owner(Caller(), "") == ""
    assert cache_plan.owner(Caller("a"), "b:c") != cache_plan.owner(Caller("a:b"), "c")
    long = [cache_plan.owner(Caller("p" * 256), "u" * 255 + last) for last in "xy"]
    assert len(set(long)) == 2
    assert max(map(len, long)) <= cache_plan.OWNER_LENGTH_MAX


def test_a_principal_is_a_user() -> None:
    """Where entries are per user, a caller that is known needs no end user's name."""
    asked = Request("r1", "acme", "gpt", prompt(), cache=CacheWish(scope="user"), caller=Caller("ann"))
    said = cache_plan.plan(asked, route(rules=Rules(cache=RULE)))

    assert said.query
    assert said.query.key.user == "3:ann:"


def test_single_flight_is_the_routes_matter() -> None:
    """A route may have every call make its own answer."""
    alone = plan(rule=CacheRule(single_flight=False))

    assert alone.query
    assert alone.query.lease_s is None


def test_similar_answers_are_off_unless_the_route_says_so() -> None:
    """Whatever the caller asks for; the key then stands for the very same request only."""
    said = plan(CacheWish(semantic=True, error_max=0.5))

    assert said.query
    assert said.draft
    assert (said.query.semantic, said.query.key.context, said.draft.compare_text) == (None, b"", None)


def test_similar_answers_where_the_route_says_so() -> None:
    """Looked up and kept by the text of the last turn; a caller who wants none still keeps under the same key."""
    said, without = plan(rule=SEMANTIC), plan(CacheWish(semantic=False), SEMANTIC)

    assert said.query
    assert said.draft
    assert (said.query.semantic, said.draft.compare_text) == (SemanticQuery("hi"), "hi")
    assert len(said.query.key.context) == 32
    assert without.query
    assert without.query.semantic is None
    assert without.query.key == said.query.key


@pytest.mark.parametrize(
    ("wish", "rule", "bounds"),
    [
        (CacheWish(), SemanticRule(enabled=True), (None, None)),
        (CacheWish(), SemanticRule(enabled=True, error_max=0.05, similarity_min=0.9), (0.9, 0.05)),
        (CacheWish(error_max=0.01, similarity_threshold=0.95), SemanticRule(enabled=True), (0.95, 0.01)),
        (
            CacheWish(error_max=0.01, similarity_threshold=0.95),
            SemanticRule(enabled=True, error_max=0.05, similarity_min=0.9),
            (0.95, 0.01),
        ),
        (
            CacheWish(error_max=0.5, similarity_threshold=0.1),
            SemanticRule(enabled=True, error_max=0.05, similarity_min=0.9),
            (0.9, 0.05),
        ),
    ],
)
def test_of_two_bounds_the_stricter_counts(
    wish: CacheWish, rule: SemanticRule, bounds: tuple[float | None, float | None]
) -> None:
    """A caller may ask for surer answers than the operator, never for less sure ones."""
    said = plan(wish, CacheRule(semantic=rule), DegradeRule(similar=True))

    assert said.query
    assert said.query.semantic
    assert (said.query.semantic.similarity_min, said.query.semantic.error_max) == bounds
    assert said.spare
    assert said.spare.semantic == said.query.semantic


def test_similar_answers_in_need_only() -> None:
    """A route may give them only where every target has failed; they are kept for that."""
    said = plan(degrade=DegradeRule(similar=True))

    assert said.query
    assert said.query.semantic is None
    assert said.spare
    assert (said.spare.semantic, said.spare.allow_stale) == (SemanticQuery("hi"), False)
    assert said.draft
    assert said.draft.compare_text == "hi"
    assert plan(CacheWish(semantic=False), degrade=DegradeRule(similar=True)).spare is None


def test_a_key_is_made_of_who_asks_whom_what_and_how() -> None:
    """Tenant, model, targets, prompt and safety profile; with the safety profile that the caller chose."""

    def digest(target_count: int = 1, **fields: Any) -> bytes:
        asked = Request("r1", "acme", "gpt", prompt(), **fields)
        rules = Rules(safety=SafetyRule(profile="default"))
        query = cache_plan.plan(asked, route(target_count, rules=rules)).query
        assert query
        assert (query.key.tenant, query.key.model) == ("acme", "gpt")
        return query.key.digest

    assert len({digest(), digest(2), digest(safety_profile="strict")}) == 3


def test_the_oldest_age_and_the_tags_are_passed_on() -> None:
    """To both lookups, and to the entry."""
    said = plan(CacheWish(age_max_s=5, tags=("a", "b")), degrade=DegradeRule(stale=True))

    assert said.query
    assert said.spare
    assert said.draft
    assert (said.query.age_max_s, said.spare.age_max_s, said.draft.tags) == (5, 5, ("a", "b"))


def test_a_lifetime_is_a_second_at_least() -> None:
    """The cache knows none shorter, and a route may ask for one."""
    said = plan(rule=CacheRule(ttl_s=0.01))

    assert said.draft
    assert said.draft.ttl_s == 1
