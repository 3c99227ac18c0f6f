"""How requests share the one thread of a model: turns, backpressure, cancellation, and its end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from kit.errors import Code, MillraceError
from services.inference.attempts.failure import is_targets_fault, may_pass
from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.job import Job
from services.inference.engines.local.outbox import PENDING_COUNT_MAX, Bell, Outbox
from services.inference.engines.local.step_watch import StepWatch
from services.inference.engines.local.worker import Worker
from services.inference.generation import Delta, EngineCompleted, Prompt, Sampling
from tests.fakes.tiny_gpt2 import END_ID, write_tiny_gpt2
from tests.inference.local_answers import chat, collect, raw, text_of, until


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny GPT-2 as a Hugging Face directory."""
    return write_tiny_gpt2(tmp_path_factory.mktemp("tiny-gpt2"))


@pytest.fixture
async def tiny(directory: Path) -> AsyncIterator[LocalEngine]:
    """The engine on the tiny GPT-2."""
    engine = LocalEngine(str(directory), active_max=2, queue_max=1)
    await engine.warm()
    yield engine
    await engine.close()


@pytest.fixture
async def embedded() -> AsyncIterator[LocalEngine]:
    """The engine on the embedded model."""
    engine = LocalEngine("embedded")
    await engine.warm()
    yield engine
    await engine.close()


async def test_cancel_frees_within_a_step(tiny: LocalEngine) -> None:
    """A reader that leaves early gives its place and its memory back."""
    async with aclosing(tiny.generate(raw(), None)) as stream:
        await anext(stream)
        assert tiny.running_count == 1

    assert tiny.running_count == tiny.waiting_count == 0
    await until(lambda: tiny.job_count == 0)


