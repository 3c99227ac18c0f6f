"""The cache's part: looked up before, kept afterwards, never in the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import Unavailable
from services.inference.answer import put_together
from services.inference.caching import recording
from services.inference.caching.answer_cache import AnswerCache, Recall
from services.inference.caching.cache_port import (
    CacheFound,
    CacheMiss,
    Comparison,
    FlightBegun,
    FlightRestarted,
    SemanticQuery,
    Shadow,
)
from services.inference.caching.flight import Flight
from services.inference.caching.recording import Heading
from services.inference.events import CacheOutcome
from services.inference.generation import Delta, Sampling
from services.inference.request import CacheWish, Request
from services.inference.routing.router import Route
from services.inference.routing.rules import CacheRule, DegradeRule, Rules, SemanticRule
from tests.inference.cache_parts import FakeCache
from tests.inference.parts import STOP, prompt, receipt, route
from tests.inference.suite import only_tasks, tasks_now

DOWN = Unavailable("DOWN", "down")
WAIT_S = 5.0
ENDING = recording.ending(receipt(), "v1")


@pytest.fixture
def port() -> FakeCache:
    """A cache whose gate is open."""
    return FakeCache()


def cached(port: FakeCache, pending_count_max: int = 10, wait_s: float = WAIT_S) -> AnswerCache:
    return AnswerCache(port, pending_count_max, wait_s)


def asked(text: str = "hi", tenant: str = "acme", wish: CacheWish | None = None, **fields: Any) -> Request:
    return Request("r1", tenant, "gpt", prompt(text, **fields), cache=wish or CacheWish())


def fly(cache: AnswerCache, recall: Recall, text: str = "hello") -> Flight:
    """The answer that a call makes after it was looked up in vain."""
    flight = cache.depart(recall, "v1", 60, may_serve_similar=True)
    assert flight
    flight.take([Delta(text=text)])
    flight.take([STOP])
    return flight


async def keep(cache: AnswerCache, request: Request, to: Route | None = None) -> None:
    """Asks, answers, and waits until the answer is kept."""
    recall = await cache.recall(request, to or route())
    cache.keep(recall, fly(cache, recall), receipt(), "v1")
    await cache.close()


def text_of(recall: Recall | None) -> str:
    assert recall
    assert recall.recorded
    return put_together(recall.recorded.events)[0].text


async def outcome(cache: AnswerCache, request: Request, to: Route | None = None) -> CacheOutcome:
    return (await cache.recall(request, to or route())).event.outcome


async def test_a_kept_answer_is_found(port: FakeCache) -> None:
    """With its provenance: which entry, how old."""
    cache = cached(port)
    assert await outcome(cache, asked()) is CacheOutcome.MISS
    await keep(cache, asked())

    recall = await cache.recall(asked(streamed=False), route())

    assert (recall.event.outcome, recall.event.entry_id, recall.event.age_s) == (CacheOutcome.EXACT, "e1", 2.5)
    assert recall.recorded
    assert recall.recorded.batches == [[Delta(text="hello")], [STOP]]
    assert recall.recorded.ending.policy_version == "v1"


async def test_nobody_gets_anothers_answer(port: FakeCache) -> None:
    """Tenant, text, profile and, where entries are per user, the user keep answers apart."""
    cache = cached(port)
    mine = CacheWish(scope="user")
    await keep(cache, asked())
    await keep(cache, asked(wish=mine, end_user_id="u"))
    others = [
        asked(tenant="other"),
        asked("hi!"),
        asked(wish=mine, end_user_id="v"),
        Request("r1", "acme", "gpt", prompt(), safety_profile="strict"),
    ]

    assert [await outcome(cache, one) for one in others] == [CacheOutcome.MISS] * len(others)
    assert await outcome(cache, asked(), route(2)) is CacheOutcome.MISS, "another target may have answered"
    assert await outcome(cache, asked(wish=mine, end_user_id="u")) is CacheOutcome.EXACT


@pytest.mark.parametrize(
    ("wish", "fields", "rules"),
    [
        (CacheWish(mode="off"), {}, Rules()),
        (CacheWish(), {}, Rules(cache=CacheRule(enabled=False))),
        (CacheWish(), {"sampling": Sampling(temperature=1)}, Rules()),
        (CacheWish(scope="user"), {}, Rules()),
    ],
)
async def test_a_bypass_asks_nothing_and_keeps_nothing(
    port: FakeCache, wish: CacheWish, fields: dict[str, Any], rules: Rules
) -> None:
    """The event says why."""
    cache, request = cached(port), asked(wish=wish, **fields)
    recall = await cache.recall(request, route(rules=rules))

    assert recall.event.outcome is CacheOutcome.BYPASS
    assert recall.event.reason
    assert cache.depart(recall, "v1", 60, may_serve_similar=True) is None
    assert port.queries == []


async def test_a_refresh_replaces_what_is_kept(port: FakeCache) -> None:
    """It is not looked up, and the new answer is there for the next."""
    cache = cached(port)
    await keep(cache, asked())
    refresh = asked(wish=CacheWish(mode="refresh"))
    recall = await cache.recall(refresh, route())
    assert recall.event.outcome is CacheOutcome.BYPASS
    cache.keep(recall, fly(cache, recall, "newer"), receipt(), "v1")
    await cache.close()

    assert text_of(await cache.recall(asked(), route())) == "newer"


async def test_read_only_keeps_nothing(port: FakeCache) -> None:
    """It finds what others kept."""
    cache, request = cached(port), asked(wish=CacheWish(mode="read_only"))
    recall = await cache.recall(request, route())
    assert cache.depart(recall, "v1", 60, may_serve_similar=True) is None
    await keep(cache, asked())

    assert await outcome(cache, request) is CacheOutcome.EXACT


async def test_wishes_are_passed_on(port: FakeCache) -> None:
    """Oldest age at the lookup; lifetime, tags and receipt at the store."""
    request = asked(wish=CacheWish(ttl_s=60, tags=("a", "b"), age_max_s=5))
    await keep(cached(port), request)

    assert [query.age_max_s for query in port.queries] == [5]
    assert [(draft.ttl_s, draft.tags, kept.request_id) for draft, _, kept, _ in port.stored] == [(60, ("a", "b"), "r1")]


async def test_a_cache_that_is_down_is_a_miss_that_says_so(port: FakeCache, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the question nor the answer suffers; what could not be kept is counted, and logged once."""
    cache = cached(port)
    port.failure = DOWN
    recall = await cache.recall(asked(), route())
    assert (recall.event.outcome, recall.event.reason) == (CacheOutcome.UNAVAILABLE, "DOWN")
    assert recall.recorded is None

    for text in ("one", "two"):
        other = await cache.recall(asked(text), route())
        cache.keep(other, fly(cache, other), receipt(), "v1")
    await cache.close()

    assert cache.dropped_count == 2
    assert [record.getMessage() for record in caplog.records] == ["answers are not cached"]


