"""Comparisons that were asked for and not yet made: a kept answer against the fresh one that its caller produces."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from services.cache.semantic.verifier import Decision

# Comparisons kept open. Beyond that the oldest are given up: their callers have most likely given up too.
OPEN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """What will be learned from: whose it is, what was decided, and the meaning of the entry that was looked at."""

    tenant: bytes
    decision: Decision
    meaning: str


class Comparisons:
    """The open comparisons, by an id that cannot be guessed."""

    def __init__(self, open_max: int = OPEN_MAX) -> None:
        self._open: OrderedDict[str, Comparison] = OrderedDict()
        self._open_max = open_max

    def open(self, comparison: Comparison) -> str:
        """Opens a comparison and names it."""
        name = secrets.token_hex(16)
        self._open[name] = comparison
        if len(self._open) > self._open_max:
            self._open.popitem(last=False)
        return name

    def close(self, name: str, tenant: bytes) -> Comparison | None:
        """Ends a comparison of a tenant; None if it is unknown, was ended before or is another's."""
        comparison = self._open.get(name)
        if comparison is None or comparison.tenant != tenant:
            return None
        return self._open.pop(name)
