"""The handoff of events from a model's thread to the event loop that reads them.

Bounded: when its reader falls behind, `is_full` tells the thread to pause that one generation. What is ready in the
same tick leaves as one list, tokens of one choice as one delta. It never blocks the thread.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from services.inference.engines.local.tool_calls import joined
from services.inference.generation import ChoiceFinished, Delta, EngineEvent

# Events that may wait for a slow reader: some seconds of a fast model's tokens, a few kilobytes.
PENDING_COUNT_MAX = 64


class Outbox:
    """Events on their way to one reader."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_room: Callable[[], None]) -> None:
        """Args: the reader's loop, and what is called there once a full box has been emptied."""
        self._loop = loop
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
            self._loop.call_soon_threadsafe(self._ready.set)

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
