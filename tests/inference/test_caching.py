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
from services.inference.recording import Recorder
from services.inference.request import CacheWish, Request
from services.inference.routing import Route
from services.inference.rules import CacheRule, Rules
from tests.inference.parts import STOP, prompt, receipt, route
from tests.inference.suite import only_tasks, tasks_now

DOWN = Unavailable("DOWN", "down")
WAIT_S = 5.0


class FakeCache:
    """Keeps entries in memory; waits at its gate before it stores, and fails where it is told to."""

    def __init__(self) -> None:
        self.entries: dict[CacheKey, bytes] = {}
        self.stored: list[tuple[float, tuple[str, ...], Receipt]] = []
        self.ages: list[float | None] = []
        self.gate = asyncio.Event()
        self.storing = asyncio.Event()
        self.failure: MillraceError | None = None

    async def lookup(self, key: CacheKey, schema_tag: str, age_max_s: float | None) -> CacheFound | None:
        assert schema_tag == recording.SCHEMA_TAG
        self.ages.append(age_max_s)
        if self.failure:
            raise self.failure
        payload = self.entries.get(key)
        return CacheFound(CacheOutcome.EXACT, payload, "e1", 2.5) if payload is not None else None

    async def store(
        self, key: CacheKey, schema_tag: str, payload: bytes, ttl_s: float, tags: tuple[str, ...], receipt: Receipt
    ) -> None:
        self.storing.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        self.entries[key] = payload
        self.stored.append((ttl_s, tags, receipt))


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
    assert [(ttl_s, tags, kept.request_id) for ttl_s, tags, kept in port.stored] == [(60, ("a", "b"), "r1")]


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
