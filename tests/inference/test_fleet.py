"""The fleet: one engine for all who name it, each with a state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kit.errors import ConfigError, Unavailable
from services.inference.routing.catalog import Model, Target
from services.inference.routing.fleet import Fleet, State
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
    loaded_share = 0.5

    def __init__(self, name: str, yard: Yard) -> None:
        self.name, self._yard, self._journal = name, yard, yard.journal
        self._broken = name in yard.broken

    async def warm(self) -> None:
        self._yard.loading.set()
        await self._yard.gate.wait()
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
        self.broken = list(broken)
        self.loading = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fleet = Fleet(
            MODELS, lambda target: self._make(target, "chat"), lambda target: self._make(target, "embed")
        )
        self.reports: list[tuple[str, State]] = []

    def _make(self, target: Target, kind: str) -> Any:
        """Stands for an engine or an embedder: the fleet uses what they have in common."""
        name = f"{kind} {target.label}"
        self.made.append(FakeModel(name, self))
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

    yard.gate.clear()
    task = asyncio.create_task(yard.warm())
    await asyncio.wait_for(yard.loading.wait(), 5)
    assert yard.fleet.state_of(MODELS.find("one")) is State.LOADING
    assert yard.fleet.loaded_share_of(MODELS.find("one")) == 0.5
    with pytest.raises(Unavailable):
        yard.fleet.engine_for(target("one"))
    yard.gate.set()
    await task

    assert yard.fleet.engine_for(target("one")) is yard.made[1]
    assert yard.fleet.state_of(MODELS.find("one")) is State.READY
    assert yard.fleet.loaded_share_of(MODELS.find("one")) is None


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


CHANGED = """
upstreams:
  a: {base_url: "http://127.0.0.1:9/v1"}
  b: {base_url: "http://127.0.0.1:2/v1"}
models:
  - {name: one, targets: [{engine: local, model: m1}]}
  - {name: new, targets: [{engine: local, model: m2}, {engine: openai, upstream: a, model: x}]}
  - {name: again, targets: [{engine: local, model: m2}, {engine: openai, upstream: b}]}
"""


async def test_a_new_catalogue_gets_what_it_needs() -> None:
    """What is there goes on with what it has loaded; other settings are another engine, beside the one there is."""
    yard, new = Yard(), catalog(CHANGED)
    await yard.warm()
    yard.journal.clear()

    await yard.fleet.prepare(new)

    assert yard.journal == ["warm chat local:m2", "warm chat a:x"]
    assert yard.fleet.engine_for(new.find("one").targets[0]) is yard.fleet.engine_for(target("one"))
    assert yard.fleet.engine_for(new.find("new").targets[1]) is yard.made[-1]
    assert yard.fleet.engine_for(target("same", 1)) is yard.made[2]
    assert [yard.fleet.state_of(model) for model in new.models] == [State.READY] * 3


async def test_what_nobody_needs_is_let_go() -> None:
    """Only what no catalogue names; whoever asks for it then is told that it is not there."""
    yard, new = Yard(), catalog(CHANGED)
    await yard.warm()
    await yard.fleet.prepare(new)
    yard.journal.clear()

    await yard.fleet.keep([MODELS, new])
    assert yard.journal == []
    await yard.fleet.keep([new])

    assert sorted(yard.journal) == ["close chat a:x", "close embed local:m1"]
    assert yard.fleet.engine_for(new.find("new").targets[1]) is yard.made[-1]
    with pytest.raises(Unavailable) as caught:
        yard.fleet.engine_for(target("same", 1))
    assert caught.value.reason == "MODEL_UNAVAILABLE"


async def test_what_cannot_be_loaded_is_refused() -> None:
    """A catalogue one of whose new engines cannot be loaded changes nothing, and leaves nothing behind."""
    yard, new = Yard(), catalog(CHANGED)
    await yard.warm()
    yard.journal.clear()
    yard.broken.append("chat a:x")

    with pytest.raises(ConfigError, match="model new: a:x cannot be loaded"):
        await yard.fleet.prepare(new)

    assert yard.journal == ["warm chat local:m2", "warm chat a:x", "close chat local:m2", "close chat a:x"]
    assert yard.fleet.state_of(MODELS.find("same")) is State.READY
    with pytest.raises(Unavailable):
        yard.fleet.engine_for(new.find("new").targets[1])


async def test_a_preparation_that_is_cancelled_leaves_nothing() -> None:
    """An engine that is being loaded when the service stops is closed."""
    yard = Yard()
    await yard.warm()
    yard.journal.clear()
    yard.loading.clear()
    yard.gate.clear()
    task = asyncio.create_task(yard.fleet.prepare(catalog(CHANGED)))
    await asyncio.wait_for(yard.loading.wait(), 5)

    task.cancel()
    await asyncio.wait([task])

    assert yard.journal == ["close chat local:m2"]


async def test_what_could_not_be_loaded_is_tried_again() -> None:
    """By every preparation; its failure is known and keeps nothing else from being taken."""
    yard = Yard("chat local:m1")
    await yard.warm()

    await yard.fleet.prepare(MODELS)
    assert yard.fleet.state_of(MODELS.find("one")) is State.UNAVAILABLE
    yard.broken.clear()
    await yard.fleet.prepare(MODELS)

    assert yard.fleet.engine_for(target("one")) is yard.made[-1]
    assert yard.journal.count("close chat local:m1") == 2
    assert len(yard.made) == 6
