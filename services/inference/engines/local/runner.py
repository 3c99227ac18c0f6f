"""Runs a step: lays the tokens of all sequences end to end, and has the model's own forward compute them at once.

Nothing is padded, so that a step costs what its tokens cost. It decides nothing: what is computed, and where it is
kept, the plan says.
"""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch

from services.inference.engines.local.extents import EXTENT_TOKENS_MIN, Extent
from services.inference.engines.local.scheduler import Plan, Row
from services.inference.engines.local.sequence import Sequence
from services.inference.engines.local.torch_cache import TorchCache


class Cache(Protocol):
    """Keys and values of all sequences, as whatever computes the network keeps them."""

    @property
    def token_bytes(self) -> int:
        """Bytes of one position in all layers; 0 as long as nobody knows."""
        ...

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies positions; the two do not overlap."""
        ...

    def clear(self, start: int, count: int) -> None:
        """Makes positions what nobody has used yet."""
        ...

    def step(self, rows: list[Row]) -> Any:
        """What a step says to attention: where its tokens are kept, and what they attend to."""
        ...


class Runner:
    """A network and its cache."""

    def __init__(self, network: Any, token_count: int) -> None:
        """`token_count` positions of the cache, which is of the network's own kind where it has one."""
        self._network = network
        has_own = hasattr(network, "make_cache")
        self._cache: Cache = network.make_cache(token_count) if has_own else TorchCache(network, token_count)
        self._device: torch.device = network.device
        self.time_reading(1)  # makes the layers of torch's cache, whose shapes the masks follow

    @property
    def token_bytes(self) -> int:
        """Bytes of one position in all layers; 0: the network keeps nothing there."""
        return self._cache.token_bytes

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[list[Row], torch.Tensor]:
        """Computes a step.

        Returns:
            The rows after which a token can be drawn, and their logits, float32, shape (rows, vocabulary); each row has
            as many more as it has guesses.
        """
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.count)
        rows = sorted(plan.rows, key=_place)
        ids: list[int] = []
        positions: list[int] = []
        ends: list[int] = []
        for row in rows:
            ids += row.token_ids
            positions += range(row.begin, row.end)
            if row.gives_token:
                ends += range(len(ids) - 1 - len(row.draft_ids), len(ids))
        output = self._network(
            input_ids=self._tensor(ids)[None],
            position_ids=self._tensor(positions)[None],
            use_cache=False,
            logits_to_keep=self._tensor(ends),
            step=self._cache.step(rows),
        )
        logits: torch.Tensor = output.logits[0]
        return [row for row in rows if row.gives_token], logits.float()

    def clear(self, extent: Extent) -> None:
        """Makes a place what nobody has used yet: what is no number there would spread to whoever has it next."""
        self._cache.clear(extent.start, extent.size)

    def time_reading(self, token_count: int) -> float:
        """Reads a prompt of so many tokens at the first positions, which nobody may hold, and returns the seconds."""
        extent = Extent(0, max(EXTENT_TOKENS_MIN, token_count))
        return self._time([Row(_sequence(token_count, extent), 0, token_count)])

    def time_decoding(self, row_count: int, length: int) -> float:
        """Computes the last token of so many answers that are so long, at the first positions as well."""
        extents = [Extent(at * length, length) for at in range(row_count)]
        return self._time([Row(_sequence(length, extent), length - 1, 1) for extent in extents])

    def _time(self, rows: list[Row]) -> float:
        begin = time.perf_counter()
        self.run(Plan(rows))
        return time.perf_counter() - begin

    def _tensor(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)


def _sequence(token_count: int, extent: Extent) -> Sequence:
    return Sequence([0] * token_count, token_count, token_count, extent=extent)


def _place(row: Row) -> tuple[bool, int, int]:
    """Those of one token first, by size and place, so that neighbours stand together."""
    extent = row.sequence.extent
    assert extent
    return (row.end - row.begin > 1, extent.size, extent.start)
