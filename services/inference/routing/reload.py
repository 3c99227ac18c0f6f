"""Reload: a changed models file takes effect without a restart, and without a call noticing.

The file is looked at every second. A changed one is checked whole, and what it names anew is loaded, before it is put
in force at one stroke: a call goes by the old file or by the new one, never by both. What the old one named is let go
once the last call that goes by it has ended. A bad file changes nothing but the health of `models-file`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from kit.document_file import DocumentFile
from kit.errors import MillraceError
from services.inference.routing.catalog import Catalog, Model
from services.inference.routing.fleet import Fleet, State
from services.inference.routing.router import Router, Snapshot

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 1.0
FILE = "models-file"  # its name in the health service


class Board(Protocol):
    """Where health is told: the server, or what stands for it."""

    def set_serving(self, name: str, serving: bool) -> None:
        """Sets the health of a name."""

    def forget(self, name: str) -> None:
        """Forgets a name."""


class ModelsFile(DocumentFile[Catalog]):
    """The models file, and how it looked when it was read last."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, Catalog)


class Reload:
    """Puts the models file in force whenever it changes.

    Args:
        file: The file, read once by now.
        router: Whose catalogue is swapped.
        fleet: Which loads and frees engines.
        interval_s: Between two looks.
    """

    def __init__(self, file: ModelsFile, router: Router, fleet: Fleet, interval_s: float = CHECK_INTERVAL_S) -> None:
        self._file, self._router, self._fleet, self._interval_s = file, router, fleet, interval_s
        self._retired: list[Snapshot] = []
        self._told: dict[str, State] = {}
        self._asked = asyncio.Event()
        self._checking = asyncio.Lock()
        self._board: Board
        self._task: asyncio.Task[None] | None = None

    async def start(self, board: Board) -> None:
        """Tells the health of the models in force, loads them, and watches the file from then on; SIGHUP reads it.

        Raises:
            Unavailable: Not one model could be loaded (NO_MODEL_LOADED).
        """
        self._board = board
        board.set_serving("needs/safety", self._router.catalog.needs_safety)
        board.set_serving(FILE, True)
        await self._fleet.warm(self._tell)
        self._task = asyncio.create_task(self._watch())
        with suppress(RuntimeError, ValueError):  # not the main thread: there are no signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.ask)

    def ask(self) -> None:
        """Has the file read soon, changed or not; models that could not be loaded are tried again."""
        self._asked.set()

    async def check(self) -> None:
        """Looks at the file once, and puts it in force if it has changed; lets go of what no call needs any more.

        Tells how the models are, too: those that are loaded on demand come and go.
        """
        async with self._checking:
            for model in self._router.catalog.models:
                if self._fleet.state_of(model) is not self._told.get(model.name):
                    self._tell(model, self._fleet.state_of(model))
            await self._let_go()
            if self._asked.is_set() or await asyncio.to_thread(self._file.has_changed):
                self._asked.clear()
                await self._read()

    async def close(self) -> None:
        """Stops watching."""
        if self._task:
            with suppress(RuntimeError, ValueError):
                asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await self._asked.wait()
            try:
                await self.check()
            except Exception:  # whatever it was, the next file may be better
                log.exception("the models file could not be looked at")

    async def _read(self) -> None:
        try:
            catalog = await asyncio.to_thread(self._file.read)
            await self._fleet.prepare(catalog)
        except MillraceError as error:
            log.error("models file refused; the one before stays in force: %s", error.message)
            self._board.set_serving(FILE, False)
            return
        self._put_in_force(catalog)
        log.info("models file read", extra={"model_count": len(catalog.models)})
        await self._let_go()

    def _put_in_force(self, catalog: Catalog) -> None:
        before = self._router.swap(catalog)
        self._retired.append(before)
        self._board.set_serving("needs/safety", catalog.needs_safety)
        for model in catalog.models:
            self._tell(model, self._fleet.state_of(model))
        names = {model.name for model in catalog.models}
        for model in before.catalog.models:
            if model.name not in names:
                self._board.forget(_health_name(model))
        self._board.set_serving(FILE, True)

    async def _let_go(self) -> None:
        if not self._retired:
            return
        self._retired = [one for one in self._retired if one.call_count]
        await self._fleet.keep([self._router.catalog, *(one.catalog for one in self._retired)])

    def _tell(self, model: Model, state: State) -> None:
        self._told[model.name] = state
        self._board.set_serving(_health_name(model), state is State.READY)


def _health_name(model: Model) -> str:
    return f"model/{model.name}"
