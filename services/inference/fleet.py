"""The fleet: every engine that the catalogue needs, built once, warmed at start, each with a state.

Targets that name the same local model or the same upstream share one engine.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Protocol

from kit.errors import Unavailable
from services.inference.catalog import Catalog, Model, Target
from services.inference.engine import Embedder, Engine

log = logging.getLogger(__name__)

LOADING_RETRY_MS = 2_000
Key = tuple[str, str]


class State(IntEnum):
    """Whether a model can answer; the numbers are the contract's."""

    LOADING = 1
    READY = 2
    UNAVAILABLE = 3


class Warmable(Protocol):
    """What engines and embedders have in common."""

    async def warm(self) -> None:
        """Loads."""

    async def close(self) -> None:
        """Frees."""


MakeEngine = Callable[[Target], Engine]
MakeEmbedder = Callable[[Target], Embedder]


class Fleet:
    """Finds the engine of a target."""

    def __init__(self, catalog: Catalog, make_engine: MakeEngine, make_embedder: MakeEmbedder) -> None:
        self._catalog = catalog
        self._engines: dict[Key, Engine] = {}
        self._embedders: dict[Key, Embedder] = {}
        self._states: dict[tuple[str, Key], State] = {}
        for model in catalog.models:
            for target in model.targets:
                if model.kind == "chat" and _key(target) not in self._engines:
                    self._engines[_key(target)] = make_engine(target)
                elif model.kind == "embedding" and _key(target) not in self._embedders:
                    self._embedders[_key(target)] = make_embedder(target)

    def engine_for(self, target: Target) -> Engine:
        """The engine of a chat model's target.

        Raises:
            Unavailable: It is still loading, or could not be loaded.
        """
        self._need_ready("chat", target)
        return self._engines[_key(target)]

    def embedder_for(self, target: Target) -> Embedder:
        """The embedder of an embedding model's target; raises as `engine_for` does."""
        self._need_ready("embedding", target)
        return self._embedders[_key(target)]

    def state_of(self, model: Model) -> State:
        """The state of a model: that of its best target."""
        states = [self._states.get((model.kind, _key(target)), State.LOADING) for target in model.targets]
        return State.READY if State.READY in states else min(states)

    async def warm(self, report: Callable[[Model, State], None]) -> None:
        """Loads everything, one after the other, and reports each model as soon as it can answer.

        Raises:
            Unavailable: Not one model could be loaded (NO_MODEL_LOADED).
        """
        for model in sorted(self._catalog.models, key=lambda one: one.kind):  # chat first: it is waited for
            for target in model.targets:
                await self._warm_one(model.kind, target)
            report(model, self.state_of(model))
        if State.READY not in self._states.values():
            raise Unavailable("NO_MODEL_LOADED", "no model of the models file could be loaded; the log says why")

    async def _warm_one(self, kind: str, target: Target) -> None:
        key = (kind, _key(target))
        if key in self._states:
            return
        engine: Warmable = self._engines[_key(target)] if kind == "chat" else self._embedders[_key(target)]
        start = time.monotonic()
        self._states[key] = State.LOADING
        try:
            await engine.warm()
        except Exception:  # one model that cannot be loaded must not keep the others from serving
            self._states[key] = State.UNAVAILABLE
            log.exception("model could not be loaded", extra={"target": target.label})
            return
        self._states[key] = State.READY
        log.info("model loaded", extra={"target": target.label, "duration_s": round(time.monotonic() - start, 2)})

    async def close(self) -> None:
        """Frees every engine."""
        for engine in self._all():
            await engine.close()

    def _all(self) -> Iterator[Warmable]:
        yield from self._engines.values()
        yield from self._embedders.values()

    def _need_ready(self, kind: str, target: Target) -> None:
        state = self._states.get((kind, _key(target)), State.LOADING)
        if state is State.LOADING:
            raise Unavailable("MODEL_LOADING", "the model is being loaded; retry", retry_after_ms=LOADING_RETRY_MS)
        if state is State.UNAVAILABLE:
            raise Unavailable("MODEL_UNAVAILABLE", "the model could not be loaded; the operator's log says why")


def _key(target: Target) -> Key:
    return (target.engine, target.upstream or target.model)
