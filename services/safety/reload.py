"""Reload: a changed policy file takes effect without a restart, whole or not at all.

The file is looked at every second. A changed one is checked and its detectors are built before it is put in force at
one stroke: a call goes by the policies that it began with, to its end. A bad file changes nothing but the health of
`policies-file`, and is named in the log by line and field.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kit.errors import MillraceError
from services.safety.policy import Policies
from services.safety.safety import Safety

_log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
FILE = "policies-file"  # its name in the health service


class Board(Protocol):
    """Where health is told: the server, or what stands for it."""

    def set_serving(self, name: str, serving: bool) -> None:
        """Sets the health of a name."""


class Reload:
    """Puts the policy file in force whenever it changes.

    Args:
        path: The operator's file, read once by now.
        load: Reads all policies anew; raises `ConfigError`.
        safety: Where they are put in force.
        interval_s: Between two looks.
    """

    def __init__(
        self, path: Path, load: Callable[[], Policies], safety: Safety, interval_s: float = CHECK_INTERVAL_S
    ) -> None:
        self._path, self._load, self._safety, self._interval_s = path, load, safety, interval_s
        self._seen = self._look()
        self._board: Board
        self._task: asyncio.Task[None] | None = None

    def start(self, board: Board) -> None:
        """Watches the file from now on."""
        self._board = board
        board.set_serving(FILE, True)
        self._task = asyncio.create_task(self._watch())

    async def check(self) -> None:
        """Looks at the file once, and puts it in force if it has changed."""
        seen = await asyncio.to_thread(self._look)
        if seen == self._seen:
            return
        self._seen = seen  # before it is read: what is written meanwhile is seen as another change
        try:
            policies = await asyncio.to_thread(self._load)
            await self._safety.put_in_force(policies)
        except MillraceError as error:
            _log.error("policy file refused; the one before stays in force: %s", error.message)
            self._board.set_serving(FILE, False)
            return
        self._board.set_serving(FILE, True)
        _log.info("policy file read", extra={"policy_version": policies.version})

    async def close(self) -> None:
        """Stops watching."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            try:
                await self.check()
            except Exception:  # whatever it was, the next file may be better
                _log.exception("the policy file could not be looked at")

    def _look(self) -> tuple[int, ...] | None:
        with suppress(OSError):
            found = self._path.stat()
            return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
        return None
