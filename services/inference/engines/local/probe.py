"""Finds out whether a network can be served in a batch: its configuration must promise it, and its answers must agree.

What the batch does not know (windows, recurrent states, positions that depend on how long a whole batch is) would give
wrong answers in silence. So the network computes one prompt both ways, in its own way and in pieces in ours.
"""

from __future__ import annotations

from typing import Any

import torch

from services.inference.engines.local import attention
from services.inference.engines.local.attention import UnknownAttention
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN, Extent
from services.inference.engines.local.kv_cache import KVCache
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Plan, Row
from services.inference.engines.local.sequence import Sequence

# Ends of the pieces in which the prompt is computed: read, read on, decoded.
PIECES = (11, 23, 24)
# Largest difference of logits, in parts of the largest logit: far above rounding, far below another answer.
TOLERANCE = {torch.float32: 1e-3}
TOLERANCE_HALF = 0.1
TOLERANCE_INT8 = 0.2
# Rotary positions whose frequencies change with the longest sequence in the batch.
BATCH_WIDE_ROPE = {"dynamic", "longrope"}


@torch.inference_mode()
def prepare(network: Any) -> int:
    """Switches a network to the batch's attention, and returns the bytes of one cached token.

    Raises:
        UnknownAttention: The batch cannot serve it; the network is as it was.
    """
    _check_config(network.config.get_text_config())
    ids = ids_for(network)
    own = network.config._attn_implementation
    expected = network(input_ids=torch.tensor([ids], device=network.device)).logits[0, -1].float()
    attention.register()
    cache = KVCache(EXTENT_TOKENS_MIN)
    try:
        network.set_attn_implementation(attention.NAME)
        found = _in_pieces(network, cache, ids)
        _check_logits(expected, found, TOLERANCE.get(network.dtype, TOLERANCE_HALF))
    except Exception as error:  # whatever a model's own code makes of a batch that it was not written for
        network.set_attn_implementation(own)
        if isinstance(error, UnknownAttention):
            raise
        raise UnknownAttention(f"its own code cannot compute a batch: {error}") from error
    return cache.token_bytes


@torch.inference_mode()
def compare(network: Any, other: Any, *, int8: bool) -> None:
    """Computes a prompt by a network that `prepare` has switched, and by what is to compute it in its place.

    Raises:
        UnknownAttention: The answers differ.
    """
    ids = ids_for(network)
    expected, found = (_in_pieces(one, KVCache(EXTENT_TOKENS_MIN), ids) for one in (network, other))
    _check_logits(expected, found, TOLERANCE_INT8 if int8 else TOLERANCE[torch.float32])


def _in_pieces(network: Any, cache: KVCache, ids: list[int]) -> torch.Tensor:
    runner = Runner(network, cache)
    if not cache.token_bytes:
        raise UnknownAttention("it does not leave attention to transformers' interface")
    sequence = Sequence(ids, len(ids), len(ids), extent=Extent(0, EXTENT_TOKENS_MIN))
    logits = torch.empty(0)
    begin = 0
    for end in PIECES:
        _, logits = runner.run(Plan([Row(sequence, begin, end - begin)]))
        begin = end
    return logits[0]


def _check_config(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise UnknownAttention(f"it has layers of {', '.join(sorted(kinds))}, a window or a state")
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise UnknownAttention("its attention has a window")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in BATCH_WIDE_ROPE:
        raise UnknownAttention("its positions depend on the longest sequence of a batch")


def ids_for(network: Any) -> list[int]:
    """The prompt that a network is tried with."""
    count = network.config.get_text_config().vocab_size
    return [(7 * at + 3) % count for at in range(PIECES[-1])]


def is_near(expected: torch.Tensor, found: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tells whether logits are the same but for rounding."""
    return _difference(expected, found) <= TOLERANCE.get(dtype, TOLERANCE_HALF)


def _check_logits(expected: torch.Tensor, found: torch.Tensor, tolerance: float) -> None:
    difference = _difference(expected, found)
    if not difference <= tolerance:
        raise UnknownAttention(f"its logits differ by {difference:.2g} of the largest")


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())