async def test_a_cache_without_its_store_is_no_miss(port: FakeCache) -> None:
    """It is told apart from knowing nothing, though it may well have this call make the answer for others."""
    port.missed = CacheMiss("STORE_UNAVAILABLE")

    recall = await cached(port).recall(asked(), route())

    assert (recall.event.outcome, recall.lease_id) == (CacheOutcome.UNAVAILABLE, "lease-1")


async def test_an_entry_that_cannot_be_read_is_a_miss(port: FakeCache) -> None:
    """Another version's entry is nobody's answer."""
    cache = cached(port)
    await keep(cache, asked())
    port.entries = dict.fromkeys(port.entries, (b"\x01",))

    recall = await cache.recall(asked(), route())

    assert (recall.event.outcome, recall.event.entry_id, recall.recorded) == (CacheOutcome.MISS, "", None)


async def pending(cache: AnswerCache, port: FakeCache, request: Request) -> Recall:
    """An answer that is just being kept."""
    port.gate.clear()
    port.storing.clear()
    recall = await cache.recall(request, route())
    cache.keep(recall, fly(cache, recall), receipt(), "v1")
    await asyncio.wait_for(port.storing.wait(), WAIT_S)
    return recall


async def test_asking_twice_in_a_row_hits(port: FakeCache) -> None:
    """The second waits for what the first is keeping; others do not."""
    cache = cached(port)
    await pending(cache, port, asked())
    second = asyncio.create_task(outcome(cache, asked()))

    assert await outcome(cache, asked("else")) is CacheOutcome.MISS
    assert not second.done()
    port.gate.set()

    assert await asyncio.wait_for(second, WAIT_S) is CacheOutcome.EXACT


