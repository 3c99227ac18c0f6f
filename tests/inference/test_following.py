"""Following: another call's answer, told while it is made, and what becomes of a call that waits for it in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from kit.errors import DeadlineExceeded, MillraceError, Unavailable
from services.inference.attempts.deadline import DeadlineBudget
from services.inference.caching import recording
from services.inference.caching.cache_port import (
    CacheFound,
    CacheMiss,
    FlightBegun,
    FlightLanded,
    FlightNews,
    FlightRestarted,
    FlightWaits,
)
from services.inference.caching.following import RESTARTS_MAX, SILENCE_BEFORE_S, SILENCE_S, Following
from services.inference.caching.recording import Heading
from services.inference.events import CacheOutcome
from services.inference.generation import Delta
from services.inference.routing.rules import DeadlineRule
from tests.inference.clocks import in_virtual_time
from tests.inference.parts import STOP, receipt, request

ONE, TWO, THREE = (Delta(text=word) for word in ("one", " two", " three"))
END = recording.ending(receipt(), "v1")
BEGUN, RESTARTED, SIGN = FlightBegun(), FlightRestarted(), FlightWaits()
Step = FlightNews | MillraceError | float


def chunk(*events: Any) -> bytes:
    """A chunk of batches of one event each."""
    return recording.chunk([[event] for event in events])


HEAD = chunk(Heading("v1"))
WHOLE = (chunk(Heading("v1"), ONE), chunk(STOP, END))


class Wire:
    """News as they come: what is a number is a wait of so many seconds; at the end nothing comes any more."""

    def __init__(self, *steps: Step) -> None:
        self._steps = steps
        self.closed = False

    async def __call__(self) -> AsyncGenerator[FlightNews, None]:
        try:
            for step in self._steps:
                if isinstance(step, MillraceError):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                else:
                    yield step
            await asyncio.Event().wait()
        finally:
            self.closed = True


def now() -> float:
    return asyncio.get_running_loop().time()


def follow(wire: Wire, streamed: bool = True, **rule: float) -> Following:
    deadlines = DeadlineBudget(DeadlineRule(**rule), request(), now)
    return Following(wire(), deadlines, streamed, now)


async def told(following: Following, policy_version: str = "v1") -> list[list[Any]]:
    return [batch async for batch in following.batches(policy_version)]


async def followed(*steps: Step, streamed: bool = True, **rule: float) -> tuple[Following, list[list[Any]]]:
    """What a caller is told of an answer that has begun, and what came of it."""
    wire = Wire(BEGUN, *steps)
    following = follow(wire, streamed, **rule)
    assert await following.begin() == BEGUN
    batches = await told(following)
    assert wire.closed
    return following, batches


@in_virtual_time
async def test_an_answer_is_told_as_it_comes() -> None:
    """Batch by batch; complete when its end is there, whether or not it will be kept."""
    following, batches = await followed(chunk(Heading("v1"), ONE), 1.0, SIGN, chunk(TWO, THREE), chunk(STOP, END))

    assert batches == [[ONE], [TWO], [THREE], [STOP], [END]]
    assert isinstance(following.outcome, FlightLanded)


@in_virtual_time
async def test_who_does_not_read_along_gets_all_at_once() -> None:
    """And of two makers what the second made, whatever the first had said."""
    following, batches = await followed(HEAD, chunk(ONE), RESTARTED, BEGUN, HEAD, chunk(TWO, STOP, END), streamed=False)

    assert batches == [[TWO, STOP, END]]
    assert isinstance(following.outcome, FlightLanded)


@in_virtual_time
async def test_the_first_news_may_be_the_last() -> None:
    """The answer was just stored, or this call is to make it; then nothing is followed any more."""
    found = CacheFound(CacheOutcome.EXACT, WHOLE, "e1", 0.0)
    for first in (found, CacheMiss(lease_id="l1"), CacheMiss("LEASED", leased=True)):
        wire = Wire(0.5, first)
        assert await follow(wire).begin() == first
        assert wire.closed


@in_virtual_time
async def test_the_next_maker_goes_on_where_the_last_one_broke_off() -> None:
    """Where its answer begins with what was told; the caller sees one answer."""
    following, batches = await followed(HEAD, chunk(ONE), RESTARTED, BEGUN, HEAD, chunk(ONE, TWO), chunk(STOP, END))

    assert batches == [[ONE], [TWO], [STOP], [END]]
    assert isinstance(following.outcome, FlightLanded)


@in_virtual_time
async def test_two_answers_are_never_mixed() -> None:
    """Where the next maker's begins otherwise the call fails."""
    with pytest.raises(Unavailable) as caught:
        await followed(HEAD, chunk(ONE), RESTARTED, BEGUN, HEAD, chunk(TWO))

    assert caught.value.reason == "ANSWER_CHANGED"


@in_virtual_time
async def test_a_caller_that_has_seen_nothing_takes_any_answer() -> None:
    """Also from a store that has it by now."""
    found = CacheFound(CacheOutcome.EXACT, WHOLE, "e1", 0.0)
    following, batches = await followed(HEAD, RESTARTED, found)

    assert batches == [[ONE], [STOP], [END]]
    assert following.outcome == found


