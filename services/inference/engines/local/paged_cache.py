"""Keys and values of all sequences of a model, in blocks as OpenVINO's paged attention reads them.

An extent of the scheduler is a run of whole blocks, so that which blocks a sequence has follows from where its extent
begins. How keys and values lie within a block, and with how many bits, is the runtime's business: whole blocks are
copied, and what they hold beyond what was wanted is written before it is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from services.inference.engines.local import huge_pages
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN
from services.inference.engines.local.openvino_runtime import openvino
from services.inference.engines.local.scheduler import Row
from services.inference.engines.local.traced_node import UnknownOperation

# What the runtime's paged attention takes on processors; other versions may take others.
BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class PagedStep:
    """What a step says to paged attention, by the names of its inputs."""

    cache: PagedCache
    inputs: dict[str, Any]


class PagedCache:
    """The positions of all layers."""

    def __init__(self, layers: Mapping[str, Any], token_count: int) -> None:
        """`layers`: the inputs of a compiled model that keep keys or values, by their names."""
        assert EXTENT_TOKENS_MIN % BLOCK_TOKENS == 0
        self.token_bytes = token_bytes(layers)
        block_count = _block_count(token_count)
        self._blocks = {
            name: huge_pages.zeros(block_count * _block_bytes(port), torch.uint8).view(block_count, -1)
            for name, port in layers.items()
        }
        self.tensors = {name: _shared(self._blocks[name], port) for name, port in layers.items()}
        """The same memory as the model's inputs."""

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies positions; the two do not overlap.

        Whole blocks, the last with what lies beyond `count`: extents are of whole blocks, so that it is nobody else's.
        """
        begin, to, blocks = source // BLOCK_TOKENS, target // BLOCK_TOKENS, _block_count(count)
        for numbers in self._blocks.values():
            numbers[to : to + blocks] = numbers[begin : begin + blocks]

    def clear(self, start: int, count: int) -> None:
        """Makes positions what nobody has used yet; whole blocks, as `copy` does."""
        begin, end = start // BLOCK_TOKENS, _block_count(start + count)
        for numbers in self._blocks.values():
            numbers[begin:end] = 0

    def step(self, rows: list[Row]) -> PagedStep:
        """Where the tokens of one step are kept, and what they attend to."""
        pasts: list[int] = []
        blocks: list[int] = []
        begins, block_begins = [0], [0]
        for row in rows:
            extent = row.sequence.extent
            assert extent
            first = extent.start // BLOCK_TOKENS
            for begin, end in _parts(row):
                blocks += range(first, first + _block_count(end))
                pasts.append(begin)
                begins.append(begins[-1] + end - begin)
                block_begins.append(len(blocks))
        longest = max(row.end for row in rows)
        numbers = {
            "past_lens": pasts,
            "subsequence_begins": begins,
            "block_indices": blocks,
            "block_indices_begins": block_begins,
            "max_context_len": longest,
        }
        return PagedStep(self, {name: np.array(value, np.int32) for name, value in numbers.items()})


def check(layers: Mapping[str, Any]) -> None:
    """Checks that the runtime keeps keys and values in blocks of as many positions as are counted with here.

    Raises:
        UnknownOperation: It has others.
    """
    for name, port in layers.items():
        if (found := _sizes(port)[1]) != BLOCK_TOKENS:
            raise UnknownOperation(f"{name} has blocks of {found} positions, not of {BLOCK_TOKENS}")


def token_bytes(layers: Mapping[str, Any]) -> int:
    """Bytes of one position in all layers."""
    return sum(map(_block_bytes, layers.values())) // BLOCK_TOKENS


def _parts(row: Row) -> Iterator[tuple[int, int]]:
    """What is one sequence to the runtime: all of a row, or with guesses each token for itself.

    The runtime keeps the keys and values of a whole step before it attends to any, so that tokens see those before them
    all the same; and with many sequences it takes up to three times as long for a few tokens of each as for them apart.
    """
    if row.draft_ids:
        yield from pairwise(range(row.begin, row.end + 1))
    else:
        yield row.begin, row.end


def _block_count(token_count: int) -> int:
    return -(-token_count // BLOCK_TOKENS)


def _sizes(port: Any) -> list[int]:
    """The shape of one block; the count of blocks is what the model leaves open."""
    return [size.get_length() for size in list(port.get_partial_shape())[1:]]


def _block_bytes(port: Any) -> int:
    return math.prod(_sizes(port)) * int(port.get_element_type().size)


def _shared(blocks: torch.Tensor, port: Any) -> Any:
    """Memory as an input of the model."""
    kind = port.get_element_type()
    numbers = blocks.numpy().view(kind.to_dtype()).reshape(len(blocks), *_sizes(port))
    return openvino.Tensor(numbers, shared_memory=True)
