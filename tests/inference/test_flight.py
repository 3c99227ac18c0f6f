"""A flight: an answer in the making, told to those who wait for it, and kept."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kit.errors import Unavailable
from services.inference.caching import recording
from services.inference.caching.cache_port import CacheDraft, CacheKey, Comparison
from services.inference.caching.flight import FEED_INTERVAL_S, HEARTBEAT_S, STREAM_AFTER_S, Flight
from services.inference.caching.recording import Ending, Heading
from services.inference.events import Direction, SafetyEvent, Verdict
from services.inference.generation import ChoiceFinished, Delta, FinishReason
from tests.inference.cache_parts import FakeCache, FakeStream
from tests.inference.clocks import in_virtual_time
from tests.inference.parts import STOP, receipt

DRAFT = CacheDraft(CacheKey("acme", "", "gpt", bytes(32)), 60)
ONE, TWO, THREE = (Delta(text=word) for word in ("one", " two", " three"))
LIMIT_S = 2.0
DOWN = Unavailable("DOWN", "down")


class Making:
    """An answer, the cache that hears of it, and what it left to be done in the background."""

    def __init__(self, lease_id: str = "l1", is_awaited: bool = False) -> None:
        self.cache = FakeCache()
        self.left: list[asyncio.Task[None]] = []
        self.flight = Flight(self.cache, DRAFT, lease_id, self._spawn, "v1", 60)
        self.flight.open(is_awaited)

    def _spawn(self, step: Coroutine[Any, Any, None]) -> None:
        self.left.append(asyncio.create_task(step))

    @property
    def stream(self) -> FakeStream:
        (stream,) = self.cache.streams
        return stream

    async def followed(self) -> FakeStream:
        """Goes on until the answer is streamed, and somebody follows it."""
        await asyncio.sleep(STREAM_AFTER_S + 0.001)
        self.stream.follower.set()
        await asyncio.sleep(0.001)
        return self.stream

    async def land(self, comparison: Comparison | None = None) -> None:
        self.flight.take([STOP])
        self.flight.end(receipt(), "v1")
        await self.flight.land(receipt(), comparison, LIMIT_S)

    async def close(self) -> None:
        self.flight.close()
        if self.left:
            await asyncio.wait(self.left)


def now() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_a_short_answer_is_kept_in_one_piece() -> None:
    """Under its lease, with what came of the comparison; nothing is told of it before."""
    making = Making()
    making.flight.take([ONE])
    making.flight.take([TWO])
    await making.land(Comparison("s1", fits=True))
    await asyncio.sleep(60)

    assert making.cache.streams == []
    assert making.cache.only().batches == [[ONE], [TWO], [STOP]]
    assert [(draft, lease, fits) for draft, lease, _, fits in making.cache.stored] == [
        (DRAFT, "l1", Comparison("s1", fits=True))
    ]
    assert (making.left, making.cache.released) == ([], [])


@in_virtual_time
async def test_a_long_answer_is_told_seldom_while_nobody_waits() -> None:
    """Often enough for the lease to live, and no more."""
    making = Making()
    start = now()
    making.flight.take([ONE])
    await asyncio.sleep(STREAM_AFTER_S + 0.001)
    assert making.stream.events == [Heading("v1"), ONE]
    for _ in range(100):
        making.flight.take([TWO])
        await asyncio.sleep(0.1)

    spent_s = now() - start
    assert 1 + (spent_s - STREAM_AFTER_S) // HEARTBEAT_S - 1 <= len(making.stream.chunks) <= 1 + spent_s / HEARTBEAT_S
    await making.land()
    assert making.cache.only().batches == [[ONE], *[[TWO]] * 100, [STOP]]


@in_virtual_time
async def test_a_silent_answer_shows_signs_of_life() -> None:
    """While the first token is waited for: a byte now and then, whether or not somebody follows."""
    making = Making()
    stream = await making.followed()
    await asyncio.sleep(5 * HEARTBEAT_S)

    heading, *signs = stream.chunks
    assert recording.read_chunk(heading) == [[Heading("v1")]]
    assert set(signs) == {recording.chunk([])}
    assert 4 <= len(signs) <= 6
    await making.close()


@in_virtual_time
async def test_who_follows_is_told_as_it_comes() -> None:
    """At once what there is, then what is new, several batches together where they come quickly."""
    making = Making()
    making.flight.take([ONE])
    stream = await making.followed()
    start, count = now(), len(stream.chunks)
    for _ in range(100):
        making.flight.take([TWO])
        await asyncio.sleep(0.01)
        if len(stream.chunks) > count and now() - start < FEED_INTERVAL_S:
            assert TWO in stream.events

    assert len(stream.chunks) - count <= 1 + (now() - start) / FEED_INTERVAL_S
    making.flight.take([THREE])
    await asyncio.sleep(2 * FEED_INTERVAL_S + 0.001)
    assert stream.events == [Heading("v1"), ONE, *[TWO] * 100, THREE]
    await making.close()


@in_virtual_time
async def test_a_followed_answer_ends_at_once() -> None:
    """Those who follow wait for its end no longer than for any piece; nothing is stored twice."""
    making = Making()
    making.flight.take([ONE])
    stream = await making.followed()
    start = now()
    await making.land(Comparison("s1", fits=False))

    assert now() - start <= FEED_INTERVAL_S
    assert stream.finished
    assert stream.finished[1] == Comparison("s1", fits=False)
    assert isinstance(stream.events[-1], Ending)
    assert making.cache.stored == []
    assert making.cache.only().batches == [[ONE], [STOP]]


@in_virtual_time
async def test_an_answer_that_others_wait_for_already_is_told_from_its_beginning() -> None:
    """As where this call has taken over from one that failed."""
    making = Making(is_awaited=True)
    await asyncio.sleep(0.001)
    assert making.stream.events == [Heading("v1")]
    await making.close()

    given_up = Making(is_awaited=True)  # before anything of it could be told
    given_up.flight.take([ONE])
    await given_up.close()
    assert given_up.stream.events == [Heading("v1"), ONE]
    assert given_up.stream.given_up


@in_virtual_time
async def test_an_answer_without_a_lease_is_nobodys_to_wait_for() -> None:
    """It is only kept."""
    making = Making(lease_id="")
    making.flight.take([ONE])
    await asyncio.sleep(10)
    assert making.cache.streams == []

    await making.land()

    assert making.cache.only().batches == [[ONE], [STOP]]


@in_virtual_time
async def test_an_answer_that_is_given_up_gives_its_lease_back() -> None:
    """Once, however often it is closed, and not where none was held."""
    making, alone = Making(), Making(lease_id="")
    making.flight.take([ONE])
    await making.close()
    await making.close()
    await alone.close()
    await asyncio.sleep(10)

    assert (making.cache.released, alone.cache.released) == (["l1"], [])
    assert (making.cache.streams, making.cache.entries) == ([], {})


@in_virtual_time
async def test_who_follows_an_answer_that_is_given_up_gets_what_there_was() -> None:
    """And is left to another at once: the next one may have to begin with the same words."""
    making = Making()
    stream = await making.followed()
    making.flight.take([ONE])
    making.flight.take([TWO])
    start = now()
    await making.close()

    assert now() - start <= FEED_INTERVAL_S
    assert stream.events == [Heading("v1"), ONE, TWO]
    assert stream.given_up
    assert (stream.finished, making.cache.released) == (None, [])


@pytest.mark.parametrize(
    "spoiling",
    [
        ChoiceFinished(0, FinishReason.CONTENT_FILTER),
        SafetyEvent(Direction.OUTPUT, Verdict.ALLOW, unscreened=True),
    ],
    ids=["blocked", "unscreened"],
)
def test_what_may_not_be_shared_ends_it_at_once(spoiling: Any) -> None:
    """Before it is told to anybody; another makes the answer, and this one is not kept."""

    @in_virtual_time
    async def play() -> None:
        making = Making()
        stream = await making.followed()
        making.flight.take([ONE])
        making.flight.check(spoiling)
        making.flight.take([spoiling, TWO])
        await making.close()

        assert making.flight.is_spoilt
        assert stream.cancelled.is_set()
        assert TWO not in stream.events
        assert spoiling not in stream.events
        assert making.cache.entries == {}

    play()


@in_virtual_time
async def test_a_stream_that_breaks_costs_nothing() -> None:
    """The answer goes on, and is kept in one piece at its end."""
    making = Making()
    stream = await making.followed()
    making.cache.failure = DOWN
    making.flight.take([ONE])
    await asyncio.sleep(10)
    making.cache.failure = None

    await making.land()

    assert ONE not in stream.events
    assert stream.cancelled.is_set()
    assert making.cache.only().batches == [[ONE], [STOP]]


@in_virtual_time
async def test_an_answer_that_cannot_be_kept_says_so() -> None:
    """Whatever the cache says, or that it says nothing for too long; whoever waits there is left to another."""
    failed, hung = Making(), Making()
    failed.cache.failure = DOWN
    with pytest.raises(Unavailable, match="down"):
        await failed.land()
    stream = await hung.followed()
    hung.cache.gate.clear()
    start = now()
    with pytest.raises(Unavailable) as caught:
        await hung.land()

    assert caught.value.reason == "CACHE_TIMEOUT"
    assert now() - start == pytest.approx(LIMIT_S)
    assert stream.cancelled.is_set()


@in_virtual_time
async def test_a_cache_that_hangs_holds_no_answer_back_that_is_given_up() -> None:
    """What is left to be done for it has an end."""

    async def hang(chunk: bytes) -> None:
        await asyncio.Event().wait()

    making = Making()
    stream = await making.followed()
    stream.send = hang  # type: ignore[method-assign]
    making.flight.take([ONE])
    await asyncio.sleep(1)
    start = now()
    await making.close()

    assert now() - start <= 1.001
    assert stream.cancelled.is_set()
