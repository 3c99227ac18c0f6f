"""Refreshing: answers made anew in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

import pytest

from kit import identity
from kit.errors import Unavailable
from kit.identity import CallContext
from services.inference.caching.refreshing import Refreshing
from services.inference.events import Event
from services.inference.request import CacheWish, Request
from tests.inference.parts import prompt
from tests.inference.suite import only_tasks, tasks_now

ASKED = Request("r" * 128, "acme", "gpt", prompt(), deadline=1.0, cache=CacheWish(mode="read_write", tags=("a",)))
WAIT_S = 5.0


class Running:
    """Answers that are made; each waits at the gate."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.requests: list[Request] = []
        self.contexts: list[CallContext] = []
        self.gate, self.began = asyncio.Event(), asyncio.Event()
        self.cancelled_count = 0
        self._failure = failure

    async def run(self, request: Request) -> AsyncGenerator[Sequence[Event], None]:
        self.requests.append(request)
        self.contexts.append(identity.current())
        self.began.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled_count += 1
            raise
        if self._failure:
            raise self._failure
        yield []


async def test_an_answer_is_made_anew_behind_its_callers_back() -> None:
    """As a request of its own, for the same tenant, under the lease; the caller's deadline is not its own."""
    before, running = tasks_now(), Running()
    with identity.use(CallContext("r1", "acme", deadline=time.monotonic() + 0.1)):
        assert Refreshing().start(ASKED, "l1", running.run)
    await asyncio.wait_for(running.began.wait(), WAIT_S)
    running.gate.set()
    await only_tasks(before)

    (again,) = running.requests
    assert again.request_id == "r" * 119 + ".refresh"
    assert (again.deadline, again.prompt.streamed, again.priority) == (None, False, -100)
    assert again.cache == CacheWish(mode="refresh", tags=("a",), lease_id="l1")
    assert (again.tenant, again.model, again.prompt.messages) == (ASKED.tenant, ASKED.model, ASKED.prompt.messages)
    assert (running.contexts[0].tenant, running.contexts[0].deadline) == ("acme", None)


async def test_not_many_are_made_at_once() -> None:
    """Who comes too many keeps the lease, and gives it back."""
    running, refreshing = Running(), Refreshing(running_count_max=1)

    assert refreshing.start(ASKED, "l1", running.run)
    assert not refreshing.start(ASKED, "l2", running.run)
    await asyncio.wait_for(running.began.wait(), WAIT_S)
    running.gate.set()
    before = tasks_now()
    await asyncio.wait_for(asyncio.wait(before), WAIT_S)
    assert refreshing.start(ASKED, "l3", running.run)
    await refreshing.close()


@pytest.mark.parametrize("failure", [Unavailable("DOWN", "down"), ValueError("a bug")], ids=["fault", "bug"])
async def test_what_fails_is_nobodys_failure(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """The caller has its answer; the log says that there is no newer one."""
    caplog.set_level("INFO")
    before, running = tasks_now(), Running(failure)
    running.gate.set()
    Refreshing().start(ASKED, "l1", running.run)
    await only_tasks(before)

    assert "could not be refreshed" in caplog.text


async def test_closing_ends_what_is_under_way() -> None:
    """Nothing is left behind."""
    before, running, refreshing = tasks_now(), Running(), Refreshing()
    refreshing.start(ASKED, "l1", running.run)
    await asyncio.wait_for(running.began.wait(), WAIT_S)

    await refreshing.close()

    assert running.cancelled_count == 1
    await only_tasks(before)