async def test_waiting_for_an_answer_that_is_being_kept_has_a_bound(port: FakeCache) -> None:
    """A store that hangs delays nobody for longer than a lookup may."""
    cache = cached(port, wait_s=0.01)
    await pending(cache, port, asked())

    recall = await asyncio.wait_for(cache.recall(asked(), route()), WAIT_S)

    assert (recall.event.outcome, recall.event.reason) == (CacheOutcome.UNAVAILABLE, "STORE_PENDING")
    port.gate.set()
    await cache.close()
    assert len(port.entries) == 1  # who waited in vain has not stopped it


async def test_a_refresh_waits_for_the_answer_before_it(port: FakeCache) -> None:
    """An answer that was asked for anew is kept last, also while the older one is still being kept."""
    cache = cached(port)
    await pending(cache, port, asked())
    refresh = asked(wish=CacheWish(mode="refresh"))
    recall = await cache.recall(refresh, route())
    cache.keep(recall, fly(cache, recall, "newer"), receipt(), "v1")

    port.gate.set()

    assert text_of(await cache.recall(asked(), route())) == "newer"
    assert len(port.stored) == 2


async def test_what_waits_to_be_kept_has_a_bound(port: FakeCache) -> None:
    """Beyond it answers are dropped and counted; the same answer twice waits once."""
    before = tasks_now()
    cache = cached(port, pending_count_max=1)
    recall = await pending(cache, port, asked())
    cache.keep(recall, fly(cache, recall), receipt(), "v1")
    assert cache.dropped_count == 0
    other = await cache.recall(asked("else"), route())
    cache.keep(other, fly(cache, other), receipt(), "v1")
    assert cache.dropped_count == 1

    port.gate.set()
    await cache.close()

    assert len(port.entries) == 1
    await only_tasks(before)
    await keep(cache, asked("else"))
    assert len(port.entries) == 2


DEGRADED = Rules(degrade=DegradeRule(stale=True, stale_for_s=60))


async def expired(port: FakeCache, wish: CacheWish | None = None, rules: Rules = DEGRADED) -> Recall | None:
    """What is found once every target has failed, of an answer that was kept and has expired since."""
    cache, to = cached(port), route(rules=rules)
    await keep(cache, asked(), to)
    port.is_expired = True
    request = asked(wish=wish)
    missed = await cache.recall(request, to)
    assert missed.recorded is None
    return await cache.spare(missed)


async def test_an_expired_answer_stands_in_where_the_route_allows_it(port: FakeCache) -> None:
    """It is marked as what it is, and was kept for that."""
    found = await expired(port)

    assert found
    assert (found.event.outcome, found.event.age_s, found.event.entry_id) == (CacheOutcome.STALE, 2.5, "e1")
    assert text_of(found) == "hello"
    assert [draft.stale_for_s for draft, *_ in port.stored] == [60]


async def test_an_answer_that_came_meanwhile_is_fresh(port: FakeCache) -> None:
    """Another call was luckier: what it has kept is no stale answer."""
    cache, to = cached(port), route(rules=DEGRADED)
    missed = await cache.recall(asked(), to)
    await keep(cache, asked(), to)

    found = await cache.spare(missed)

    assert found
    assert found.event.outcome is CacheOutcome.EXACT


