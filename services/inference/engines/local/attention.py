"""Attention over a batch of sequences of any lengths, laid end to end: what a model's own forward calls in our step.

Registered with transformers as `millrace`, so that every model that leaves attention to an interface computes with it:
keys and values go to the cache, and each query meets the positions of its own sequence only. Sequences that decode and
are neighbours in the cache are one call. What it does not know (windows, sinks, caps on scores) it refuses, and the
model is then served without a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from services.inference.engines.local.kv_cache import KVCache, Span

NAME = "millrace"
# What models hand to attention that changes the scores.
UNKNOWN = ("sliding_window", "softcap", "s_aux", "position_bias")


class UnknownAttention(Exception):
    """The model's attention is none that this one knows."""


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that are one call: tokens `begin` to `end` of the step, as many of each sequence of a span.

    `mask` is what is added to the scores, shape (sequences or 1, 1, queries or 1, positions); None: all is seen.
    """

    begin: int
    end: int
    span: Span
    mask: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class Step:
    """Where the tokens of one step are kept, int64, shape (tokens,), and what they attend to."""

    cache: KVCache
    positions: torch.Tensor
    groups: list[Group]


class Traced:
    """Stands for the step where a network's own code is only looked at: attention is then one operation of its own."""


torch.library.define("millrace::attend", "(Tensor query, Tensor key, Tensor value, int layer, float? scale) -> Tensor")


@torch.library.register_fake("millrace::attend")  # type: ignore[untyped-decorator]
def _shaped(query: torch.Tensor, _: torch.Tensor, value: torch.Tensor, *__: object) -> torch.Tensor:
    return query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    step: Step | Traced | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Computes attention as transformers' interface wants it: shapes (1, heads, tokens, width).

    Raises:
        UnknownAttention: The model asks for something else.
    """
    if step is None or attention_mask is not None or any(options.get(name) is not None for name in UNKNOWN):
        raise UnknownAttention(f"{type(module).__name__} has attention that the batch does not know")
    index = int(module.layer_idx)  # type: ignore[arg-type]
    if isinstance(step, Traced):
        return torch.ops.millrace.attend(query, key, value, index, scaling), None
    return compute(step, index, query, key, value, scaling), None


def compute(
    step: Step, index: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    """Attention of one layer, which keeps its keys and values; shape (1, tokens, heads, width)."""
    layer = step.cache.write(index, key[0], value[0], step.positions)
    results = []
    for group in step.groups:
        keys, values = layer.read(group.span)
        queries = _by_key_head(query[0, :, group.begin : group.end], group.span.row_count, keys.shape[1])
        found = scaled_dot_product_attention(queries, keys, values, attn_mask=group.mask, scale=scaling)
        results.append(_by_token(found, query.shape[1]))
    return torch.cat(results)[None] if len(results) > 1 else results[0][None]


def register() -> None:
    """Makes the interface known to transformers."""
    AttentionInterface.register(NAME, attend)


def causal_mask(begin: int, count: int, repeats: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Lets tokens `begin` to `begin + count` see what is not after them, for each of the heads that share keys."""
    later = torch.arange(begin + count, device=device) > torch.arange(begin, begin + count, device=device)[:, None]
    mask = torch.zeros(later.shape, dtype=dtype, device=device).masked_fill_(later, -torch.inf)
    return mask.repeat(repeats, 1)[None, None]


def length_mask(lengths: list[int], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Lets the one query of each sequence see its own length."""
    ends = torch.tensor(lengths, device=device)[:, None]
    beyond = torch.arange(max(lengths), device=device) >= ends
    return torch.zeros(beyond.shape, dtype=dtype, device=device).masked_fill_(beyond, -torch.inf)[:, None, None]


def _by_key_head(query: torch.Tensor, row_count: int, key_head_count: int) -> torch.Tensor:
    """From (heads, rows * tokens, width) to (rows, key heads, heads per key head * tokens, width)."""
    head_count, token_count, width = query.shape
    share, each = head_count // key_head_count, token_count // row_count
    query = query.reshape(key_head_count, share, row_count, each, width).permute(2, 0, 1, 3, 4)
    return query.reshape(row_count, key_head_count, share * each, width)


def _by_token(found: torch.Tensor, head_count: int) -> torch.Tensor:
    """From (rows, key heads, heads per key head * tokens, width) to (rows * tokens, heads, width)."""
    row_count, key_head_count, queries, width = found.shape
    share = head_count // key_head_count
    found = found.reshape(row_count, head_count, queries // share, width).transpose(1, 2)
    return found.reshape(-1, head_count, width)
