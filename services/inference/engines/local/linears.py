"""Linear layers on weights that are laid out once for the processor, in float32 or in 8 bits.

A plain nn.Linear rearranges its weight in every call, which costs more than the product when few rows are computed.
Here oneDNN rearranges it once. In 8 bits the weight has a scale for each output, and each row of the input one of its
own, so that an answer does not depend on its neighbours in the batch. Processors only: a GPU's kernels need none of it.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn
from transformers.activations import GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

from kit import huge_pages
from services.inference.engines.local.loading import Progress

logger = logging.getLogger(__name__)

# Rows that oneDNN lays the weight out for: a batch in mid-stream.
EXPECTED_ROWS = 8
INT8_MAX = 127
# Processors without VNNI add two products in 16 bits: 2 * 255 * 63 fits, more does not.
INT8_MAX_WITHOUT_VNNI = 63
# Inputs are unsigned for oneDNN: 8 bits around this.
ZERO_POINT = 128
# Where feed-forward blocks keep a layer and the activation of what it makes: GPT-2's; Llama's and its descendants'.
FEED_FORWARD = (("c_fc", "act"), ("gate_proj", "act_fn"))
# What oneDNN calls the activations that it can make while it writes a product, and how.
FUSED = {GELUTanh: ("gelu", "tanh"), nn.SiLU: ("swish", ""), SiLUActivation: ("swish", "")}


class PackedLinear(nn.Module):
    """A linear layer in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` is float32, shape (outputs, inputs)."""
        super().__init__()
        self._weight = _settled(torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), EXPECTED_ROWS))
        self._bias = bias
        self.input_count = weight.shape[1]
        self.activation = ("none", "")
        """Of the product, as oneDNN calls it."""

    @property
    def weight(self) -> torch.Tensor:
        """Shape (outputs, inputs), laid out anew: for a model's code that reaches past the layer, as Mamba's does."""
        return self._weight.to_dense()

    @property
    def bias(self) -> torch.Tensor | None:
        """Shape (outputs,)."""
        return self._bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        name, kind = self.activation
        rows, count = _padded(inputs)
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, name, [], kind)
        return product[:count].view(*inputs.shape[:-1], product.shape[-1])


class Int8Linear(nn.Module):
    """A linear layer whose weight and inputs are rounded to 8 bits."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """`weight` is float32, shape (outputs, inputs)."""
        super().__init__()
        weight_max = INT8_MAX if torch.cpu._is_vnni_supported() else INT8_MAX_WITHOUT_VNNI
        scales = (weight.abs().amax(dim=1) / weight_max).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = torch.round(weight / scales[:, None]).to(torch.int8)
        self._weight = _settled(torch.ops.onednn.qlinear_prepack(rounded, None))
        self._scales = scales / INT8_MAX  # so that a row's own scale is its largest number
        self._zero_points = torch.zeros(len(weight), dtype=torch.int32)
        self._bias = torch.zeros(len(weight)) if bias is None else bias
        self._middle = torch.tensor(ZERO_POINT + 0.5)

    @property
    def weight(self) -> torch.Tensor:
        """As `PackedLinear.weight`, rounded."""
        return self._weight.to_dense().t() * (self._scales * INT8_MAX)[:, None]

    @property
    def bias(self) -> torch.Tensor:
        """Shape (outputs,)."""
        return self._bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Shape (..., inputs) to (..., outputs)."""
        rows, count = _padded(inputs)
        # In as few passes as torch has: they cost as much as the product of a single row.
        # Not by `vector_norm`, which goes number by number: ten times as slow at eight rows.
        largest = rows.abs().amax(dim=1, keepdim=True).clamp_min_(1e-30)
        # All is positive here, so that cutting off the fraction rounds to the nearest.
        rounded = torch.addcmul(self._middle, rows, largest.reciprocal(), value=INT8_MAX).to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1.0,
            ZERO_POINT,
            self._weight,
            self._scales,
            self._zero_points,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        return torch.addcmul(self._bias, product, largest)[:count].view(*inputs.shape[:-1], len(self._bias))


def padded_count(count: int) -> int:
    """The least of the sizes that are computed that holds so many rows: those of four significant bits.

    oneDNN makes a kernel for each number of rows and each layer's shape, and keeps a thousand of them, 0.6 MiB each:
    what every step has its own size for would grow by hundreds of MiB. An eighth more rows at most are computed.
    """
    step = 1 << max((count - 1).bit_length() - 4, 0)
    return -(-count // step) * step


def _padded(inputs: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Inputs as rows, with rows of zeros up to the next size that is computed, and how many are not padding."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    spare = padded_count(len(rows)) - len(rows)
    return (nn.functional.pad(rows, (0, 0, 0, spare)) if spare else rows), len(rows)


@torch.inference_mode()
def pack(network: Any, *, int8: bool, progress: Progress | None = None) -> None:
    """Replaces every linear layer of a network on the processor, the one that makes the logits included.

    Activations that are written out in single operations become one, too.
    """
    parents = list(network.modules())
    apart: set[type[nn.Module]] = set()
    made = Int8Linear if int8 else PackedLinear
    for parent in progress.count(parents) if progress else parents:
        for name, layer in list(parent.named_children()):
            bias = getattr(layer, "bias", None)
            if type(layer) is nn.Linear:
                setattr(parent, name, made(layer.weight.detach(), bias))
            elif type(layer) is Conv1D:
                setattr(parent, name, made(layer.weight.detach().t(), bias))
            elif type(layer) is NewGELUActivation:  # eight operations that one kernel does
                setattr(parent, name, GELUTanh())
        if not int8 and type(parent) not in apart and not _fuse(parent):
            apart.add(type(parent))


def _fuse(block: nn.Module) -> bool:
    """Lets the first layer of a feed-forward block make the activation as well, unless that changes its numbers.

    False: blocks of this kind cannot be asked, for they do not compute rows alone.
    """
    for layer_name, activation_name in FEED_FORWARD:
        layer: Any = getattr(block, layer_name, None)
        activation: Any = getattr(block, activation_name, None)
        if not isinstance(layer, PackedLinear) or type(activation) not in FUSED:
            continue
        rows = torch.linspace(-2, 2, 3 * layer.input_count).view(1, 3, -1)
        is_same = False
        try:
            wanted = block(rows)
            layer.activation = FUSED[type(activation)]
            setattr(block, activation_name, nn.Identity())
            is_same = torch.allclose(block(rows), wanted, rtol=1e-4, atol=1e-5)
        except Exception as error:  # a block's code is its model's own
            facts = {"block": type(block).__name__, "error": repr(error)}
            logger.info("activations are computed apart from their layers", extra=facts)
            return False
        finally:
            if not is_same:
                layer.activation = ("none", "")
                setattr(block, activation_name, activation)
    return True


def _settled(weight: torch.Tensor) -> torch.Tensor:
    """Moves a laid-out weight to huge pages: steps of a GPT-2 of 124M get 13 % quicker with one row, 7 % with eight."""
    huge_pages.collapse(torch.ops.mkldnn.data_ptr(weight), torch.ops.mkldnn._nbytes(weight))
    return weight