@pytest.mark.parametrize(
    ("wish", "rules"),
    [(CacheWish(mode="off"), DEGRADED), (CacheWish(mode="refresh"), DEGRADED), (CacheWish(), Rules())],
    ids=["caller wants no cache", "caller wants it fresh", "route allows none"],
)
async def test_who_wants_no_expired_answer_gets_none(port: FakeCache, wish: CacheWish, rules: Rules) -> None:
    """The caller's wish and the route's rule hold also when all else has failed."""
    assert await expired(port, wish, rules) is None


async def test_the_callers_oldest_age_holds_for_expired_answers(port: FakeCache) -> None:
    """It is asked for at the second lookup as at the first."""
    await expired(port, CacheWish(age_max_s=5))

    assert [query.age_max_s for query in port.queries][-2:] == [5, 5]


async def test_a_cache_that_is_down_has_no_expired_answer(port: FakeCache) -> None:
    """Nor has one that holds nothing, or what nobody can read; none of it is an error."""
    cache, to = cached(port), route(rules=DEGRADED)
    missed = await cache.recall(asked(), to)
    assert await cache.spare(missed) is None
    port.failure = DOWN
    assert await cache.spare(missed) is None
    port.failure = None
    await keep(cache, asked(), to)
    port.entries = dict.fromkeys(port.entries, (b"\x01",))
    assert await cache.spare(missed) is None


# Answers in the making.


def chunk(*events: Any) -> bytes:
    return recording.chunk([[event] for event in events])


HEAD, HELLO = chunk(Heading("v1")), Delta(text="hello")
BEGUN = FlightBegun()


async def test_the_first_to_miss_makes_the_answer_for_all(port: FakeCache) -> None:
    """Under a lease, which is the flight's to give back from then on."""
    cache = cached(port)
    recall = await cache.recall(asked(), route())
    assert (recall.lease_id, recall.recorded, recall.following) == ("lease-1", None, None)

    cache.keep(recall, fly(cache, recall), receipt(), "v1")
    cache.give_back(recall)
    await cache.close()

    assert [(lease, draft.key) for draft, lease, *_ in port.stored] == [("lease-1", port.queries[0].key)]
    assert port.released == []


async def test_a_lease_that_is_not_used_is_given_back(port: FakeCache) -> None:
    """So that another makes the answer; once."""
    cache = cached(port)
    recall = await cache.recall(asked(), route())
    cache.give_back(recall)
    cache.give_back(recall)
    await cache.close()

    assert port.released == ["lease-1"]


async def test_a_lease_that_crosses_with_a_hang_up_is_given_back(port: FakeCache) -> None:
    """A call that leaves while its lookup is being answered takes no lease along."""
    cache = cached(port)
    port.answers.clear()
    leaving = asyncio.create_task(cache.recall(asked(), route()))
    await asyncio.wait_for(port.asked.wait(), WAIT_S)
    leaving.cancel()
    await asyncio.wait({leaving})
    port.answers.set()
    await cache.close()

    assert leaving.cancelled()
    assert port.released == ["lease-1"]


async def test_a_lookup_that_nobody_waits_for_gives_back_what_it_got(port: FakeCache) -> None:
    """Or is ended, where it is still under way."""
    before, cache = tasks_now(), cached(port, wait_s=0.01)
    done = asyncio.create_task(cache.recall(asked(), route()))
    await asyncio.wait_for(done, WAIT_S)
    cache.drop(done)
    port.is_leased, port.news = True, [BEGUN]
    followed = asyncio.create_task(cache.recall(asked(), route()))
    await asyncio.wait_for(followed, WAIT_S)
    cache.drop(followed)
    await asyncio.wait_for(port.unfollowed.wait(), WAIT_S)
    port.followed.clear()
    port.unfollowed.clear()
    port.news = []
    waiting = asyncio.create_task(cache.recall(asked(), route()))
    await asyncio.wait_for(port.followed.wait(), WAIT_S)
    cache.drop(waiting)
    await asyncio.wait_for(port.unfollowed.wait(), WAIT_S)
    port.failure = DOWN
    port.is_leased = False
    failed = asyncio.create_task(cache.recall(Request("r1", "acme", "gpt", prompt(), safety_profile="nope"), route()))
    await asyncio.wait({failed})
    cache.drop(failed)
    await cache.close()

    assert port.released == ["lease-1"]
    await only_tasks(before)


