"""Finds out whether a network can be served in a batch: its configuration must promise it, and its answers must agree.

What the batch does not know (windows, recurrent states, positions that depend on how long a whole batch is) would give
wrong answers in silence. So the network computes one prompt both ways, in its own way and in pieces in ours.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from services.inference.engines.local import attention
from services.inference.engines.local.attention import UnknownAttention
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN, Extent
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Ids, Plan, Row
from services.inference.engines.local.sequence import Sequence

# Ends of the pieces in which the prompt is computed: read, read on, decoded.
PIECES = (11, 23, 24)
# Two prompts read beside each other, by the places of their extents: the ends of their pieces in each step. The first
# goes on from one block into another, and neither begins where the cache does. The last step is one of guesses.
SHARED_PIECES = {Extent(64, 64): (11, 31, 34), Extent(32, 32): (0, 21, 24)}
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
    try:
        network.set_attn_implementation(attention.NAME)
        runner = Runner(network, EXTENT_TOKENS_MIN)
        found = _in_pieces(runner, ids)
        _check_logits(expected, found, TOLERANCE.get(network.dtype, TOLERANCE_HALF))
    except Exception as error:  # whatever a model's own code makes of a batch that it was not written for
        network.set_attn_implementation(own)
        if isinstance(error, UnknownAttention):
            raise
        raise UnknownAttention(f"its own code cannot compute a batch: {error}") from error
    return runner.token_bytes


@torch.inference_mode()
def compare(network: Any, other: Any, *, int8: bool) -> None:
    """Computes prompts by a network that `prepare` has switched, and by what is to compute them in its place.

    Raises:
        UnknownAttention: The answers differ.
    """
    tolerance = TOLERANCE_INT8 if int8 else TOLERANCE[torch.float32]
    for expected, found in zip(_beside(network, network), _beside(other, network), strict=True):
        _check_logits(expected, found, tolerance)


def _beside(computing: Any, network: Any) -> torch.Tensor:
    """Logits of the last step of prompts that are read beside each other, shape (tokens, vocabulary)."""
    runner = Runner(computing, 2 * max(extent.size for extent in SHARED_PIECES))
    prompts: list[tuple[Sequence, Ids]] = []
    for extent, (*_, begin, end) in SHARED_PIECES.items():
        ids = ids_for(network, end)[:: 1 if prompts else -1]
        known = ids[: begin + 1]
        prompts.append((Sequence(known, len(known), end, extent=extent), tuple(ids[begin + 1 :])))
    logits = torch.empty(0)
    for pieces in zip(*(pairwise((0, *ends)) for ends in SHARED_PIECES.values()), strict=True):
        rows = [_row(one, ids, *piece) for (one, ids), piece in zip(prompts, pieces, strict=True) if piece[1]]
        _, logits = runner.run(Plan(rows))
    return logits


def _row(sequence: Sequence, draft_ids: Ids, begin: int, end: int) -> Row:
    known = min(end, sequence.prompt_count)
    return Row(sequence, begin, known - begin, draft_ids if end > known else ())


def _in_pieces(runner: Runner, ids: list[int]) -> torch.Tensor:
    if not runner.token_bytes:
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


def ids_for(network: Any, token_count: int = PIECES[-1]) -> list[int]:
    """The prompt that a network is tried with."""
    count = network.config.get_text_config().vocab_size
    return [(7 * at + 3) % count for at in range(token_count)]


def is_near(expected: torch.Tensor, found: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tells whether logits are the same but for rounding."""
    return _difference(expected, found) <= TOLERANCE.get(dtype, TOLERANCE_HALF)


def _check_logits(expected: torch.Tensor, found: torch.Tensor, tolerance: float) -> None:
    difference = _difference(expected, found)
    if not difference <= tolerance:
        raise UnknownAttention(f"its logits differ by {difference:.2g} of the largest")


def _difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    return float((expected - found).abs().max() / expected.abs().max())
