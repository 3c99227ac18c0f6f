"""Runs a step: lays the tokens of all sequences end to end, and has the model's own forward compute them at once.

Nothing is padded, so that a step costs what its tokens cost. It decides nothing: what is computed, and where it is
kept, the plan says.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from services.inference.engines.local.attention import Group, Step, causal_mask, length_mask
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN, Extent
from services.inference.engines.local.kv_cache import KVCache, Span
from services.inference.engines.local.scheduler import Plan, Row
from services.inference.engines.local.sequence import Sequence


class Runner:
    """A network and its cache."""

    def __init__(self, network: Any, cache: KVCache) -> None:
        self._network = network
        self._cache = cache
        self._device: torch.device = network.device
        self._dtype: torch.dtype = network.dtype
        config = network.config.get_text_config()
        self._head_count: int = config.num_attention_heads
        self.time_reading(1)  # makes the cache's layers, whose shapes the masks follow

    @torch.inference_mode()
    def run(self, plan: Plan) -> tuple[list[Sequence], torch.Tensor]:
        """Computes a step.

        Returns:
            The sequences whose next token can be drawn, and their logits, float32, shape (sequences, vocabulary).
        """
        for copy in plan.copies:
            self._cache.copy(copy.source, copy.target, copy.count)
        rows = sorted(plan.rows, key=_place)
        ids: list[int] = []
        positions: list[int] = []
        for row in rows:
            ids += row.sequence.token_ids[row.begin : row.begin + row.count]
            positions += range(row.begin, row.begin + row.count)
        ends, at = [], -1
        for row in rows:
            at += row.count
            if row.gives_token:
                ends.append(at)
        output = self._network(
            input_ids=self._tensor(ids)[None],
            position_ids=self._tensor(positions)[None],
            use_cache=False,
            logits_to_keep=self._tensor(ends),
            step=Step(self._cache, self._kept_at(rows), self._groups(rows)),
        )
        logits: torch.Tensor = output.logits[0]
        return [row.sequence for row in rows if row.gives_token], logits.float()

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

    def _kept_at(self, rows: list[Row]) -> torch.Tensor:
        places: list[int] = []
        for row in rows:
            assert row.sequence.extent
            start = row.sequence.extent.start + row.begin
            places += range(start, start + row.count)
        return self._tensor(places)

    def _groups(self, rows: list[Row]) -> list[Group]:
        groups: list[Group] = []
        begin = 0
        for members in _neighbours(rows):
            token_count = sum(row.count for row in members)
            groups.append(self._group(members, begin, begin + token_count))
            begin += token_count
        return groups

    def _group(self, rows: list[Row], begin: int, end: int) -> Group:
        extent = rows[0].sequence.extent
        assert extent
        lengths = [row.begin + row.count for row in rows]
        span = Span(extent.start, extent.size, len(rows), max(lengths))
        mask = None
        if rows[0].count > 1:
            share = self._head_count // self._cache.key_head_count
            mask = causal_mask(rows[0].begin, rows[0].count, share, self._dtype, self._device)
        elif min(lengths) < span.length:
            mask = length_mask(lengths, self._dtype, self._device)
        return Group(begin, end, span, mask)


def _sequence(token_count: int, extent: Extent) -> Sequence:
    return Sequence([0] * token_count, token_count, token_count, extent=extent)


def _place(row: Row) -> tuple[bool, int, int]:
    """Those of one token first, by size and place, so that neighbours stand together."""
    extent = row.sequence.extent
    assert extent
    return (row.count > 1, extent.size, extent.start)


def _neighbours(rows: list[Row]) -> list[list[Row]]:
    """Joins rows of one token whose extents are of one size and stand side by side."""
    groups: list[list[Row]] = []
    for row in rows:
        before, here = groups[-1][-1].sequence.extent if groups else None, row.sequence.extent
        assert here
        joins = before is not None and before.size == here.size and before.start + before.size == here.start
        if joins and row.count == groups[-1][-1].count == 1:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
