"""The cache's part: looked up before, kept afterwards, never in the way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import MillraceError, Unavailable
from services.inference import recording
from services.inference.caching import AnswerCache, CacheFound, CacheKey, Recall
from services.inference.events import CacheOutcome, Receipt
from services.inference.generation import Delta, Sampling
from services.inference.recording import CachePlan, Recorder
from services.inference.request import CacheWish, Request
from services.inference.routing import Route
from services.inference.rules import CacheRule, DegradeRule, Rules
from tests.inference.parts import STOP, prompt, receipt, route
from tests.inference.suite import only_tasks, tasks_now

DOWN = Unavailable("DOWN", "down")
WAIT_S = 5.0


class FakeCache:
    """Keeps entries in memory, all fresh or all expired; waits at its gate to store, and fails where it is told to."""

    def __init__(self) -> None:
        self.entries: dict[CacheKey, bytes] = {}
        self.stored: list[tuple[CachePlan, tuple[str, ...], Receipt]] = []
        self.is_expired = False
        self.ages: list[float | None] = []
        self.gate = asyncio.Event()
        self.storing = asyncio.Event()
        self.failure: MillraceError | None = None

    async def lookup(
        self, key: CacheKey, schema_tag: str, age_max_s: float | None, allow_stale: bool = False
    ) -> CacheFound | None:
        assert schema_tag == recording.SCHEMA_TAG
        self.ages.append(age_max_s)
        if self.failure:
            raise self.failure
        payload = self.entries.get(key)
        if payload is None or (self.is_expired and not allow_stale):
            return None
        outcome = CacheOutcome.STALE if self.is_expired else CacheOutcome.EXACT
        return CacheFound(outcome, payload, "e1", 2.5)

    async def store(
        self, key: CacheKey, schema_tag: str, payload: bytes, plan: CachePlan, tags: tuple[str, ...], receipt: Receipt
    ) -> None:
        self.storing.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.entries[key] = payload
        self.stored.append((plan, tags, receipt))


@pytest.fixture
def port() -> FakeCache:
    """A cache whose gate is open."""
    fake = FakeCache()
    fake.gate.set()
    return fake


def cached(port: FakeCache, pending_count_max: int = 10, wait_s: float = WAIT_S) -> AnswerCache:
    return AnswerCache(port, pending_count_max, wait_s)


def asked(text: str = "hi", tenant: str = "acme", wish: CacheWish | None = None, **fields: Any) -> Request:
    return Request("r1", tenant, "gpt", prompt(text, **fields), cache=wish or CacheWish())


def heard(text: str = "hello") -> Recorder:
    recorder = Recorder()
    recorder.take(Delta(text=text))
    recorder.take(STOP)
    return recorder


async def keep(cache: AnswerCache, request: Request, to: Route | None = None) -> None:
    """Asks, answers, and waits until the answer is kept."""
    recall = await cache.recall(request, to or route())
    cache.keep(request, recall, heard(), receipt(), "v1")
    await cache.close()


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
    assert recall.recorded.deltas == [Delta(text="hello")]
    assert recall.recorded.policy_version == "v1"


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
    cache.keep(request, recall, heard(), receipt(), "v1")
    await cache.close()

    assert recall.event.outcome is CacheOutcome.BYPASS
    assert recall.event.reason
    assert (port.ages, port.entries) == ([], {})


async def test_a_refresh_replaces_what_is_kept(port: FakeCache) -> None:
    """It is not looked up, and the new answer is there for the next."""
    cache = cached(port)
    await keep(cache, asked())
    refresh = asked(wish=CacheWish(mode="refresh"))
    recall = await cache.recall(refresh, route())
    assert recall.event.outcome is CacheOutcome.BYPASS
    cache.keep(refresh, recall, heard("newer"), receipt(), "v1")
    await cache.close()

    found = await cache.recall(asked(), route())

    assert found.recorded
    assert found.recorded.deltas == [Delta(text="newer")]


async def test_read_only_keeps_nothing(port: FakeCache) -> None:
    """It finds what others kept."""
    cache, request = cached(port), asked(wish=CacheWish(mode="read_only"))
    await keep(cache, request)
    assert port.entries == {}
    await keep(cache, asked())

    assert await outcome(cache, request) is CacheOutcome.EXACT


async def test_wishes_are_passed_on(port: FakeCache) -> None:
    """Oldest age at the lookup; lifetime, tags and receipt at the store."""
    request = asked(wish=CacheWish(ttl_s=60, tags=("a", "b"), age_max_s=5))
    await keep(cached(port), request)

    assert port.ages == [5]
    assert [(plan.ttl_s, tags, kept.request_id) for plan, tags, kept in port.stored] == [(60, ("a", "b"), "r1")]


async def test_a_cache_that_is_down_is_a_miss_that_says_so(port: FakeCache) -> None:
    """Neither the question nor the answer suffers; what could not be kept is counted."""
    cache = cached(port)
    port.failure = DOWN
    recall = await cache.recall(asked(), route())
    assert (recall.event.outcome, recall.event.reason) == (CacheOutcome.UNAVAILABLE, "DOWN")
    assert recall.recorded is None

    cache.keep(asked(), recall, heard(), receipt(), "v1")
    await cache.close()

    assert cache.dropped_count == 1


async def test_an_entry_that_cannot_be_read_is_a_miss(port: FakeCache) -> None:
    """Another version's entry is nobody's answer."""
    cache = cached(port)
    await keep(cache, asked())
    port.entries = dict.fromkeys(port.entries, b"\x01")

    recall = await cache.recall(asked(), route())

    assert (recall.event.outcome, recall.event.entry_id, recall.recorded) == (CacheOutcome.MISS, "", None)


async def pending(cache: AnswerCache, port: FakeCache, request: Request) -> Recall:
    """An answer that is just being kept."""
    port.gate.clear()
    port.storing.clear()
    recall = await cache.recall(request, route())
    cache.keep(request, recall, heard(), receipt(), "v1")
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
    cache.keep(refresh, await cache.recall(refresh, route()), heard("newer"), receipt(), "v1")

    port.gate.set()
    found = await cache.recall(asked(), route())

    assert found.recorded
    assert found.recorded.deltas == [Delta(text="newer")]
    assert len(port.stored) == 2


async def test_what_waits_to_be_kept_has_a_bound(port: FakeCache) -> None:
    """Beyond it answers are dropped and counted; the same answer twice waits once."""
    before = tasks_now()
    cache = cached(port, pending_count_max=1)
    recall = await pending(cache, port, asked())
    cache.keep(asked(), recall, heard(), receipt(), "v1")
    assert cache.dropped_count == 0
    cache.keep(asked("else"), await cache.recall(asked("else"), route()), heard(), receipt(), "v1")
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
    return await cache.stale(request, missed)


async def test_an_expired_answer_stands_in_where_the_route_allows_it(port: FakeCache) -> None:
    """It is marked as what it is, and was kept for that."""
    found = await expired(port)

    assert found
    assert found.recorded
    assert (found.event.outcome, found.event.age_s, found.event.entry_id) == (CacheOutcome.STALE, 2.5, "e1")
    assert found.recorded.deltas == [Delta(text="hello")]
    assert [plan.stale_for_s for plan, _, _ in port.stored] == [60]


async def test_an_answer_that_came_meanwhile_is_fresh(port: FakeCache) -> None:
    """Another call was luckier: what it has kept is no stale answer."""
    cache, to = cached(port), route(rules=DEGRADED)
    missed = await cache.recall(asked(), to)
    await keep(cache, asked(), to)

    found = await cache.stale(asked(), missed)

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

    assert port.ages[-2:] == [5, 5]


async def test_a_cache_that_is_down_has_no_expired_answer(port: FakeCache) -> None:
    """Nor has one that holds nothing, or what nobody can read; none of it is an error."""
    cache, to = cached(port), route(rules=DEGRADED)
    missed = await cache.recall(asked(), to)
    assert await cache.stale(asked(), missed) is None
    port.failure = DOWN
    assert await cache.stale(asked(), missed) is None
    port.failure = None
    await keep(cache, asked(), to)
    port.entries = dict.fromkeys(port.entries, b"\x01")
    assert await cache.stale(asked(), missed) is None
