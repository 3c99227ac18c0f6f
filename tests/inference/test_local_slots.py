"""Places at a model: bounded, in order, and none is ever lost."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import ResourceExhausted
from services.inference.engines.local.slots import Slots


async def hold(slots: Slots, order: list[int], number: int, gate: asyncio.Event) -> None:
    """Takes a place, notes it, and keeps it until the gate opens."""
    async with slots.place():
        order.append(number)
        await gate.wait()


async def settle() -> None:
    """Lets every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    """Those who wait get their places in the order in which they came."""
    slots, order, gate = Slots(1, 10, 5.0), list[int](), asyncio.Event()
    tasks = [asyncio.create_task(hold(slots, order, number, gate)) for number in range(4)]
    await settle()
    assert (order, slots.active_count, slots.waiting_count) == ([0], 1, 3)

    gate.set()
    await asyncio.gather(*tasks)

    assert order == [0, 1, 2, 3]
    assert (slots.active_count, slots.waiting_count) == (0, 0)


async def test_full_queue_is_refused_at_once() -> None:
    """Beyond the queue a request is refused with a time to come back."""
    slots, gate = Slots(1, 0, 5.0), asyncio.Event()
    task = asyncio.create_task(hold(slots, [], 0, gate))
    await settle()

    with pytest.raises(ResourceExhausted) as refused:
        async with slots.place():
            pass

    assert refused.value.reason == "QUEUE_FULL"
    assert refused.value.retry_after_ms
    gate.set()
    await task


async def test_cancelled_waiter_gives_its_turn_on() -> None:
    """A waiter that is cancelled in the tick in which its turn comes passes the place to the next."""
    slots, order, gate = Slots(1, 10, 5.0), list[int](), asyncio.Event()
    first, second, third = (asyncio.create_task(hold(slots, order, number, gate)) for number in range(3))
    await settle()
    gate.set()
    await asyncio.sleep(0)  # the first leaves in this tick and hands its place to the second
    second.cancel()

    await asyncio.gather(first, second, third, return_exceptions=True)

    assert second.cancelled()
    assert order == [0, 2]
    assert (slots.active_count, slots.waiting_count) == (0, 0)


async def test_cancelled_and_passed_over() -> None:
    """A waiter that is cancelled before a place is handed out is passed over and leaves the queue."""
    slots, order, gate = Slots(1, 10, 5.0), list[int](), asyncio.Event()
    first, second, third = (asyncio.create_task(hold(slots, order, number, gate)) for number in range(3))
    await settle()
    second.cancel()
    gate.set()

    await asyncio.gather(first, second, third, return_exceptions=True)

    assert order == [0, 2]
    assert (slots.active_count, slots.waiting_count) == (0, 0)
