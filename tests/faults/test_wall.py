"""Whatever an upstream does, its callers get the answer or a proper error, in time, and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from kit.errors import Code
from millrace.inference.v1 import usage_pb2
from services.inference.engines import openai_http
from tests.faults.fault import CALLS, Fault, Seen, Wait
from tests.faults.faults import FAULTS
from tests.faults.wall import CONNECT_S, DRAIN_S, ERROR_S, INTER_TOKEN_S, TTFT_S, Heard, Wall, built, name_of
from tests.inference.suite import only_tasks, tasks_now

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a loaded machine may add; a hang is far longer, for nothing but these deadlines would end it.
SLACK_S = 4.0
WAIT_S = {
    Wait.NONE: 0.0,
    Wait.CONNECT: 2 * CONNECT_S,
    Wait.TTFT: TTFT_S,
    Wait.INTER_TOKEN: INTER_TOKEN_S,
    Wait.ERROR: 2 * ERROR_S,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wall(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wall]:
    """One wall for all tests; each asks models of its own, so that none sees another's breakers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openai_http, "ERROR_S", ERROR_S)
        patch.setattr(openai_http, "DRAIN_S", DRAIN_S)
        async with built(tmp_path_factory.mktemp("wall")) as made:
            yield made


@pytest_asyncio.fixture(loop_scope="module")
async def sound(wall: Wall) -> AsyncIterator[Wall]:
    """The wall with nothing under way and no connection in its pools, of which nothing is left after the test."""
    for upstream in (wall.faulty, wall.healthy):
        upstream.hang_up()
    await _until(lambda: wall.faulty.open_count + wall.healthy.open_count == 0)
    before = tasks_now()
    yield wall
    await _until(lambda: wall.faulty.busy_count + wall.healthy.busy_count == 0)
    await only_tasks(before)
    await wall.stats()


@pytest.mark.parametrize("transport", ["gRPC", "REST"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
async def test_fault(sound: Wall, fault: Fault, transport: str) -> None:
    """Callers see what the table says, in time, streamed and whole; so does the upstream's breaker."""
    calls = [call for call in CALLS if call.startswith(transport)]
    if fault.fresh_steps:  # it is about connections that were used before
        await asyncio.gather(*(sound.ask(calls[0], name_of("alone", fault.name, "first")) for _ in range(5)))
        await _until(lambda: sound.faulty.busy_count == 0)
    asked = [(call, name_of(setup, fault.name, call)) for setup in ("alone", "spared") for call in calls]
    brittle = (transport, name_of("brittle", fault.name, transport))
    start = time.monotonic()
    heard = await asyncio.gather(*(sound.ask(call, model) for call, model in (*asked, brittle)))

    assert time.monotonic() - start < WAIT_S[fault.wait] + SLACK_S
    for (call, model), one in zip(asked, heard, strict=False):
        expected = fault.seen_alone(call) if model.startswith("alone") else fault.seen_spared(call)
        assert (model, _compared(one, fault, call)) == (model, expected)
        _check_requests(sound, fault, one, model)
        if model.startswith("alone"):
            _check_advice(one, fault, call)
    assert await _breaker_of(sound, brittle[1]) == ("open" if fault.opens else "closed")


def _compared(heard: Heard, fault: Fault, call: str) -> Seen:
    """What was seen, without the text of a stream that failed: how much of the answer had left is chance."""
    if fault.is_harmless or not fault.has_left(call):
        return heard.seen
    assert heard.seen.text, "what came before the fault has left"
    assert fault.text.startswith(heard.seen.text), "nothing came twice, and nothing from elsewhere"
    return replace(heard.seen, text="")


def _check_advice(heard: Heard, fault: Fault, call: str) -> None:
    """Who is told to come back is told when, and as the upstream said where it did."""
    comes_back = fault.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED) and not fault.has_left(call)
    assert (heard.retry_after_ms is not None) is comes_back
    if fault.retry_after_ms is not None:
        assert heard.retry_after_ms == fault.retry_after_ms


def _check_requests(wall: Wall, fault: Fault, heard: Heard, model: str) -> None:
    """Every try was one request, and no request was none of the tries."""
    if fault.steps and not fault.fresh_steps:
        assert wall.faulty.count_of(model) + wall.healthy.count_of(model) == heard.seen.tries


async def _breaker_of(wall: Wall, model: str) -> str:
    """In which state a model's breaker is."""
    state = (await wall.stats())[model].breaker_state
    return usage_pb2.BreakerState.Name(state).removeprefix("BREAKER_STATE_").lower()


async def _until(condition: Callable[[], bool]) -> None:
    """Waits for what the upstreams' side of the connections shows."""
    async with asyncio.timeout(SLACK_S):
        while not condition():  # noqa: ASYNC110 - a look at a set, not a wait for a time
            await asyncio.sleep(0.001)