async def test_the_others_follow(port: FakeCache) -> None:
    """They are told that it is a shared answer, before there is anything of it; it is looked for without its like."""
    port.is_leased, port.news = True, [BEGUN, HEAD, chunk(HELLO), chunk(STOP, ENDING)]
    rules = Rules(cache=CacheRule(semantic=SemanticRule(enabled=True)))

    recall = await cached(port).recall(asked(), route(rules=rules))

    assert (recall.event.outcome, recall.event.age_s, recall.lease_id) == (CacheOutcome.EXACT, 0.0, "")
    assert recall.event.reason
    assert recall.following
    assert [batch async for batch in recall.following.batches("v1")] == [[HELLO], [STOP], [ENDING]]
    assert not cached(port).take_over(recall)
    first, second = port.queries
    assert first.semantic
    assert (second.semantic, second.key, second.lease_s) == (None, first.key, first.lease_s)


@pytest.mark.parametrize("lease_id", ["l9", ""])
async def test_who_follows_in_vain_has_missed(port: FakeCache, lease_id: str) -> None:
    """Before the answer began, or in the middle of it; with a lease it makes the answer for the others."""
    cache = cached(port)
    port.is_leased, port.news = True, [CacheMiss("LATE", lease_id)]
    at_once = await cache.recall(asked(), route())
    port.news = [BEGUN, HEAD, chunk(HELLO), FlightRestarted(), CacheMiss("LATE", lease_id)]
    midway = await cache.recall(asked(), route())
    assert midway.following
    assert [batch async for batch in midway.following.batches("v1")] == [[HELLO]]
    assert cache.take_over(midway)

    for recall in (at_once, midway):
        assert (recall.event.outcome, recall.event.reason) == (CacheOutcome.MISS, "LATE")
        assert (recall.lease_id, recall.recorded, recall.following) == (lease_id, None, None)


async def test_an_answer_that_has_just_landed_is_a_hit(port: FakeCache) -> None:
    """Also for one who was about to follow it."""
    port.is_leased = True
    port.news = [CacheFound(CacheOutcome.EXACT, (chunk(Heading("v1"), HELLO, STOP, ENDING),), "e7", 0.0)]

    recall = await cached(port).recall(asked(), route())

    assert (recall.event.outcome, recall.event.entry_id, text_of(recall)) == (CacheOutcome.EXACT, "e7", "hello")


async def crowd(cache: AnswerCache, port: FakeCache, count: int) -> list[asyncio.Task[Recall]]:
    """Calls that ask the same at the same time; the lookup of the first is under way."""
    port.answers.clear()
    calls = [asyncio.create_task(cache.recall(asked(), route())) for _ in range(count)]
    await asyncio.wait_for(port.asked.wait(), WAIT_S)
    return calls


async def test_a_crowd_asks_once(port: FakeCache) -> None:
    """One looks up for all and makes the answer; the others follow it."""
    cache = cached(port)
    port.news = [BEGUN]
    calls = await crowd(cache, port, 10)
    port.answers.set()
    first, *others = await asyncio.wait_for(asyncio.gather(*calls), WAIT_S)

    assert len(port.queries) == 1 + 9
    assert (first.lease_id, first.following) == ("lease-1", None)
    assert all(one.following and not one.lease_id for one in others)
    for one in others:
        cache.give_back(one)
    await cache.close()


