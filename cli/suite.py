"""The four services as one program: start together, be ready together, stop in order.

One that dies is told of, with its last words, and started again (cli.restarts): the others do without it meanwhile, as
they are made to. One that was never ready, or dies again and again, ends the suite, and is named in its last line.
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
from cli.report import Report, how_it_ended
from cli.restarts import Restarts

# How often the last log line is shown while a service loads.
PROGRESS_INTERVAL_S = 0.25
TAIL_LINE_COUNT = 20

Probe = Callable[[Part], Awaitable[None]]
"""Returns when the service says that it is ready; tries until it is cancelled."""


class Suite:
    """Runs services until it is told to stop or one of them cannot be kept alive.

    Args:
        parts: The services, in the order in which they are stopped.
        probe: Waits until one service is ready.
        report: Shows what happens.
        log_dir: Where each service's log file goes; None: what they log goes to our standard output.
        restarts: Which services that died are started again; None: by the rule's defaults.

    Attributes:
        children: The services that were started, in the same order.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        probe: Probe,
        report: Report,
        log_dir: Path | None,
        restarts: Restarts | None = None,
    ) -> None:
        self._parts = parts
        self._probe = probe
        self._report = report
        self._log_dir = log_dir
        self._restarts = restarts or Restarts()
        self._ready_at: dict[Child, float] = {}
        self._pauses: dict[Child, asyncio.Task[None]] = {}  # of those that have died and will be started again
        self._returning: dict[Child, asyncio.Task[None]] = {}  # started again
        self._last_line = ""
        self.children: list[Child] = []

    async def run(self, stop: asyncio.Event, kill: asyncio.Event, on_ready: Callable[[], Awaitable[None]]) -> int:
        """Runs the suite and returns the exit code: 0 when it was asked to stop and every service drained, else 1.

        Args:
            stop: Set to drain and stop.
            kill: Set to stop without draining.
            on_ready: Called once, when every service has been ready.
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
            if died:
                self._report.say(self._last_line)
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
                exits = [child.exited for child in self.children if child not in self._pauses]
                loading = [] if ready.done() else [ready]
                events = [stopped, *exits, *loading, *self._pauses.values()]
                await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
                if ready.done():
                    ready.result()
                if stop.is_set():
                    return False
                for child in [child for child, pause in self._pauses.items() if pause.done()]:
                    if not await self._restart(child):
                        return True
                dead = [child for child in self.children if child.exited.done() and child not in self._pauses]
                returns = [self._may_return(child) for child in dead]  # each is told of, whatever becomes of the others
                if not all(returns):
                    return True
        finally:
            tasks = [ready, stopped, *self._returning.values(), *self._pauses.values()]
            for task in tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ready

    def _mourn(self, child: Child) -> None:
        lines = [words for line in child.tail(TAIL_LINE_COUNT) for words in readable(line)]
        self._report.died(child.part.name, child.exited.result(), child.log, lines[-TAIL_LINE_COUNT:])

    def _may_return(self, dead: Child) -> bool:
        """Tells of a death, and begins the pause after which the service is started again, if it is."""
        self._mourn(dead)
        if returning := self._returning.pop(dead, None):
            returning.cancel()
        name, ready_at = dead.part.name, self._ready_at.pop(dead, None)
        pause_s = self._restarts.pause_s(name, None if ready_at is None else time.monotonic() - ready_at)
        if pause_s is None:
            how = how_it_ended(dead.exited.result())
            self._last_line = (
                f"The suite has ended: {name} died ({how}) {self._restarts.why_not(name)}. Its log: {dead.log}"
            )
            return False
        if pause_s:
            self._report.show(name, "waiting", f"starts again in {pause_s:g} s, try {self._restarts.tries(name)}")
        self._pauses[dead] = asyncio.create_task(asyncio.sleep(pause_s))
        return True

    async def _restart(self, dead: Child) -> bool:
        """Starts a service in the place of one that has died; False where the system does not let it."""
        del self._pauses[dead]
        self._report.show(dead.part.name, "starting")
        try:
            child = await Child.start(dead.part, self._log_dir, is_again=True)
        except OSError as error:  # its folder for logs is gone, the disk is full, or there are too many processes
            self._last_line = f"The suite has ended: {dead.part.name} cannot be started again: {error}"
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
        self._ready_at[child] = time.monotonic()
        self._report.show(child.part.name, "ready", f"{child.part.address}, {time.monotonic() - started:.1f} s")

    async def _stop(self) -> bool:
        """Stops the services one after the other, callers before callees; True when all of them ended well."""
        drained = True
        for child in self.children:
            if not child.exited.done():
                self._report.show(child.part.name, "stopping")
                code = await child.stop()
                # One that was still loading may not have got to its signal handlers: it had nothing to drain.
                well = code == 0 or (code == -signal.SIGTERM and child not in self._ready_at)
                drained = drained and well
                self._report.show(child.part.name, "stopped", "" if well else f"exit code {code}")
        return drained

    async def _kill_on(self, kill: asyncio.Event) -> None:
        await kill.wait()
        for child in self.children:
            child.kill()
