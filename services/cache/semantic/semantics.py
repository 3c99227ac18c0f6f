"""Semantic lookups, put together: the model is loaded, the index follows the store, and what was learned is kept.

The parts need the model's dimension and version, so that they are made when it is loaded and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kit.cancelling import cancel_all
from services.cache.semantic.encoding import Encodes, TextEncoder
from services.cache.semantic.follower import Follower
from services.cache.semantic.index import VectorIndex
from services.cache.semantic.matcher import Bounds, Matcher
from services.cache.semantic.records import Records
from services.cache.semantic.verifiers import Verifiers
from services.cache.store import Clock, EntryStore


class Model(Encodes, Protocol):
    """A model that is loaded once and closed at the end."""

    async def warm(self) -> None:
        """Loads the model."""

    async def close(self) -> None:
        """Frees it."""


@dataclass(frozen=True, slots=True)
class SemanticSettings:
    """What the operator allows, and the most entries in the index."""

    bounds: Bounds
    held_share_max: float
    entries_max: int


@dataclass(slots=True)
class Semantics:
    """What serves semantic lookups on one store. Random numbers are in [0, 1)."""

    model: Model
    store: EntryStore
    settings: SemanticSettings
    clock: Clock
    random: Callable[[], float]
    follower: Follower | None = None
    _index: VectorIndex | None = None
    _verifiers: Verifiers | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> Matcher:
        """Loads the model and begins to follow the store, which is open; lookups find what has been read so far.

        Raises:
            FailedPrecondition: MODEL_NOT_LOADABLE or MODEL_NOT_GENUINE.
        """
        await self.model.warm()
        encoder = TextEncoder(self.model)
        self._index = index = VectorIndex(encoder.dimension, self.settings.entries_max)
        records = Records(encoder.version, encoder.dimension)
        self._verifiers = verifiers = Verifiers(
            self.store,
            encoder.version,
            held_share_max=self.settings.held_share_max,
            clock=self.clock,
            random=self.random,
        )
        self.follower = follower = Follower(self.store, index, records, verifiers, self.clock)
        self._tasks |= {asyncio.create_task(follower.follow()), asyncio.create_task(follower.sweep())}
        return Matcher(encoder, index, records, verifiers, self.store, self.settings.bounds)

    async def close(self) -> None:
        """Keeps what was learned and ends; the store is still open."""
        await cancel_all(self._tasks)
        if self._verifiers is not None:
            await self._verifiers.close()
        if self._index is not None:
            await self._index.close()
        await self.model.close()