async def test_a_crowd_shares_what_is_found(port: FakeCache) -> None:
    """And looks again when it comes again."""
    cache = cached(port)
    await keep(cache, asked())
    calls = await crowd(cache, port, 10)
    port.answers.set()

    assert {text_of(one) for one in await asyncio.wait_for(asyncio.gather(*calls), WAIT_S)} == {"hello"}
    assert len(port.queries) == 2
    assert await outcome(cache, asked()) is CacheOutcome.EXACT
    assert len(port.queries) == 3


async def test_a_crowd_shares_a_failure(port: FakeCache) -> None:
    """Nobody asks again what has just failed."""
    cache = cached(port)
    calls = await crowd(cache, port, 10)
    port.failure = DOWN
    port.answers.set()
    recalls = await asyncio.wait_for(asyncio.gather(*calls), WAIT_S)

    assert {(one.event.outcome, one.event.reason) for one in recalls} == {(CacheOutcome.UNAVAILABLE, "DOWN")}
    assert len(port.queries) == 1


async def test_a_crowd_goes_on_without_the_one_who_asked(port: FakeCache) -> None:
    """Another one asks, once for the rest."""
    cache = cached(port)
    await keep(cache, asked())
    first, *others = await crowd(cache, port, 10)
    first.cancel()
    port.asked.clear()
    await asyncio.wait_for(port.asked.wait(), WAIT_S)
    port.answers.set()

    assert {text_of(one) for one in await asyncio.wait_for(asyncio.gather(*others), WAIT_S)} == {"hello"}
    assert len(port.queries) == 1 + 2


# Answers to similar questions.


SEMANTIC = Rules(cache=CacheRule(semantic=SemanticRule(enabled=True)))


@pytest.mark.parametrize(("kept", "fits"), [("Hello.", True), ("Good bye.", False)])
async def test_an_answer_that_was_held_back_is_compared(port: FakeCache, kept: str, fits: bool) -> None:
    """With the fresh one, when that is complete; the cache learns from it."""
    old = (chunk(Heading("v1"), Delta(text=kept), STOP, ENDING),)
    port.missed = CacheMiss("SHADOW", shadow=Shadow("s1", old))
    cache = cached(port)
    recall = await cache.recall(asked(), route(rules=SEMANTIC))
    assert (recall.event.outcome, recall.event.reason) == (CacheOutcome.MISS, "SHADOW")
    cache.keep(recall, fly(cache, recall), receipt(), "v1")
    await cache.close()

    assert [comparison for *_, comparison in port.stored] == [Comparison("s1", fits)]


async def test_what_cannot_be_read_is_not_compared(port: FakeCache) -> None:
    """No verdict is better than a wrong one."""
    port.missed = CacheMiss("SHADOW", shadow=Shadow("s1", (b"\xc1",)))
    await keep(cached(port), asked(), route(rules=SEMANTIC))

    assert [comparison for *_, comparison in port.stored] == [None]


async def test_a_prompt_that_was_changed_serves_no_similar_one(port: FakeCache) -> None:
    """What the policy took out of it is not kept to be compared either."""
    cache = cached(port)
    for may_serve_similar in (True, False):
        recall = await cache.recall(asked(str(may_serve_similar)), route(rules=SEMANTIC))
        flight = cache.depart(recall, "v1", 60, may_serve_similar=may_serve_similar)
        assert flight
        cache.keep(recall, flight, receipt(), "v1")
    await cache.close()

    assert [draft.compare_text for draft, *_ in port.stored] == ["True", None]


async def test_a_similar_answer_stands_in_where_the_route_allows_it(port: FakeCache) -> None:
    """At the second lookup only, where every target has failed."""
    cache, to = cached(port), route(rules=Rules(degrade=DegradeRule(similar=True)))
    recall = await cache.recall(asked(), to)

    assert await cache.spare(recall) is None
    first, second = port.queries
    assert (first.semantic, second.semantic, second.allow_stale) == (None, SemanticQuery("hi"), False)