@in_virtual_time
async def test_one_of_those_who_wait_takes_over() -> None:
    """It is told so, knows what its caller has seen, and what is left of the time to the first token."""
    lease = CacheMiss(lease_id="l2")
    seen, batches = await followed(HEAD, chunk(ONE), RESTARTED, lease)
    assert batches == [[ONE]]
    assert seen.outcome == lease
    assert seen.seen.take([Delta(text="one two")]) == [TWO]
    assert seen.left_to_first_token_s is None

    fresh, batches = await followed(HEAD, *[1.0, SIGN] * 3, RESTARTED, lease)
    assert (batches, fresh.outcome) == ([], lease)
    assert fresh.left_to_first_token_s == pytest.approx(7.0)


@pytest.mark.parametrize(
    "steps",
    [
        (chunk(Heading("v0"), ONE),),
        (b"\xc1",),
        (HEAD, FlightLanded("e1")),
        (CacheFound(CacheOutcome.EXACT, (chunk(Heading("v1"), ONE),), "e1", 0.0),),
        (CacheFound(CacheOutcome.EXACT, (b"\xc1",), "e1", 0.0),),
        (Unavailable("DOWN", "down"),),
        (HEAD, *[RESTARTED, BEGUN, HEAD] * (RESTARTS_MAX + 1)),
    ],
    ids=["other policy", "no form", "no end", "half an entry", "no entry", "cache down", "many makers"],
)
@pytest.mark.parametrize("streamed", [True, False])
def test_what_cannot_be_followed_is_a_miss(steps: Sequence[Step], streamed: bool) -> None:
    """The call then makes its own answer, without a lease; nothing was told, and the reason is."""

    @in_virtual_time
    async def play() -> None:
        following, batches = await followed(*steps, streamed=streamed)

        assert batches == []
        assert isinstance(following.outcome, CacheMiss)
        assert following.outcome.reason
        assert not following.outcome.lease_id

    play()


@in_virtual_time
async def test_signs_of_life_are_enough() -> None:
    """A maker whose target is slow is waited for as long as the call may wait for its first token."""
    following, batches = await followed(HEAD, *[1.0, SIGN] * 9, *WHOLE)

    assert batches == [[ONE], [STOP], [END]]
    assert isinstance(following.outcome, FlightLanded)


@in_virtual_time
async def test_a_silence_means_that_the_cache_is_gone() -> None:
    """Then the call goes its own way: soon where it had begun, and before that in time to begin."""
    start = now()
    following, batches = await followed(HEAD, chunk(ONE))
    assert (batches, isinstance(following.outcome, CacheMiss)) == ([[ONE]], True)
    assert now() - start == pytest.approx(SILENCE_S)
    start = now()
    assert await follow(Wire()).begin() == following.outcome
    assert now() - start == pytest.approx(SILENCE_BEFORE_S)
    assert following.seen.take([Delta(text="one two")]) == [TWO]

    start = now()
    first = await follow(Wire(), ttft_s=2.0).begin()
    assert isinstance(first, CacheMiss)
    assert now() - start == pytest.approx(1.0)


@in_virtual_time
async def test_the_time_to_the_first_token_is_the_calls_own() -> None:
    """Whoever makes the answer: a sign of life is no token. A restart does not begin it anew for who reads along."""
    start = now()
    with pytest.raises(DeadlineExceeded) as caught:
        await followed(HEAD, *[1.0, SIGN] * 5, RESTARTED, BEGUN, HEAD, *[1.0, SIGN] * 100)

    assert caught.value.reason == "TTFT_TIMEOUT"
    assert now() - start == pytest.approx(10.0)


@in_virtual_time
async def test_a_pause_between_tokens_has_a_bound() -> None:
    """The call's own, from the last token on."""
    start = now()
    with pytest.raises(DeadlineExceeded) as caught:
        await followed(HEAD, chunk(ONE), *[1.0, SIGN] * 100, inter_token_s=7.0)

    assert caught.value.reason == "INTER_TOKEN_TIMEOUT"
    assert now() - start == pytest.approx(7.0)


@in_virtual_time
async def test_a_whole_answer_gets_the_whole_time_again() -> None:
    """Of the one that broke off nothing has left."""
    signs = [1.0, SIGN] * 8
    following, batches = await followed(
        HEAD, *signs, chunk(ONE), RESTARTED, BEGUN, HEAD, *signs, *WHOLE, streamed=False
    )

    assert batches == [[ONE, STOP, END]]
    assert isinstance(following.outcome, FlightLanded)


@in_virtual_time
async def test_a_caller_that_leaves_hears_no_more() -> None:
    """The cache is told that nobody listens."""
    wire = Wire(BEGUN, HEAD, chunk(ONE))
    following = follow(wire)
    await following.begin()
    batches = following.batches("v1")
    assert await anext(batches) == [ONE]
    await batches.aclose()
    await following.close()

    assert wire.closed
