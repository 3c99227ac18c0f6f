"""Whether the database can be used: its schema is seen to once, then it is asked every other second.

A database that is away when the service starts is waited for behind the service's back; what needs it finds out by
itself. Reported as `dependency/database` in inference's health service, and logged when it changes, never more often.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from kit.errors import ConfigError, Unavailable
from services.inference.database.database import Database
from services.inference.database.migrating import prepare

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 2.0
_PROBLEMS = {"DATABASE_FULL": "the disk of the database is full", "DATABASE_DAMAGED": "the database is damaged"}


class DatabaseWatch:
    """Keeps asking one database.

    Args:
        database: The database.
        migrate: Whether its schema may be brought up to date; see `prepare`.
        report: Told on every answer, by name, whether it is up.
        interval_s: Time between two questions.

    Attributes:
        ready: Set once the schema is the code's.
    """

    def __init__(
        self,
        database: Database,
        migrate: bool | None,
        report: Callable[[str, bool], None],
        interval_s: float = CHECK_INTERVAL_S,
    ) -> None:
        self._database, self._migrate, self._report, self._interval_s = database, migrate, report, interval_s
        self._task: asyncio.Task[None] | None = None
        self._was_up: bool | None = None
        self.ready = asyncio.Event()

    async def start(self) -> None:
        """Asks once, then goes on in the background.

        Raises:
            ConfigError: The schema is not the code's and may not be changed.
        """
        await self._check()
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stops asking."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self._check()
            except ConfigError as error:  # it was away at the start, and is not the code's
                log.error("the database cannot be used", extra={"reason": error.message})
                return
            except Exception:  # what no driver should raise must not end the watch
                log.exception("the database could not be asked")

    async def _check(self) -> None:
        is_up, problem = True, ""
        try:
            if self.ready.is_set():
                await self._database.ping()
            else:
                await prepare(self._database, self._migrate)
                self.ready.set()
        except Unavailable as error:
            is_up = False
            problem = _PROBLEMS.get(error.reason, "the database does not answer")
        self._report("dependency/database", is_up)
        if is_up and self._was_up is False:
            log.info("the database answers again")
        elif not is_up and self._was_up is not False:
            log.warning(problem, extra={"reason": self._database.trouble})
        self._was_up = is_up
