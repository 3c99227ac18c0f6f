"""The handoff from a model's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from services.inference.engines.local.outbox import PENDING_COUNT_MAX, Bell, Outbox, merged
from services.inference.generation import ChoiceFinished, Delta, FinishReason, TokenLogprob


def token(text: str, count: int, choice_index: int = 0) -> Delta:
    """A delta of one token."""
    logprobs = (TokenLogprob(text, -1.0, text.encode()),)
    return Delta(choice_index, text, logprobs=logprobs, completion_token_count=count)


class Rung(Bell):
    """Rings at once, as if each event were a step of its own."""

    def add(self, wake: Callable[[], object]) -> None:
        """Rings."""
        super().add(wake)
        self.ring()


class Loop:
    """An event loop that counts how often it is woken."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.woken_count = 0

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> None:
        """Counts, and wakes the loop."""
        self.woken_count += 1
        self._loop.call_soon_threadsafe(callback, *args)


async def test_readers_of_a_step_are_woken_at_once() -> None:
    """However many readers a step has news for, their loop is woken once, and only when the step is over."""
    loop = Loop(asyncio.get_running_loop())
    bell = Bell(loop)  # type: ignore[arg-type]
    boxes = [Outbox(bell, lambda: None) for _ in range(5)]
    for box in boxes:
        box.put([token("a", 1)])
    taking = [asyncio.create_task(box.take()) for box in boxes]
    await asyncio.sleep(0)
    assert not any(task.done() for task in taking)

    bell.ring()
    bell.ring()

    async with asyncio.timeout(5):
        assert len(await asyncio.gather(*taking)) == 5
    assert loop.woken_count == 1


async def test_what_is_ready_comes_as_one_list() -> None:
    """Events of one tick are taken together, tokens of a choice as one delta."""
    outbox = Outbox(Rung(asyncio.get_running_loop()), lambda: None)
    await asyncio.to_thread(outbox.put, [token("a", 1)])
    await asyncio.to_thread(outbox.put, [token("b", 2), ChoiceFinished(0, FinishReason.STOP)])

    delta, finished = await outbox.take()

    assert isinstance(delta, Delta)
    assert (delta.text, delta.completion_token_count, len(delta.logprobs)) == ("ab", 2, 2)
    assert finished == ChoiceFinished(0, FinishReason.STOP)


async def test_reader_waits_for_the_next_event() -> None:
    """A second take waits for what comes after the first."""
    outbox = Outbox(Rung(asyncio.get_running_loop()), lambda: None)
    outbox.put([token("a", 1)])
    await outbox.take()
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()

    await asyncio.to_thread(outbox.put, [token("b", 2)])

    async with asyncio.timeout(5):
        assert [event.text for event in await taking if isinstance(event, Delta)] == ["b"]


async def test_full_box_tells_when_it_has_room() -> None:
    """A box is full at its bound, and says once that there is room again."""
    told: list[bool] = []
    outbox = Outbox(Rung(asyncio.get_running_loop()), lambda: told.append(True))
    for count in range(PENDING_COUNT_MAX):
        assert not outbox.is_full
        outbox.put([token("a", count)])
    assert outbox.is_full

    await outbox.take()

    assert not outbox.is_full
    assert told == [True]


async def test_error_comes_after_the_events_before_it() -> None:
    """The reader gets what was ready before a failure, then the failure, as often as it asks."""
    outbox = Outbox(Rung(asyncio.get_running_loop()), lambda: None)
    outbox.put([token("a", 1)])
    outbox.fail(ValueError("broken"))

    assert len(await outbox.take()) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            await outbox.take()


def test_choices_are_merged_apart() -> None:
    """Deltas of several choices are merged each with its own, and none past its end."""
    events = merged([token("a", 1, 0), token("x", 1, 1), token("b", 2, 0), token("y", 2, 1)])

    assert [(e.choice_index, e.text) for e in events if isinstance(e, Delta)] == [(0, "ab"), (1, "xy")]
