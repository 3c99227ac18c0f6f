"""The fleet: every engine that a catalogue needs, made once, loaded before it is asked, each with a state.

Targets that name the same local model, or the same upstream under the same settings, share one engine. When the
models file changes, engines of unchanged settings go on with what they have loaded.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from kit.errors import ConfigError, Unavailable
from services.inference.engine import Embedder, Engine
from services.inference.routing.catalog import Catalog, Model, Target

log = logging.getLogger(__name__)

LOADING_RETRY_MS = 2_000
Key = tuple[str, ...]  # kind, and the target's engine key


class State(IntEnum):
    """Whether a model can answer; the numbers are the contract's."""

    LOADING = 1
    READY = 2
    UNAVAILABLE = 3
    IDLE = 4


BEST_FIRST = (State.READY, State.IDLE, State.LOADING, State.UNAVAILABLE)

MakeEngine = Callable[[Target], Engine]
MakeEmbedder = Callable[[Target], Embedder]


class Fleet:
    """Finds the engine of a target.

    Args:
        catalog: What is needed at first; `warm` loads it.
        make_engine: Makes the engine of a target; only the engine's `warm` loads anything.
        make_embedder: Likewise, of an embedding model's target.
    """

    def __init__(self, catalog: Catalog, make_engine: MakeEngine, make_embedder: MakeEmbedder) -> None:
        self._catalog = catalog
        self._make: dict[str, Callable[[Target], Any]] = {"chat": make_engine, "embedding": make_embedder}
        self._slots: dict[Key, _Slot] = {}
        for model, target in _targets(catalog):
            if _key(model, target) not in self._slots:
                self._slots[_key(model, target)] = self._made(model, target)

    @contextmanager
    def use(self, target: Target) -> Iterator[Engine]:
        """Lends the engine of a chat model's target; raises as `engine_for` does."""
        yield self.engine_for(target)

    def engine_for(self, target: Target) -> Engine:
        """The engine of a chat model's target.

        Raises:
            Unavailable: It is still loading, or could not be loaded.
        """
        engine: Engine = self._ready("chat", target)
        return engine

    def embedder_for(self, target: Target) -> Embedder:
        """The embedder of an embedding model's target; raises as `engine_for` does."""
        embedder: Embedder = self._ready("embedding", target)
        return embedder

    def state_of(self, model: Model) -> State:
        """The state of a model: that of its best target."""
        return min((self._slots[_key(model, target)].told for target in model.targets), key=BEST_FIRST.index)

    def loaded_share_of(self, model: Model) -> float | None:
        """How far a model is that is being loaded, 0 to 1; None where unknown."""
        if self.state_of(model) is not State.LOADING:
            return None
        slots = (self._slots[_key(model, target)] for target in model.targets)
        shares = [getattr(slot.engine, "loaded_share", None) for slot in slots if slot.told is State.LOADING]
        return max((share for share in shares if share is not None), default=None)

    async def warm(self, report: Callable[[Model, State], None]) -> None:
        """Loads everything, one after the other, and reports each model as soon as it can answer.

        Raises:
            Unavailable: Not one model could be loaded (NO_MODEL_LOADED).
        """
        for model in sorted(self._catalog.models, key=lambda one: one.kind):  # chat first: it is waited for
            for target in model.targets:
                slot = self._slots[_key(model, target)]
                if slot.state is State.LOADING:
                    await slot.load()
            report(model, self.state_of(model))
        if not any(slot.state is State.READY for slot in self._slots.values()):
            raise Unavailable("NO_MODEL_LOADED", "no model of the models file could be loaded; the log says why")

    async def prepare(self, catalog: Catalog) -> None:
        """Makes and loads what another catalogue needs beside all there is, and tries again what could not be loaded.

        Raises:
            ConfigError: Something new cannot be made or loaded; nothing has changed then.
        """
        fresh: dict[Key, _Slot] = {}
        try:
            for model, target in _targets(catalog):
                key = _key(model, target)
                known = self._slots.get(key)
                if key in fresh or (known and known.state is State.READY):
                    continue
                slot = fresh[key] = self._made(model, target)
                if not await slot.load() and known is None:
                    raise ConfigError(f"model {model.name}: {target.label} cannot be loaded; the log says why")
        except BaseException:
            await _close(fresh.values())
            raise
        replaced = [self._slots[key] for key in fresh if key in self._slots]
        self._slots.update(fresh)
        await _close(replaced)

    async def keep(self, catalogs: Iterable[Catalog]) -> None:
        """Frees every engine that none of these catalogues needs."""
        needed = {_key(model, target) for catalog in catalogs for model, target in _targets(catalog)}
        unneeded = [self._slots.pop(key) for key in self._slots.keys() - needed]
        await _close(unneeded)
        for slot in unneeded:
            log.info("model let go", extra={"target": slot.label})

    async def close(self) -> None:
        """Frees every engine."""
        await _close(self._slots.values())

    def _made(self, model: Model, target: Target) -> _Slot:
        return _Slot(self._make[model.kind](target), target.label)

    def _ready(self, kind: str, target: Target) -> Any:
        slot = self._slots.get((kind, *target.engine_key))
        if slot and slot.state is State.READY:
            return slot.engine
        if slot and slot.state is State.LOADING:
            raise Unavailable("MODEL_LOADING", "the model is being loaded; retry", retry_after_ms=LOADING_RETRY_MS)
        raise Unavailable("MODEL_UNAVAILABLE", "the model could not be loaded; the operator's log says why")


@dataclass(slots=True)
class _Slot:
    """An engine or embedder, and how far it is."""

    engine: Any
    label: str
    state: State = State.LOADING

    @property
    def told(self) -> State:
        """The state as it is told: an engine that is loaded on demand takes calls though it is not loaded."""
        if self.state is not State.READY or getattr(self.engine, "is_loaded", True):
            return self.state
        return State.LOADING if self.engine.is_loading else State.IDLE

    async def load(self) -> bool:
        """Loads the engine; where it cannot be loaded, says so, in the log and in the answer."""
        start = time.monotonic()
        try:
            await self.engine.warm()
        except Exception:  # one model that cannot be loaded must not keep the others from serving
            self.state = State.UNAVAILABLE
            log.exception("model could not be loaded", extra={"target": self.label})
            return False
        self.state = State.READY
        log.info("model loaded", extra={"target": self.label, "duration_s": round(time.monotonic() - start, 2)})
        return True


def _targets(catalog: Catalog) -> Iterator[tuple[Model, Target]]:
    return ((model, target) for model in catalog.models for target in model.targets)


def _key(model: Model, target: Target) -> Key:
    return (model.kind, *target.engine_key)


async def _close(slots: Iterable[_Slot]) -> None:
    for slot in slots:
        await slot.engine.close()
