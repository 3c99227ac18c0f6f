"""The one thread that runs a model: requests at work take turns in it, a step each.

asyncio never waits for torch, and an idle model costs nothing: the thread sleeps until something can be done. A
request whose reader has fallen behind is passed over; one that was cancelled is dropped before its next step. It
knows neither torch nor what a step does.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from services.inference.engines.local_outbox import Outbox
from services.inference.generation import EngineEvent

logger = logging.getLogger(__name__)


class Steps(Protocol):
    """Work that is done in steps."""

    @property
    def is_done(self) -> bool:
        """Whether no step is left."""
        ...

    def step(self) -> list[EngineEvent]:
        """Does a step and returns the events that it gave."""
        ...


class Job:
    """A request in the thread."""

    def __init__(self, begin: Callable[[], Steps], outbox: Outbox) -> None:
        """`begin` makes the work, in the thread, when its first turn comes."""
        self.outbox = outbox
        self.is_cancelled = False
        self._begin = begin
        self._steps: Steps | None = None

    def advance(self) -> bool:
        """Does a step; returns whether there is more to do."""
        if self.is_cancelled:
            return False
        try:
            self._steps = self._steps or self._begin()
            self.outbox.put(self._steps.step())
        except Exception as error:  # the outermost edge of the job: its reader gets the error, the others go on
            self.fail(error)
            return False
        return not self._steps.is_done

    def fail(self, error: Exception) -> None:
        """Ends the job with an error."""
        try:
            self.outbox.fail(error)
        except RuntimeError:
            logger.exception("a job failed after its reader's event loop had closed", exc_info=error)


class Worker:
    """The thread of one model."""

    def __init__(self, name: str) -> None:
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._arrived: list[Job] = []
        self._is_closing = False
        self._is_idle = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._prepare: Callable[[], bool] = lambda: True

    @property
    def job_count(self) -> int:
        """Jobs that hold memory of the model, those that arrived included."""
        return len(self._jobs) + len(self._arrived)

    @property
    def is_idle(self) -> bool:
        """Whether the thread sleeps: no job can advance."""
        return self._is_idle

    def start(self, prepare: Callable[[], bool]) -> None:
        """Starts the thread; `prepare` runs in it first and tells whether it is of use."""
        self._prepare = prepare
        self._thread.start()

    def add(self, job: Job) -> None:
        """Lets a job take part from the next round on."""
        with self._changed:
            self._arrived.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Ends a job before its next step."""
        job.is_cancelled = True
        self.wake()

    def wake(self) -> None:
        """Lets the thread look again at what can be done."""
        with self._changed:
            self._changed.notify()

    def close(self, reason: Exception) -> None:
        """Ends the thread after the step in hand and waits for it; the readers of open jobs get the reason."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        for job in (*self._jobs, *self._arrived):
            job.fail(reason)
        self._jobs, self._arrived = [], []

    def _run(self) -> None:
        if not self._prepare():
            return
        while (runnable := self._next_round()) is not None:
            ended = [job for job in runnable if not self._is_closing and not job.advance()]
            self._jobs = [job for job in self._jobs if job not in ended]

    def _next_round(self) -> list[Job] | None:
        """Waits until a job can advance; None when the thread is to end."""
        with self._changed:
            while not self._is_closing:
                self._jobs += self._arrived
                self._arrived = []
                self._jobs = [job for job in self._jobs if not job.is_cancelled]
                if runnable := [job for job in self._jobs if not job.outbox.is_full]:
                    return runnable
                self._is_idle = True
                self._changed.wait()
                self._is_idle = False
        return None