async def test_cancelled_task_frees_within_a_step(tiny: LocalEngine) -> None:
    """A task that is cancelled while it waits for a token gives everything back."""
    task = asyncio.create_task(collect(tiny, raw(n=2)))
    await until(lambda: tiny.job_count == 1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task

    assert tiny.running_count == tiny.waiting_count == 0
    await until(lambda: tiny.job_count == 0)


async def test_slow_reader_pauses_its_own_decode_only(embedded: LocalEngine) -> None:
    """A reader that stops reading stops its own decode after a bounded number of events; another request goes on."""
    endless = Prompt(raw_prompt="What", sampling=Sampling(max_tokens=600, logit_bias={1: -100.0}, logprobs=True))
    async with aclosing(embedded.generate(endless, None)) as stream:
        await anext(stream)
        await until(lambda: embedded.is_idle)
        other = await collect(embedded, chat("What is the port of the edge?"))
        await until(lambda: embedded.is_idle)
        (delta,) = [event for event in await anext(stream) if isinstance(event, Delta)]
        rest = [event async for batch in stream for event in batch]

    assert text_of(other) == "The edge listens on port 8080 by default."
    assert PENDING_COUNT_MAX <= len(delta.logprobs) < PENDING_COUNT_MAX + 4
    assert isinstance(rest[-1], EngineCompleted)
    assert rest[-1].usage.completion_token_count == 600


class Steps:
    """Work that notes how many requests there are at each step, and has nothing more to do after it."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.stepped = threading.Event()
        self._jobs: list[Job] = []

    def add(self, job: Job) -> None:
        """Takes a request on."""
        self._jobs.append(job)

    def drop(self, job: Job) -> None:
        """Forgets it."""

    def step(self) -> bool:
        """Notes; what wakes the thread before anything has come is no step."""
        if self._jobs:
            self.counts.append(len(self._jobs))
            self.stepped.set()
        return False


@pytest.fixture
async def sleeping() -> AsyncIterator[tuple[Worker, Steps]]:
    """A thread that has nothing to do."""
    worker, work = Worker("asleep"), Steps()
    worker.start(lambda: work)
    await until(lambda: worker.is_idle)
    yield worker, work
    worker.close(RuntimeError("over"))


def job(worker: Worker) -> Job:
    """A request for a token."""
    return Job("tiny", [1], Sampling(max_tokens=1), Outbox(Bell(asyncio.get_running_loop()), worker.wake), 2)


async def test_who_is_on_the_way_is_in_the_first_step(
    sleeping: tuple[Worker, Steps], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that wakes up begins when the second of two who ask at once is ready as well."""
    worker, work = sleeping
    monkeypatch.setattr("services.inference.engines.local.worker.GATHER_S", 30)

    with worker.expecting():
        worker.add(job(worker))
        await asyncio.sleep(0.05)
        assert work.counts == []
        worker.add(job(worker))
    assert await asyncio.to_thread(work.stepped.wait, 10)

    assert work.counts[0] == 2


async def test_who_is_on_the_way_is_not_waited_for_long(sleeping: tuple[Worker, Steps]) -> None:
    """One whose prompt takes long to read, or who is refused in the end, does not keep another from its step."""
    worker, work = sleeping

    with worker.expecting():
        worker.add(job(worker))
        assert await asyncio.to_thread(work.stepped.wait, 10)

    assert work.counts == [1]


async def test_full_queue_is_refused_at_once(directory: Path) -> None:
    """One request beyond those that may run and wait is RESOURCE_EXHAUSTED, and may be retried."""
    engine = LocalEngine(str(directory), active_max=1, queue_max=1)
    await engine.warm()
    async with aclosing(engine.generate(raw(), None)) as one, aclosing(engine.generate(raw(), None)) as two:
        await anext(one)
        await anext(two)

        with pytest.raises(MillraceError) as full:
            await collect(engine, raw(max_tokens=1))
    await engine.close()

    assert (full.value.code, full.value.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert full.value.retry_after_ms


async def test_long_wait_is_refused() -> None:
    """A request that finds no place in time is RESOURCE_EXHAUSTED; the one that held the place goes on."""
    engine = LocalEngine("embedded", active_max=1, wait_s_max=0.2)
    await engine.warm()
    long = Prompt(raw_prompt="What is it? " * 1_200, sampling=Sampling(max_tokens=1))
    running = asyncio.create_task(collect(engine, long))
    await until(lambda: engine.running_count == 1)

    with pytest.raises(MillraceError) as late:
        await collect(engine, chat("Hello"))
    assert isinstance((await running)[-1], EngineCompleted)
    await engine.close()

    assert (late.value.code, late.value.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_TIMEOUT")


async def test_a_step_that_hangs_is_no_full_queue(tiny: LocalEngine) -> None:
    """Who waits while no step ends is told UNAVAILABLE, who comes later at once; when it goes on, it answers."""
    work, has_begun, may_end = tiny._ready().work, threading.Event(), threading.Event()
    step = work.step

    def hanging() -> bool:
        has_begun.set()
        may_end.wait(30)
        return step()

    tiny._worker.watch = StepWatch(stuck_s=0.3)
    work.step = hanging  # type: ignore[method-assign]
    first = asyncio.create_task(collect(tiny, raw(max_tokens=1)))
    assert await asyncio.to_thread(has_begun.wait, 30)
    with pytest.raises(MillraceError) as waited:
        await first
    came_at = time.monotonic()
    with pytest.raises(MillraceError) as later:
        await collect(tiny, raw(max_tokens=1))
    refused_s = time.monotonic() - came_at
    may_end.set()
    work.step = step  # type: ignore[method-assign]
    await until(lambda: tiny.job_count == 0)

    assert {(one.value.code, one.value.reason) for one in (waited, later)} == {(Code.UNAVAILABLE, "MODEL_STUCK")}
    assert (is_targets_fault(later.value), may_pass(later.value)) == (True, False)
    assert refused_s < 0.3
    assert isinstance((await collect(tiny, raw(max_tokens=1)))[-1], EngineCompleted)


async def test_steps_that_end_are_no_hang(directory: Path) -> None:
    """However long a request waits for its place: as long as steps end, it is the queue that is full."""
    engine = LocalEngine(str(directory), active_max=1, wait_s_max=1.0)
    await engine.warm()
    engine._worker.watch = StepWatch(stuck_s=0.3)
    work = engine._ready().work
    step = work.step

    def slow() -> bool:
        time.sleep(0.05)
        return step()

    work.step = slow  # type: ignore[method-assign]
    running = asyncio.create_task(collect(engine, raw(max_tokens=600, logit_bias={END_ID: -100.0})))
    await until(lambda: engine.running_count == 1)
    with pytest.raises(MillraceError) as late:
        await collect(engine, raw(max_tokens=1))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await engine.close()

    assert (late.value.code, late.value.reason) == (Code.RESOURCE_EXHAUSTED, "QUEUE_TIMEOUT")
    assert not is_targets_fault(late.value)


async def test_close_ends_open_streams(directory: Path) -> None:
    """Closing the engine fails what is open with SHUTTING_DOWN instead of leaving it to wait."""
    engine = LocalEngine(str(directory))
    await engine.warm()
    async with aclosing(engine.generate(raw(), None)) as stream:
        await anext(stream)
        await engine.close()
        with pytest.raises(MillraceError) as closed:
            async for _ in stream:
                pass

    assert closed.value.reason == "SHUTTING_DOWN"


async def test_close_does_not_wait_for_a_step_that_hangs(directory: Path) -> None:
    """Nobody knows whether it ever ends, and what else a service closes comes after it."""
    engine, has_begun, may_end = LocalEngine(str(directory)), threading.Event(), threading.Event()
    await engine.warm()
    engine._worker.watch = StepWatch(stuck_s=0.3)
    engine._ready().work.step = lambda: has_begun.set() or may_end.wait(30)  # type: ignore[method-assign, func-returns-value]
    asking = asyncio.create_task(collect(engine, raw()))
    assert await asyncio.to_thread(has_begun.wait, 30)
    closing = asyncio.create_task(engine.close())
    done, _ = await asyncio.wait({closing}, timeout=10)
    may_end.set()
    await closing

    assert done
    with pytest.raises(MillraceError):
        await asking


async def test_idle_model_sleeps(tiny: LocalEngine) -> None:
    """Between requests the thread waits for work, and holds no memory of the last one."""
    await collect(tiny, raw(max_tokens=3))

    await until(lambda: tiny.is_idle and tiny.job_count == 0)


async def test_close_does_not_wait_for_a_load() -> None:
    """A service that stops while a model is being loaded does not wait for that."""
    begun, may_end = threading.Event(), threading.Event()

    def load() -> None:
        begun.set()
        may_end.wait(30)

    worker = Worker("loading")
    worker.start(load)
    assert await asyncio.to_thread(begun.wait, 30)

    worker.close(RuntimeError("stopping"))

    assert not may_end.is_set()
    may_end.set()
