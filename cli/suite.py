"""The four services as one program: start together, be ready together, stop in order.

One that dies after it was ready is told of, with its last words, and started again: the others do without it meanwhile,
as they are made to. One that does not become ready, or dies again and again, ends the suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from cli.child import Child, Part, readable
from cli.preflight import check
from cli.report import Report

# How often the last log line is shown while a service loads.
PROGRESS_INTERVAL_S = 0.25
TAIL_LINE_COUNT = 20
# So many deaths of one service within so long are no accident.
DEATHS_MAX, DEATHS_WINDOW_S = 5, 60.0

Probe = Callable[[Part], Awaitable[None]]
"""Returns when the service says that it is ready; tries until it is cancelled."""


class Suite:
    """Runs services until it is told to stop or one of them cannot be kept alive.

    Args:
        parts: The services, in the order in which they are stopped.
        probe: Waits until one service is ready.
        report: Shows what happens.
        log_dir: Where each service's log file goes; None: what they log goes to our standard output.

    Attributes:
        children: The services that were started, in the same order.
    """

    def __init__(self, parts: Sequence[Part], probe: Probe, report: Report, log_dir: Path | None) -> None:
        self._parts = parts
        self._probe = probe
        self._report = report
        self._log_dir = log_dir
        self._ready = False
        self._returning: dict[Child, asyncio.Task[None]] = {}  # started again; done: ready again
        self._deaths: list[tuple[str, float]] = []
        self.children: list[Child] = []

    async def run(self, stop: asyncio.Event, kill: asyncio.Event, on_ready: Callable[[], Awaitable[None]]) -> int:
        """Runs the suite and returns the exit code: 0 when it was asked to stop and every service drained, else 1.

        Args:
            stop: Set to drain and stop.
            kill: Set to stop without draining.
            on_ready: Called once, when every service is ready.
        Raises:
            CommandError: A port or the log folder cannot be used; nothing was started.
        """
        check(self._parts, self._log_dir)
        killer = asyncio.create_task(self._kill_on(kill))
        try:
            for part in self._parts:
                self._report.show(part.name, "starting")
                self.children.append(await Child.start(part, self._log_dir))
            died = await self._watch(stop, on_ready)
            drained = await self._stop()
        finally:
            killer.cancel()
            for child in self.children:
                child.kill()
        return 1 if died or not drained else 0

    async def _watch(self, stop: asyncio.Event, on_ready: Callable[[], Awaitable[None]]) -> bool:
        """Waits for the order to stop (False) or for a death that ends the suite (True), and announces readiness."""
        stopped = asyncio.create_task(stop.wait())
        ready = asyncio.create_task(self._announce(on_ready))
        try:
            while True:
                exits = [child.exited for child in self.children]
                loading = [] if ready.done() else [ready]
                await asyncio.wait([stopped, *exits, *loading], return_when=asyncio.FIRST_COMPLETED)
                if ready.done():
                    ready.result()
                if stop.is_set():
                    return False
                dead = [child for child in self.children if child.exited.done()]
                for child in dead:
                    self._mourn(child)
                if sum(map(self._may_return, dead)) < len(dead):
                    return True
                for child in dead:
                    if not await self._restart(child):
                        return True
        finally:
            tasks = [ready, stopped, *self._returning.values()]
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ready

    def _mourn(self, child: Child) -> None:
        lines = [words for line in child.tail(TAIL_LINE_COUNT) for words in readable(line)]
        self._report.died(child.part.name, child.exited.result(), child.log, lines[-TAIL_LINE_COUNT:])

    def _may_return(self, child: Child) -> bool:
        """Whether a service that has died was well before."""
        now, name = time.monotonic(), child.part.name
        self._deaths = [(one, at) for one, at in [*self._deaths, (name, now)] if now - at < DEATHS_WINDOW_S]
        death_count = sum(one == name for one, _ in self._deaths)
        return self._was_ready(child) and death_count <= DEATHS_MAX

    def _was_ready(self, child: Child) -> bool:
        returning = self._returning.get(child)
        return self._ready if returning is None else returning.done() and not returning.cancelled()

    async def _restart(self, dead: Child) -> bool:
        """Starts a service in the place of one that has died; False where the system does not let it."""
        self._returning.pop(dead, None)
        self._report.show(dead.part.name, "starting")
        try:
            child = await Child.start(dead.part, self._log_dir, is_again=True)
        except OSError as error:  # its folder for logs is gone, the disk is full, or there are too many processes
            self._report.say(f"{dead.part.name} cannot be started again: {error}")
            return False
        self.children[self.children.index(dead)] = child
        self._returning[child] = asyncio.create_task(self._follow_back(child))
        return True

    async def _follow_back(self, child: Child) -> None:
        await self._follow(child)
        self._report.close()

    async def _announce(self, on_ready: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(self._follow(child))
        self._ready = True
        await on_ready()

    async def _follow(self, child: Child) -> None:
        """Shows the progress of one service until it is ready."""
        started = time.monotonic()
        ready = asyncio.ensure_future(self._probe(child.part))
        try:
            while not (await asyncio.wait([ready], timeout=PROGRESS_INTERVAL_S))[0]:
                self._report.show(child.part.name, "loading", child.last_message())
            ready.result()
        finally:
            ready.cancel()
        self._report.show(child.part.name, "ready", f"{child.part.address}, {time.monotonic() - started:.1f} s")

    async def _stop(self) -> bool:
        """Stops the services one after the other, callers before callees; True when all of them ended well."""
        drained = True
        for child in self.children:
            if not child.exited.done():
                self._report.show(child.part.name, "stopping")
                code = await child.stop()
                # One that was still loading may not have got to its signal handlers: it had nothing to drain.
                well = code == 0 or (code == -signal.SIGTERM and not self._was_ready(child))
                drained = drained and well
                self._report.show(child.part.name, "stopped", "" if well else f"exit code {code}")
        return drained

    async def _kill_on(self, kill: asyncio.Event) -> None:
        await kill.wait()
        for child in self.children:
            child.kill()
