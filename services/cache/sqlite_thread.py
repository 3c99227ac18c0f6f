"""One thread that owns a SQLite file and does all work on it.

What piles up while it is busy is done together: reads first, then the writes in one transaction, which is on the disk
before anyone is told. This module knows nothing of tables.
"""

import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

# Operations done together: bounds how long a lookup can stand behind others.
BATCH_MAX: Final = 256
# Operations that may wait; more are refused at once.
QUEUE_MAX: Final = 10_000

Result = TypeVar("Result")


@dataclass(slots=True)
class _Job:
    operation: Callable[[sqlite3.Connection], Any]
    writes: bool
    future: Future[Any] = field(default_factory=Future)


class SqliteThread:
    """Runs operations on a file, in the order in which they come.

    Args:
        path: The file; made if it is not there.
        before_commit: Runs at the end of each transaction, within it.
        after_commit: Runs when a transaction is on the disk, before anyone is told.
        after_rollback: Runs when a transaction was undone, to forget what was believed of it.
    """

    def __init__(
        self,
        path: Path,
        before_commit: Callable[[sqlite3.Connection], object],
        after_commit: Callable[[], None],
        after_rollback: Callable[[sqlite3.Connection], None],
    ) -> None:
        self._before_commit, self._after_commit, self._after_rollback = before_commit, after_commit, after_rollback
        self._jobs: queue.Queue[_Job | None] = queue.Queue(QUEUE_MAX)
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._thread = threading.Thread(target=self._run, name="cache-sqlite", daemon=True)
        self._thread.start()

    def submit(self, operation: Callable[[sqlite3.Connection], Result], *, writes: bool) -> Future[Result]:
        """Queues an operation.

        Raises:
            queue.Full: Too many wait.
        """
        job = _Job(operation, writes)
        self._jobs.put_nowait(job)
        return job.future

    def close(self) -> None:
        """Does what is queued, then closes the file."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        with contextlib.closing(self._connection) as connection:
            while (jobs := self._next_jobs()) is not None:
                running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
                for job in running:
                    if not job.writes:
                        _finish(job, connection)
                writes = [job for job in running if job.writes]
                if writes:
                    self._transact(connection, writes)

    def _next_jobs(self) -> list[_Job] | None:
        """Waits for a job and takes those behind it along; None at the end."""
        job = self._jobs.get()
        if job is None:
            return None
        jobs = [job]
        while len(jobs) < BATCH_MAX:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            jobs.append(job)
        return jobs

    def _transact(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """Does all writes or none; one that fails fails those it came with, for they may rest on it."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            results = [job.operation(connection) for job in jobs]
            self._before_commit(connection)
            connection.execute("COMMIT")
            self._after_commit()
        except Exception as error:  # The outermost edge of this thread: whoever waits gets the error.
            self._undo(connection)
            for job in jobs:
                job.future.set_exception(error)
            return
        for job, result in zip(jobs, results, strict=True):
            job.future.set_result(result)

    def _undo(self, connection: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._after_rollback(connection)


def _finish(job: _Job, connection: sqlite3.Connection) -> None:
    try:
        job.future.set_result(job.operation(connection))
    except Exception as error:  # The outermost edge of this thread: whoever waits gets the error.
        job.future.set_exception(error)
