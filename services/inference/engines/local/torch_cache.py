"""A KV cache as torch's attention reads it, and how the tokens of a step lie in it.

Sequences that decode and whose extents are neighbours are one group: one call of attention for all of them.
"""

from __future__ import annotations

from typing import Any

import torch

from services.inference.engines.local.attention import Group, Step, causal_mask, length_mask
from services.inference.engines.local.kv_cache import KVCache, Span
from services.inference.engines.local.scheduler import Row


class TorchCache(KVCache):
    """The positions of all layers of a network that torch computes."""

    def __init__(self, network: Any, token_count: int) -> None:
        super().__init__(token_count)
        self._device: torch.device = network.device
        self._dtype: torch.dtype = network.dtype
        self._head_count: int = network.config.get_text_config().num_attention_heads

    def step(self, rows: list[Row]) -> Step:
        """Where the tokens of one step are kept, and what they attend to."""
        groups: list[Group] = []
        begin = 0
        for members in _neighbours(rows):
            token_count = sum(row.end - row.begin for row in members)
            groups.append(self._group(members, begin, begin + token_count))
            begin += token_count
        return Step(self, self._kept_at(rows), groups)

    def _kept_at(self, rows: list[Row]) -> torch.Tensor:
        places: list[int] = []
        for row in rows:
            assert row.sequence.extent
            start = row.sequence.extent.start
            places += range(start + row.begin, start + row.end)
        return torch.tensor(places, dtype=torch.long, device=self._device)

    def _group(self, rows: list[Row], begin: int, end: int) -> Group:
        extent = rows[0].sequence.extent
        assert extent
        lengths = [row.end for row in rows]
        span = Span(extent.start, extent.size, len(rows), max(lengths))
        mask = None
        count = rows[0].end - rows[0].begin
        if count > 1:
            # Before the first step nobody knows how many heads share keys, and a step of one token needs no mask.
            share = self._head_count // self.key_head_count
            mask = causal_mask(rows[0].begin, count, share, self._dtype, self._device)
        elif min(lengths) < span.length:
            mask = length_mask(lengths, self._dtype, self._device)
        return Group(begin, end, span, mask)


def _neighbours(rows: list[Row]) -> list[list[Row]]:
    """Joins rows of one token whose extents are of one size and stand side by side."""
    groups: list[list[Row]] = []
    for row in rows:
        before, here = groups[-1][-1].sequence.extent if groups else None, row.sequence.extent
        assert here
        joins = before is not None and before.size == here.size and before.start + before.size == here.start
        if joins and row.end - row.begin == groups[-1][-1].end - groups[-1][-1].begin == 1:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
