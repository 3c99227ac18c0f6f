"""The queue of a target: who gets a place, who is told to come back, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import Code, ResourceExhausted
from services.inference.attempts.target_queue import RETRY_AFTER_MS_MIN, RETRY_AFTER_MS_UNKNOWN, TargetQueue
from services.inference.routing.rules import QueueRule
from tests.inference.clocks import in_virtual_time

NEVER = math.inf


def now() -> float:
    return asyncio.get_running_loop().time()


def queue(running: int = 1, waiting: int = 3, wait_s: float = 5.0) -> TargetQueue:
    rule = QueueRule(running_count_max=running, queue_count_max=waiting, wait_s_max=wait_s)
    return TargetQueue(rule, now)


async def full(running: int = 1, waiting: int = 3, wait_s: float = 5.0) -> TargetQueue:
    """A queue all of whose places are taken."""
    one = queue(running, waiting, wait_s)
    for _ in range(running):
        await one.enter(0, NEVER)
    return one


async def waiter(one: TargetQueue, priority: int = 0, until: float = NEVER) -> asyncio.Task[None]:
    """A call that stands in the line."""
    task = asyncio.create_task(one.enter(priority, until))
    await asyncio.sleep(0)
    return task


async def refusal(task: asyncio.Task[None]) -> ResourceExhausted:
    with pytest.raises(ResourceExhausted) as caught:
        await task
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TARGET_FULL")
    return caught.value


@in_virtual_time
async def test_free_places_are_taken_at_once():
    """A call never waits while a place is free, even one whose time is over."""
    one = queue(running=2)
    for until in (NEVER, 0.0):
        with pytest.raises(StopIteration):
            one.enter(0, until).send(None)

    assert (one.running_count, one.waiting_count) == (2, 0)


@in_virtual_time
async def test_place_goes_to_the_eldest():
    """Within one priority calls get places in the order in which they came."""
    one = await full()
    waiters = [await waiter(one) for _ in range(3)]
    for served in range(1, 4):
        one.leave(0.1)
        await asyncio.sleep(0)
        assert [task.done() for task in waiters] == [number < served for number in range(3)]

    assert (one.running_count, one.waiting_count) == (1, 0)


@in_virtual_time
async def test_higher_priority_goes_first():
    """A later call of a higher priority gets the next place."""
    one = await full()
    low, high = await waiter(one, -1), await waiter(one, 7)
    one.leave(0.1)
    await high

    assert not low.done()
    low.cancel()


@in_virtual_time
async def test_nobody_takes_a_place_that_has_an_owner():
    """A call that comes in the moment in which a place is handed on stands in the line."""
    one = await full()
    first = await waiter(one)
    one.leave(0.1)
    second = asyncio.create_task(one.enter(0, NEVER))
    await first
    await asyncio.sleep(0)

    assert (one.running_count, one.waiting_count, second.done()) == (1, 1, False)
    second.cancel()


@pytest.mark.parametrize(("until_s", "waited_s"), [(2.0, 2.0), (60.0, 5.0), (NEVER, 5.0)])
@in_virtual_time
async def test_waits_end(until_s: float, waited_s: float):
    """A call waits until its own time is over, and no longer than the rule allows."""
    one = await full()
    began = now()
    await refusal(await waiter(one, until=began + until_s))

    assert now() - began == pytest.approx(waited_s)
    assert (one.running_count, one.waiting_count) == (1, 0)


@in_virtual_time
async def test_call_without_time_is_refused_at_once():
    """A call that could not use a place in the future does not stand in the line."""
    one = await full()
    with pytest.raises(ResourceExhausted):
        one.enter(0, now()).send(None)


@in_virtual_time
async def test_full_line_refuses_the_newest():
    """Where nobody in the line has a lower priority, the one who comes is sent away."""
    one = await full(waiting=2)
    waiters = [await waiter(one), await waiter(one)]
    error = await refusal(await waiter(one))
    assert error.retry_after_ms == RETRY_AFTER_MS_UNKNOWN

    one.leave(0.1)
    await waiters[0]
    one.leave(0.1)
    await waiters[1]


@in_virtual_time
async def test_full_line_lets_the_lowest_and_newest_go():
    """A higher priority takes the room of the last that came among the lowest."""
    one = await full(waiting=3)
    old, new = await waiter(one, -1), await waiter(one, -1)
    middle = await waiter(one, 0)
    high = await waiter(one, 1)
    await refusal(new)

    assert [task.done() for task in (old, middle, high)] == [False] * 3
    assert one.waiting_count == 3
    await refusal(await waiter(one, -1))
    for task in (high, middle, old):
        one.leave(0.1)
        await task


@in_virtual_time
async def test_no_line_at_all():
    """A rule of no queue refuses whoever finds no place free."""
    one = await full(waiting=0)
    await refusal(await waiter(one, 100))


@in_virtual_time
async def test_hopeless_waits_are_refused_at_once():
    """Who would wait too long as things go is told when to come back, without the wait; a higher priority may stay."""
    one = await full(running=2, waiting=10)
    one.leave(4.0)  # a place every two seconds
    await one.enter(0, NEVER)
    waiters = [await waiter(one), await waiter(one)]  # a second, three seconds
    began = now()
    error = await refusal(await waiter(one, until=now() + 4.9))
    assert (error.retry_after_ms, now()) == (5_000, began)

    waiters += [await waiter(one, 1, until=now() + 4.9)]
    for task in waiters:
        task.cancel()


@in_virtual_time
async def test_short_calls_are_not_told_to_hammer():
    """The wait that is told has a floor."""
    one = await full(waiting=0)
    one.leave(0.001)
    await one.enter(0, NEVER)

    assert (await refusal(await waiter(one))).retry_after_ms == RETRY_AFTER_MS_MIN


@in_virtual_time
async def test_cancelled_waiter_frees_its_room():
    """One who hangs up in the line makes room for another."""
    one = await full(waiting=1)
    gone = await waiter(one)
    gone.cancel()
    await asyncio.wait([gone])
    assert one.waiting_count == 0

    other = await waiter(one)
    one.leave(0.1)
    await other


@in_virtual_time
async def test_place_given_to_one_who_just_hung_up_is_passed_on():
    """A place that is handed to a waiter that is cancelled in the same moment goes to the next one."""
    one = await full()
    gone, other = await waiter(one), await waiter(one)
    one.leave(0.1)
    gone.cancel()
    await other
    assert gone.cancelled()
    assert (one.running_count, one.waiting_count) == (1, 0)

    one.leave(0.1)
    assert one.running_count == 0


@in_virtual_time
async def test_one_who_hung_up_is_given_no_place():
    """A waiter that is cancelled just before a place comes free is passed by."""
    one = await full()
    gone, other = await waiter(one), await waiter(one)
    gone.cancel()
    one.leave(0.1)
    await other

    assert gone.cancelled()
    assert (one.running_count, one.waiting_count) == (1, 0)


@in_virtual_time
async def test_refused_and_cancelled_at_once_is_cancelled():
    """A waiter that is put out in the moment in which it hangs up changes no count."""
    one = await full(waiting=1)
    gone = await waiter(one)
    high = asyncio.create_task(one.enter(1, NEVER))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    assert (one.running_count, one.waiting_count) == (1, 1)

    one.leave(0.1)
    await high


@in_virtual_time
async def test_more_places_are_given_out_at_once():
    """A rule of more places lets waiters in; one of fewer takes none away, but gives none out until it holds."""
    one = await full(running=1)
    waiters = [await waiter(one) for _ in range(3)]
    one.follow(QueueRule(running_count_max=3, queue_count_max=3))
    await asyncio.gather(*waiters[:2])
    assert (one.running_count, one.waiting_count) == (3, 1)

    one.follow(QueueRule(running_count_max=1, queue_count_max=3))
    one.leave(0.1)
    one.leave(0.1)
    await asyncio.sleep(0)
    assert not waiters[2].done()
    one.leave(0.1)
    await waiters[2]


@in_virtual_time
async def test_shorter_line_puts_the_last_ones_out():
    """A rule of a shorter queue refuses those who stand behind its end."""
    one = await full()
    first, *last = [await waiter(one) for _ in range(3)]
    one.follow(QueueRule(running_count_max=1, queue_count_max=1))
    for task in last:
        await refusal(task)

    assert not first.done()
    first.cancel()


@dataclass
class Call:
    """A call as drawn, and what became of it."""

    comes_s: float
    priority: int
    patience_s: float
    holds_s: float
    hangs_up_s: float | None
    came: float = 0.0
    waited_s: float = 0.0
    admitted: float | None = None
    ended: str = ""
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def rank(self) -> tuple[int, float]:
        return (-self.priority, self.came)


# Instants on a grid, so that comings, ends and hang-ups often fall into one moment.
TIMES = st.integers(0, 40).map(lambda quarter: quarter / 4)
CALLS = st.lists(
    st.builds(Call, TIMES, st.integers(-1, 1), TIMES | st.just(NEVER), TIMES, st.none() | TIMES), max_size=40
)
RULE = QueueRule(running_count_max=2, queue_count_max=4, wait_s_max=3.0)


async def play(call: Call, one: TargetQueue) -> None:
    """Lives one call through."""
    await asyncio.sleep(call.comes_s)
    call.came = now()
    try:
        await one.enter(call.priority, call.came + call.patience_s)
    except ResourceExhausted as error:
        call.ended = error.reason
        return
    finally:
        call.waited_s = now() - call.came
    call.admitted = now()
    assert one.running_count <= RULE.running_count_max
    assert one.waiting_count <= RULE.queue_count_max
    try:
        await asyncio.sleep(call.holds_s)
        call.ended = "answered"
    finally:
        one.leave(now() - call.admitted)
        # A place is never free while somebody waits for one.
        assert one.waiting_count == 0 or one.running_count == RULE.running_count_max


@given(CALLS)
@in_virtual_time
async def test_every_call_ends_in_order_and_no_place_is_lost(calls: list[Call]):
    """Whatever calls come, hang up and end: bounds hold, nobody waits too long, and the line keeps its order."""
    one, loop = TargetQueue(RULE, now), asyncio.get_running_loop()
    for call in calls:
        call.task = asyncio.create_task(play(call, one))
        if call.hangs_up_s is not None:
            loop.call_later(call.comes_s + call.hangs_up_s, call.task.cancel)
    results = await asyncio.gather(*[call.task for call in calls if call.task], return_exceptions=True)

    assert (one.running_count, one.waiting_count) == (0, 0)
    for call, result in zip(calls, results, strict=True):
        if isinstance(result, asyncio.CancelledError):
            assert call.hangs_up_s is not None
        else:
            assert result is None
            assert call.ended in ("answered", "TARGET_FULL")
        assert call.waited_s <= min(call.patience_s, RULE.wait_s_max) + 1e-6
    admitted = [(call, call.admitted) for call in calls if call.admitted is not None]
    for call, at in admitted:
        passed_by = [one for one, later in admitted if one.rank < call.rank and one.came < at < later]
        assert not passed_by
