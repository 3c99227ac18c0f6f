"""The fleet: one engine for all who name it, each with a state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import Unavailable
from services.inference.catalog import Model, Target
from services.inference.fleet import Fleet, State
from tests.inference.parts import catalog

MODELS = catalog("""
upstreams:
  a: {base_url: "http://127.0.0.1:1/v1"}
  b: {base_url: "http://127.0.0.1:2/v1"}
models:
  - {name: vectors, kind: embedding, targets: [{engine: local, model: m1}]}
  - {name: one, targets: [{engine: local, model: m1}]}
  - {name: same, targets: [{engine: local, model: m1}, {engine: openai, upstream: a, model: x}]}
  - {name: "up/*", targets: [{engine: openai, upstream: a}, {engine: openai, upstream: b}]}
""")


class FakeModel:
    """An engine or an embedder that loads when its gate opens."""

    kind = "fake"

    def __init__(self, name: str, journal: list[str], broken: bool) -> None:
        self.name, self._journal, self._broken = name, journal, broken
        self.gate = asyncio.Event()
        self.gate.set()
        self.loading = asyncio.Event()

    async def warm(self) -> None:
        self.loading.set()
        await self.gate.wait()
        self._journal.append(f"warm {self.name}")
        if self._broken:
            raise RuntimeError("no such file")

    async def close(self) -> None:
        self._journal.append(f"close {self.name}")


class Yard:
    """Makes the fleet's engines, and keeps track of them."""

    def __init__(self, *broken: str) -> None:
        self.journal: list[str] = []
        self.made: list[Any] = []
        self._broken = broken
        self.fleet = Fleet(
            MODELS, lambda target: self._make(target, "chat"), lambda target: self._make(target, "embed")
        )
        self.reports: list[tuple[str, State]] = []

    def _make(self, target: Target, kind: str) -> Any:
        """Stands for an engine or an embedder: the fleet uses what they have in common."""
        name = f"{kind} {target.label}"
        self.made.append(FakeModel(name, self.journal, name in self._broken))
        return self.made[-1]

    def report(self, model: Model, state: State) -> None:
        self.reports.append((model.name, state))

    async def warm(self) -> None:
        await self.fleet.warm(self.report)


def target(model: str, index: int = 0) -> Target:
    return MODELS.find(model).targets[index]


async def test_targets_share_engines() -> None:
    """One for each local model and each upstream, and another for embeddings; each is loaded once."""
    yard = Yard()
    await yard.warm()

    assert [one.name for one in yard.made] == ["embed local:m1", "chat local:m1", "chat a:x", "chat b:*"]
    assert sorted(yard.journal) == sorted(f"warm {one.name}" for one in yard.made)
    assert yard.fleet.engine_for(target("one")) is yard.fleet.engine_for(target("same"))
    assert yard.fleet.engine_for(target("same", 1)) is yard.fleet.engine_for(target("up/x"))
    assert yard.fleet.embedder_for(target("vectors")) is yard.made[0]


async def test_chat_is_ready_first() -> None:
    """Each model is reported as soon as it can answer: somebody waits for the first answer."""
    yard = Yard()
    await yard.warm()

    assert yard.reports == [(name, State.READY) for name in ("one", "same", "up/*", "vectors")]


async def test_a_model_that_is_loading_says_so() -> None:
    """With a time to come back, until it is loaded."""
    yard = Yard()
    with pytest.raises(Unavailable) as caught:
        yard.fleet.engine_for(target("one"))
    assert (caught.value.reason, caught.value.retry_after_ms) == ("MODEL_LOADING", 2_000)

    first = yard.made[1]
    first.gate.clear()
    task = asyncio.create_task(yard.warm())
    await asyncio.wait_for(first.loading.wait(), 5)
    assert yard.fleet.state_of(MODELS.find("one")) is State.LOADING
    with pytest.raises(Unavailable):
        yard.fleet.engine_for(target("one"))
    first.gate.set()
    await task

    assert yard.fleet.engine_for(target("one")) is first
    assert yard.fleet.state_of(MODELS.find("one")) is State.READY


async def test_a_model_that_cannot_be_loaded_stops_no_other() -> None:
    """It is unavailable without a time to come back; a model with another target is ready."""
    yard = Yard("chat local:m1")
    await yard.warm()

    assert dict(yard.reports) == {
        "one": State.UNAVAILABLE,
        "same": State.READY,
        "up/*": State.READY,
        "vectors": State.READY,
    }
    with pytest.raises(Unavailable) as caught:
        yard.fleet.engine_for(target("one"))
    assert (caught.value.reason, caught.value.retry_after_ms) == ("MODEL_UNAVAILABLE", None)
    assert yard.fleet.engine_for(target("same", 1)) is yard.made[2]


async def test_nothing_to_serve_stops_start_up() -> None:
    """A service none of whose models can be loaded does not pretend to be up."""
    yard = Yard("embed local:m1", "chat local:m1", "chat a:x", "chat b:*")

    with pytest.raises(Unavailable) as caught:
        await yard.warm()

    assert caught.value.reason == "NO_MODEL_LOADED"


async def test_everything_is_closed() -> None:
    """Embedders too, whether they were loaded or not."""
    yard = Yard()
    await yard.fleet.close()

    assert sorted(yard.journal) == sorted(f"close {one.name}" for one in yard.made)
