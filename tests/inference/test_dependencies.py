"""The health of neighbours, as seen from inference: told truly, waited for, never in the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from kit import telemetry
from kit.channel import Channel
from kit.config import ServeSettings
from kit.dial import dial
from kit.serve import Server
from services.inference import dependencies
from services.inference.dependencies import DependencyWatch
from tests.inference.suite import DEADLINE_S, only_tasks, tasks_now


class Reports:
    """What the watch said last of each name; a test waits for what it wants to hear."""

    def __init__(self) -> None:
        self.last: dict[str, bool] = {}
        self._heard = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, name: str, is_up: bool) -> None:
        self.last[name] = is_up
        task = asyncio.create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._heard:
            self._heard.notify_all()

    async def until(self, name: str, is_up: bool) -> None:
        """Waits until this was said last."""
        async with asyncio.timeout(DEADLINE_S), self._heard:
            await self._heard.wait_for(lambda: self.last.get(name) is is_up)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks so often that no test waits for it."""
    monkeypatch.setattr(dependencies, "CHECK_INTERVAL_S", 0.01)
    monkeypatch.setattr(dependencies, "FIRST_INTERVAL_S", 0.01)


@pytest.fixture
async def neighbour() -> AsyncIterator[Server]:
    """A server that is not warm yet."""
    server = Server("cache", ServeSettings(port=0), [], telemetry.off())
    yield server
    await server.stop(0)


async def watching(server: Server, reports: Reports) -> tuple[DependencyWatch, Channel]:
    channel = dial(f"127.0.0.1:{await server.start()}")
    return DependencyWatch({"cache": channel}, reports), channel


async def test_changes_are_told(neighbour: Server) -> None:
    """Warming, up, draining, gone: each is reported, the first before the watch has started."""
    reports = Reports()
    watch, channel = await watching(neighbour, reports)
    await watch.start()
    assert reports.last == {"dependency/cache": False}

    for is_up in (True, False, True):
        neighbour.set_serving("", is_up)
        await reports.until("dependency/cache", is_up)
    await neighbour.stop(0)
    await reports.until("dependency/cache", False)

    await watch.close()
    await channel.close()


async def test_it_waits_until_all_were_up(neighbour: Server) -> None:
    """A suite that starts together does not begin with refusals."""
    watch, channel = await watching(neighbour, Reports())
    await watch.start()
    waiting = asyncio.create_task(watch.up(DEADLINE_S))
    await asyncio.sleep(0)
    assert not waiting.done()

    neighbour.set_serving("", True)

    await asyncio.wait_for(waiting, DEADLINE_S)
    await watch.close()
    await channel.close()


async def test_waiting_has_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A neighbour that never comes is named in the log, and start-up goes on."""
    reports = Reports()
    channel = dial("127.0.0.1:1")
    watch = DependencyWatch({"safety": channel}, reports)
    await watch.start()

    with caplog.at_level(logging.WARNING):
        await asyncio.wait_for(watch.up(0.02), DEADLINE_S)

    assert [getattr(record, "missing", None) for record in caplog.records] == [["safety"]]
    assert reports.last == {"dependency/safety": False}
    await watch.close()
    await channel.close()


async def test_nobody_to_watch() -> None:
    """Without neighbours there is nothing to wait for."""
    watch = DependencyWatch({}, Reports())
    await watch.start()
    await watch.up(0)
    await watch.close()


async def test_closing_leaves_nothing_running(neighbour: Server) -> None:
    """No task, whether it was asking or waiting to ask."""
    before = tasks_now()
    watch, channel = await watching(neighbour, Reports())
    await watch.start()
    await watch.close()
    await channel.close()

    await neighbour.stop(0)
    await only_tasks(before)


async def test_closing_what_was_never_started() -> None:
    """A service whose start-up failed is closed all the same."""
    channel = dial("127.0.0.1:1")
    await DependencyWatch({"cache": channel}, Reports()).close()
    await channel.close()
