"""Local models that are loaded by need and let go when idle."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from kit.errors import FailedPrecondition, Unavailable
from services.inference.engines.local.engine import LocalEngine
from services.inference.engines.local.on_demand import OnDemand
from services.inference.generation import Delta, EngineCompleted, EngineEvent, Prompt, Usage
from tests.fakes.tiny_gpt2 import write_tiny_gpt2
from tests.inference.local_answers import raw, until


class FakeEngine:
    """Loads when its yard lets it, and answers with its number."""

    loaded_share = 0.25

    def __init__(self, yard: Yard) -> None:
        self._yard, self.number, self.is_closed = yard, len(yard.made), False
        yard.made.append(self)

    async def warm(self) -> None:
        await self._yard.gate.wait()
        if self._yard.is_broken:
            raise FailedPrecondition("MODEL_NOT_LOADABLE", "there is none")

    async def generate(self, prompt: Prompt, deadline: float | None) -> AsyncGenerator[Sequence[EngineEvent], None]:
        yield [Delta(text=str(self.number))]
        yield [EngineCompleted(Usage())]

    async def count_tokens(self, prompt: Prompt) -> int:
        return 7

    async def close(self) -> None:
        self.is_closed = True


class Yard:
    """Makes engines, and keeps track of them."""

    def __init__(self) -> None:
        self.made: list[FakeEngine] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_broken = False

    def make(self) -> FakeEngine:
        return FakeEngine(self)


async def ask(engine: OnDemand) -> str:
    """The text of an answer."""
    return "".join([e.text async for batch in engine.generate(Prompt(), None) for e in batch if isinstance(e, Delta)])


async def test_the_first_call_loads_and_others_share_it() -> None:
    """Nothing is made before the first call; ten at once load one model."""
    yard = Yard()
    engine = OnDemand(yard.make)
    await engine.warm()
    assert (yard.made, engine.is_loaded, engine.is_loading) == ([], False, False)

    assert await asyncio.gather(*(ask(engine) for _ in range(10))) == ["0"] * 10

    assert engine.is_loaded
    assert await engine.count_tokens(Prompt()) == 7
    await engine.close()
    assert yard.made[0].is_closed
    with pytest.raises(Unavailable, match="stopping"):
        await ask(engine)


async def test_an_idle_model_is_let_go_and_comes_back() -> None:
    """Once nobody has used it for a while it is closed; the next call loads another."""
    yard = Yard()
    engine = OnDemand(yard.make, idle_s=0.01, loads_at_start=True)
    await engine.warm()
    await until(lambda: yard.made[0].is_closed)
    assert not engine.is_loaded

    assert await ask(engine) == "1"
    await engine.close()


async def test_what_is_let_go_gives_its_memory_back(tmp_path: Path) -> None:
    """A model that has answered is gone when it is let go, though the collector of a service comes seldom."""
    made: list[LocalEngine] = []

    def make() -> LocalEngine:
        made.append(LocalEngine(str(directory), threads=1))
        return made[-1]

    directory = write_tiny_gpt2(tmp_path)
    engine = OnDemand(make, idle_s=0.01)
    gc.disable()
    try:
        async with aclosing(engine.generate(raw(max_tokens=2), None)) as batches:
            async for _ in batches:
                assert made[0]._serving is not None
                network = weakref.ref(made[0]._serving.model.network)
        made.clear()
        await until(lambda: network() is None)
    finally:
        gc.enable()
        await engine.close()


async def test_a_model_in_use_stays() -> None:
    """However long an answer takes, its model is not let go under it."""
    yard = Yard()
    engine = OnDemand(yard.make, idle_s=0.01)
    async with aclosing(engine.generate(Prompt(), None)) as batches:
        await anext(batches)
        other = OnDemand(yard.make, idle_s=0.01)
        await ask(other)
        await until(lambda: yard.made[1].is_closed)  # another of the same age is gone by now
        assert not yard.made[0].is_closed
    await until(lambda: yard.made[0].is_closed)
    await other.close()
    await engine.close()


async def test_who_waits_long_is_told_and_the_load_goes_on() -> None:
    """A call that comes while the model is being loaded gets MODEL_LOADING in the end; a later one is answered."""
    yard = Yard()
    yard.gate.clear()
    engine = OnDemand(yard.make, wait_s=0.01)
    with pytest.raises(Unavailable) as told:
        await ask(engine)
    assert (told.value.reason, engine.is_loading, engine.loaded_share) == ("MODEL_LOADING", True, 0.25)

    yard.gate.set()
    await until(lambda: engine.is_loaded)
    assert engine.loaded_share is None
    assert await ask(engine) == "0"
    await engine.close()


async def test_a_load_that_fails_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """The caller learns that the model is unavailable, the log why, and the next call tries anew."""
    yard = Yard()
    yard.is_broken = True
    engine = OnDemand(yard.make)
    with pytest.raises(Unavailable) as told:
        await ask(engine)
    assert told.value.reason == "MODEL_UNAVAILABLE"
    assert "there is none" in caplog.text
    assert yard.made[0].is_closed

    yard.is_broken = False
    assert await ask(engine) == "1"
    await engine.close()


async def test_close_gives_a_load_up() -> None:
    """A service that stops does not wait for a model that is being loaded."""
    yard = Yard()
    yard.gate.clear()
    engine = OnDemand(yard.make, wait_s=60)
    asked = asyncio.create_task(ask(engine))
    await until(lambda: bool(yard.made))

    async with asyncio.timeout(5):
        await engine.close()

    with pytest.raises(Unavailable, match="stopping"):
        await asked
    assert yard.made[0].is_closed
