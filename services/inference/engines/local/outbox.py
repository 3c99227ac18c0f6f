"""The handoff of events from a model's thread to the event loop that reads them.

Bounded: when its reader falls behind, `is_full` tells the thread to pause that one generation. What is ready in the
same tick leaves as one list, tokens of one choice as one delta. It never blocks the thread.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence

from services.inference.engines.local.tool_calls import joined
from services.inference.generation import ChoiceFinished, Delta, EngineEvent

logger = logging.getLogger(__name__)

# Events that may wait for a slow reader: some seconds of a fast model's tokens, a few kilobytes.
PENDING_COUNT_MAX = 64


class Bell:
    """Wakes the readers of one loop: all that a step has news for at once.

    Waking a loop is a system call, in which the thread loses the interpreter to the very loop that it wakes. Once for
    each reader would stop the thread as many times in every step.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._readers: list[Callable[[], object]] = []

    def add(self, wake: Callable[[], object]) -> None:
        """Remembers who is to be woken; `wake` runs in the loop."""
        self._readers.append(wake)

    def ring(self) -> None:
        """Wakes them, from any thread."""
        if not self._readers:
            return
        readers, self._readers = self._readers, []
        try:
            self._loop.call_soon_threadsafe(_wake, readers)
        except RuntimeError:
            logger.debug("there was news after the readers' event loop had closed")


class Outbox:
    """Events on their way to one reader."""

    def __init__(self, bell: Bell, on_room: Callable[[], None]) -> None:
        """Args: what wakes the reader once it is rung, and what is called in its loop when a full box was emptied."""
        self._bell = bell
        self._on_room = on_room
        self._lock = threading.Lock()
        self._ready = asyncio.Event()
        self._is_announced = False
        self._events: list[EngineEvent] = []
        self._error: BaseException | None = None

    @property
    def is_full(self) -> bool:
        """Whether the writer should pause."""
        return len(self._events) >= PENDING_COUNT_MAX

    def put(self, events: Sequence[EngineEvent]) -> None:
        """Hands events over, from any thread."""
        if events:
            self._hand_over(events, None)

    def fail(self, error: BaseException) -> None:
        """Hands over an error, raised to the reader after the events before it."""
        self._hand_over((), error)

    def _hand_over(self, events: Sequence[EngineEvent], error: BaseException | None) -> None:
        with self._lock:
            self._events.extend(events)
            self._error = self._error or error
            is_announced, self._is_announced = self._is_announced, True
        if not is_announced:
            self._bell.add(self._ready.set)

    async def take(self) -> list[EngineEvent]:
        """Waits for events and takes all that are ready; never empty.

        Raises:
            BaseException: What `fail` was given, once the events before it were taken.
        """
        await self._ready.wait()
        return self.take_ready()

    def take_ready(self) -> list[EngineEvent]:
        """Takes what is ready, which may be nothing; raises as `take` does."""
        with self._lock:
            events, self._events = self._events, []
            if not events and self._error is not None:
                raise self._error
            if self._error is None:
                self._is_announced = False
                self._ready.clear()
        if len(events) >= PENDING_COUNT_MAX:
            self._on_room()
        return merged(events)


def _wake(readers: Sequence[Callable[[], object]]) -> None:
    for wake in readers:
        wake()


def merged(events: Sequence[EngineEvent]) -> list[EngineEvent]:
    """Joins the deltas of each choice that no end stands between."""
    open_deltas: dict[int, Delta] = {}
    result: list[EngineEvent] = []
    for event in events:
        if isinstance(event, Delta):
            earlier = open_deltas.get(event.choice_index)
            if earlier is None:
                open_deltas[event.choice_index] = event
                result.append(event)
            else:
                earlier.text += event.text
                earlier.logprobs += event.logprobs
                if event.tool_calls:
                    earlier.tool_calls = joined((*earlier.tool_calls, *event.tool_calls))
                earlier.completion_token_count = event.completion_token_count
            continue
        if isinstance(event, ChoiceFinished):
            open_deltas.pop(event.choice_index, None)
        result.append(event)
    return result
