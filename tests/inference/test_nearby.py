"""Nearby: an answer of this process, for those whose cache has gone while they followed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import pytest

from services.inference.attempts.deadline import DeadlineBudget
from services.inference.caching import recording
from services.inference.caching.cache_port import CacheDraft, CacheKey, CacheMiss, FlightBegun, FlightLanded, FlightNews
from services.inference.caching.flight import Flight
from services.inference.caching.following import SILENCE_AGAIN_S, SILENCE_S, Following
from services.inference.caching.nearby import CLAIM_S, Near, Nearby
from services.inference.caching.recording import Heading
from services.inference.generation import Delta
from services.inference.routing.rules import DeadlineRule
from tests.inference.cache_parts import FakeCache
from tests.inference.clocks import in_virtual_time
from tests.inference.parts import STOP, receipt, request

KEY = CacheKey("acme", "", "gpt", b"d" * 32)
ONE, TWO = Delta(text="one"), Delta(text=" two")
BEGUN = FlightBegun()
HEAD = recording.chunk([[Heading("v1")], [ONE]])
DOUBT_S = SILENCE_S + SILENCE_AGAIN_S  # until the cache is given up


def now() -> float:
    return asyncio.get_running_loop().time()


def _drop(step: Coroutine[Any, Any, None]) -> None:
    step.close()


class Stand:
    """One process, and a cache that freezes: what it tells each time that it is asked, and how often it was."""

    def __init__(self, *tellings: tuple[FlightNews, ...]) -> None:
        self.nearby, self.asked_count = Nearby(), 0
        self._tellings = tellings

    async def ask(self) -> AsyncGenerator[FlightNews, None]:
        self.asked_count += 1
        for news in self._tellings[self.asked_count - 1] if self.asked_count <= len(self._tellings) else ():
            yield news
        await asyncio.Event().wait()

    def depart(self) -> Flight:
        flight = Flight(FakeCache(), CacheDraft(KEY, 60), "", _drop, "v1")
        self.nearby.note(KEY, flight)
        return flight

    def follow(self, streamed: bool = True) -> Following:
        deadlines = DeadlineBudget(DeadlineRule(), request(), now)
        return Following(self.ask(), deadlines, streamed, now, Near(self.nearby, KEY, self.ask))


async def told(following: Following) -> list[Any]:
    assert await following.begin() == BEGUN
    return [event async for batch in following.batches("v1") for event in batch]


@pytest.mark.parametrize("streamed", [True, False])
def test_a_frozen_cache_is_done_without_where_the_answer_is_made_here(streamed: bool) -> None:
    """Those who follow go on where they were, within two seconds, and see one answer; nobody makes another."""

    @in_virtual_time
    async def play() -> None:
        stand, start = Stand((BEGUN, HEAD)), now()
        flight = stand.depart()
        flight.take([ONE])
        following = stand.follow(streamed)
        task = asyncio.create_task(told(following))
        await asyncio.sleep(DOUBT_S)
        flight.take([TWO, STOP])
        flight.end(receipt(), "v1")

        assert (await task)[:3] == [ONE, TWO, STOP]
        assert isinstance(following.outcome, FlightLanded)
        assert now() - start < DOUBT_S + 0.5

    play()


@in_virtual_time
async def test_a_cache_that_was_only_late_goes_on_telling() -> None:
    """It is asked once more before it is given up, so that an answer is never followed past the one who leads it."""
    stand = Stand((BEGUN, HEAD), (BEGUN, HEAD, recording.chunk([[TWO, STOP], [recording.ending(receipt(), "v1")]])))
    stand.depart().take([ONE])
    following = stand.follow()

    assert (await told(following))[:3] == [ONE, TWO, STOP]
    assert stand.asked_count == 2


@in_virtual_time
async def test_one_takes_over_and_the_others_follow_it() -> None:
    """Where nobody here makes the answer; it may take its time to the first token."""
    stand = Stand(*[(BEGUN,)] * 8)
    all_told = [stand.follow() for _ in range(8)]
    tasks = [asyncio.create_task(told(following)) for following in all_told]
    (first,), others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert await first == []
    assert [following.outcome is not None for following in all_told].count(True) == 1

    flight = stand.depart()
    await asyncio.sleep(DOUBT_S * 2)
    flight.take([ONE, STOP])
    flight.end(receipt(), "v1")
    assert [(await task)[:2] for task in others] == [[ONE, STOP]] * 7


@in_virtual_time
async def test_they_try_one_after_the_other() -> None:
    """Where the first does not begin, for its caller has left, the next one does a second later."""
    nearby, start, began_at = Nearby(), now(), list[float]()

    async def find() -> None:
        assert await nearby.find(KEY) is None
        began_at.append(now() - start)

    await asyncio.gather(*(find() for _ in range(4)))

    assert began_at == pytest.approx([0, CLAIM_S, 2 * CLAIM_S, 3 * CLAIM_S], abs=0.01)


@in_virtual_time
async def test_an_answer_that_is_given_up_sends_back_to_the_cache() -> None:
    """It may be there again, and says who is to make the next."""
    stand = Stand((BEGUN, HEAD), (), (CacheMiss(lease_id="l2"),))
    flight = stand.depart()
    flight.take([ONE])
    following = stand.follow()
    task = asyncio.create_task(told(following))
    await asyncio.sleep(DOUBT_S + 0.1)
    flight.close()

    assert await task == [ONE]
    assert following.outcome == CacheMiss(lease_id="l2")


@in_virtual_time
async def test_an_answer_that_nobody_holds_is_gone() -> None:
    """The process remembers none of them: whoever looks for it is to make it."""
    stand = Stand()
    stand.depart()

    assert await stand.nearby.find(KEY) is None
