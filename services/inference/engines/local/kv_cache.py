"""Keys and values of all sequences of a model, in memory of one fixed size.

A layer's positions are one tensor of shape (positions, heads, width), made when the layer first writes, so that any
model's shapes fit. All of one position lies together: it is written in one piece, and positions that nobody has used
yet take no memory. Who holds which positions is the scheduler's business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from services.inference.engines.local import huge_pages


@dataclass(frozen=True, slots=True)
class Span:
    """Extents of one size that are neighbours, each read to the same length; longer than some of them are filled."""

    start: int
    size: int
    row_count: int
    length: int


class Layer:
    """The positions of one layer."""

    def __init__(self, key: torch.Tensor, value: torch.Tensor, token_count: int) -> None:
        # Zeros: what lies beyond a sequence's end is multiplied by 0, which makes nothing of numbers but not of NaN.
        self.keys = _zeros(key, token_count)
        self.values = _zeros(value, token_count)

    def read(self, span: Span) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the keys and values, shape (rows, heads, length, width)."""
        return _view(self.keys, span), _view(self.values, span)


class KVCache:
    """The positions of all layers."""

    def __init__(self, token_count: int) -> None:
        self.token_count = token_count
        self._layers: dict[int, Layer] = {}

    @property
    def token_bytes(self) -> int:
        """Bytes of one position in all layers; 0 before the first step."""
        tensors = [tensor for layer in self._layers.values() for tensor in (layer.keys, layer.values)]
        return sum(tensor[0].numel() * tensor.element_size() for tensor in tensors)

    @property
    def key_head_count(self) -> int:
        """Heads of the keys, which several heads of the queries may share; 0 before the first step."""
        return next((layer.keys.shape[1] for layer in self._layers.values()), 0)

    def write(self, index: int, key: torch.Tensor, value: torch.Tensor, positions: torch.Tensor) -> Layer:
        """Keeps what a layer computed, shape (heads, tokens, width), and returns the layer."""
        layer = self._layers.get(index)
        if layer is None:
            layer = self._layers[index] = Layer(key, value, self.token_count)
        layer.keys.index_copy_(0, positions, key.transpose(0, 1))
        layer.values.index_copy_(0, positions, value.transpose(0, 1))
        return layer

    def copy(self, source: int, target: int, count: int) -> None:
        """Copies positions; the two do not overlap."""
        for layer in self._layers.values():
            for tensor in (layer.keys, layer.values):
                tensor[target : target + count] = tensor[source : source + count]

    def clear(self, start: int, count: int) -> None:
        """Makes positions what nobody has used yet, for what is no number would spread to whoever has them next."""
        for layer in self._layers.values():
            for tensor in (layer.keys, layer.values):
                tensor[start : start + count] = 0


def _zeros(like: torch.Tensor, token_count: int) -> torch.Tensor:
    """Positions for what one layer makes, shape (heads, tokens, width)."""
    shape = (token_count, like.shape[0], like.shape[-1])
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    return huge_pages.zeros(math.prod(shape), like.dtype).view(shape)


def _view(tensor: torch.Tensor, span: Span) -> torch.Tensor:
    _, heads, width = tensor.shape
    shape = (span.row_count, heads, span.length, width)
    strides = (span.size * heads * width, width, heads * width, 1)
    return tensor.as_strided(shape, strides, tensor.storage_offset() + span.start * heads * width)
