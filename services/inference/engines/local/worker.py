"""The one thread that runs a model: it takes requests on, computes step after step, and sleeps when nothing is left.

asyncio never waits for torch, and an idle model costs nothing. A request that was cancelled is dropped before the next
step. It knows neither torch nor what a step does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from services.inference.engines.local.job import Job
from services.inference.engines.local.step_watch import StepWatch

logger = logging.getLogger(__name__)

# A thread that wakes up waits for so long at most for requests that are on their way: those who ask at once are read in
# one step. Else the first has one for itself, for which the others wait; eight callers of a GPT-2 in int8 get 9 % more
# tokens a second, and the last of them a first token after 126 ms in place of 181.
GATHER_S = 0.005

# Between two looks whether a step that is waited for hangs.
LOOK_S = 0.5


class Work(Protocol):
    """What is done with requests, in steps."""

    def add(self, job: Job) -> None:
        """Takes a request on."""
        ...

    def drop(self, job: Job) -> None:
        """Forgets a request, finished or not; one that it does not know is no error."""
        ...

    def step(self) -> bool:
        """Does a step; False where nothing can be done until something changes."""
        ...


class Worker:
    """The thread of one model.

    Attributes:
        watch: Tells whether it gets on.
    """

    def __init__(self, name: str) -> None:
        self.watch = StepWatch()
        self._changed = threading.Condition()
        self._has_news = False
        self._jobs: set[Job] = set()
        self._arrived: list[Job] = []
        self._expected_count = 0
        self._is_closing = False
        self._is_idle = False
        self._is_prepared = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._prepare: Callable[[], Work | None] = lambda: None
        self._after_step: Callable[[], None] = lambda: None

    @property
    def job_count(self) -> int:
        """Requests that are waited for."""
        return len(self._jobs) + len(self._arrived)

    @property
    def is_idle(self) -> bool:
        """Whether the thread sleeps: no request can get on."""
        return self._is_idle

    def start(self, prepare: Callable[[], Work | None], after_step: Callable[[], None] = lambda: None) -> None:
        """Starts the thread; `prepare` runs in it first and makes the work, or nothing where it failed.

        `after_step` runs after each step, and whenever else readers may have news.
        """
        self._prepare, self._after_step = prepare, after_step
        self._thread.start()

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """While the block runs a request is made ready: a thread that wakes up waits for it a little."""
        with self._changed:
            self._expected_count += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected_count -= 1
                self._changed.notify()

    def add(self, job: Job) -> None:
        """Lets a request take part from the next step on."""
        with self._changed:
            self._arrived.append(job)
            self._tell()

    def cancel(self, job: Job) -> None:
        """Ends a request before the next step; one that is done is forgotten."""
        job.is_cancelled = True
        self.wake()

    def wake(self) -> None:
        """Lets the thread look again at what can be done."""
        with self._changed:
            self._tell()

    def close(self, reason: Exception) -> None:
        """Ends the thread after the step in hand and waits for it; the readers of open requests get the reason.

        A thread that is still preparing is not waited for: loading a model takes minutes and cannot be interrupted. Nor
        is one that hangs within a step. They end by themselves, or with the process.
        """
        with self._changed:
            self._is_closing = True
            self._tell()
        while self._thread.is_alive() and self._is_prepared and not self.watch.is_stuck:
            self._thread.join(LOOK_S)
        for job in (*self._jobs, *self._arrived):
            job.fail(reason)
            job.leave()
        self._jobs, self._arrived = set(), []
        self._after_step()

    def _tell(self) -> None:
        self._has_news = True
        self._changed.notify()

    def _run(self) -> None:
        work = self._prepare()
        self._is_prepared = True
        while work is not None and not self._is_closing:
            is_moving = True
            self.watch.begin()
            try:
                self._take_news(work)
                is_moving = work.step()
            except Exception as error:  # the outermost edge of the thread: it serves the next request
                logger.exception("a step failed")
                for job in list(self._jobs):
                    job.fail(error)
                    self._drop(work, job)
            self.watch.end()
            self._after_step()
            if not is_moving:
                self._sleep()

    def _take_news(self, work: Work) -> None:
        """Drops what was cancelled and takes on what has come."""
        if not self._has_news:
            return
        with self._changed:
            self._has_news = False
            arrived, self._arrived = self._arrived, []
            self._jobs.update(arrived)
        for job in [job for job in self._jobs if job.is_cancelled]:
            self._drop(work, job)
        for job in arrived:
            if job in self._jobs:
                self._add(work, job)

    def _add(self, work: Work, job: Job) -> None:
        try:
            work.add(job)
        except Exception as error:  # the edge of one request: its reader gets the error, the others go on
            job.fail(error)
            self._drop(work, job)

    def _drop(self, work: Work, job: Job) -> None:
        work.drop(job)
        self._jobs.discard(job)
        job.leave()

    def _sleep(self) -> None:
        with self._changed:
            self._is_idle = not self._has_news
            while not self._has_news:
                self._changed.wait()
            self._is_idle = False
            end_s = time.monotonic() + GATHER_S
            while self._expected_count and (left_s := end_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
