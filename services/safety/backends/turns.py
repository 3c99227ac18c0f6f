"""Turns: a model in a thread of its own, which takes the texts that wait together, whoever sent them.

Nobody waits for company: a text that finds the model idle is read at once. Texts that come while it is busy go into its
next turn, a bounded number of them; who would have to wait behind too many is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

from kit.errors import ResourceExhausted

T = TypeVar("T")

TURN_TEXTS_MAX = 16
# The windows of a text of the greatest length that the service takes, and more.
QUEUE_TEXTS_MAX = 8192
RETRY_AFTER_MS = 1_000


class _Job(NamedTuple):
    text: str
    done: asyncio.Future[Any]


class Turns(Generic[T]):
    """One model and its thread; belongs to one event loop.

    Args:
        name: Of the thread.
        load: Gets the model ready, in the thread: returns what reads the texts of a turn and gives a result for each.
    """

    def __init__(self, name: str, load: Callable[[], Callable[[list[str]], Sequence[T]]]) -> None:
        self._load = load
        self._thread = ThreadPoolExecutor(1, name)
        self._loading: asyncio.Future[Callable[[list[str]], Sequence[T]]] | None = None
        self._jobs: deque[_Job] = deque()
        self._is_busy = False

    async def warm(self) -> None:
        """Loads the model; again and again has no effect.

        Raises:
            MillraceError: It cannot be loaded.
        """
        if self._loading is None:
            self._loading = asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        await asyncio.shield(self._loading)

    async def read(self, texts: Sequence[str]) -> list[T]:
        """Reads texts, in as many turns as they need; the model must be warm.

        Raises:
            ResourceExhausted: QUEUE_FULL.
        """
        if len(self._jobs) + len(texts) > QUEUE_TEXTS_MAX:
            raise ResourceExhausted("QUEUE_FULL", "too many texts wait; retry", retry_after_ms=RETRY_AFTER_MS)
        loop = asyncio.get_running_loop()
        jobs = [_Job(_readable(text), loop.create_future()) for text in texts]
        self._jobs.extend(jobs)
        if not self._is_busy:
            self._is_busy = True
            loop.call_soon(self._start)  # at the tick's end, with what else came in it
        return list(await asyncio.gather(*(job.done for job in jobs)))

    def _start(self) -> None:
        turn: list[_Job] = []
        while self._jobs and len(turn) < TURN_TEXTS_MAX:
            job = self._jobs.popleft()
            if not job.done.done():  # its caller has left
                turn.append(job)
        self._is_busy = bool(turn)
        if turn:
            assert self._loading, "a detector is warmed before it reads"
            loop = asyncio.get_running_loop()
            reading = loop.run_in_executor(self._thread, self._loading.result(), [job.text for job in turn])
            reading.add_done_callback(lambda done: self._end(turn, done))

    def _end(self, turn: list[_Job], reading: asyncio.Future[Sequence[T]]) -> None:
        failure = asyncio.CancelledError() if reading.cancelled() else reading.exception()
        for index, job in enumerate(turn):
            if job.done.done():
                continue
            if failure:
                job.done.set_exception(failure)
            else:
                job.done.set_result(reading.result()[index])
        self._start()


def _readable(text: str) -> str:
    """A text without lone surrogates, which Python strings may hold and no tokenizer reads; as long as before."""
    return text.encode("utf-8", "replace").decode()
