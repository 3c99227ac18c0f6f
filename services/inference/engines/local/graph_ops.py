"""Operations of torch as operators of OpenVINO: all that a language model is made of, attention included.

Products with a weight are what everything else serves. In 8 bits a weight has a scale for each output; what it meets is
rounded by the runtime, by groups of one row's own numbers, so that a row does not depend on its neighbours, bit for
bit. It knows nothing of models or of steps; what it does not know it refuses, and the model is then computed by torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from services.inference.engines.local.openvino_runtime import cache_parameter, ops, paged_attention, parameter

INT8_MAX = 127
# Of paged attention, in the operator's own order: what a step says, and the features that are not asked for.
STEP_INPUTS = ("past_lens", "subsequence_begins", "block_indices", "block_indices_begins", "max_context_len")
# What the inputs that keep keys and values are called begins with it.
CACHES = "cache"
NO_INDICES, NO_NUMBERS = np.zeros(0, np.int32), np.zeros(0, np.float32)
UNUSED = (
    NO_INDICES,  # aggregation of scores
    NO_INDICES,  # rotation of blocks, with its angles
    NO_INDICES,
    NO_NUMBERS,
    NO_NUMBERS,  # sparse attention, with its sizes
    np.int32(0),
    np.int32(0),
    np.zeros((0, 0, 0, 0), np.float32),  # sinks
    np.int32(0),  # eviction by diversity
    NO_INDICES,
    NO_INDICES,
    NO_INDICES,
    NO_INDICES,  # types of tokens
    np.zeros(0, np.uint8),  # masks among the queries
    NO_INDICES,
)


class UnknownOperation(Exception):
    """The model does something that is not known here."""


class Graph:
    """One graph as it is written."""

    def __init__(self, weights: Mapping[str, torch.Tensor], inputs: Mapping[str, Any], *, int8: bool) -> None:
        """`weights` and `inputs` by the name of their node; the numbers of weights are shared, where they are kept."""
        self.parameters: dict[str, Any] = {
            name: parameter(name, 0 if name == "max_context_len" else 1) for name in STEP_INPUTS
        }
        self.input_counts: set[int] = set()
        """Of all weights that products were written with."""
        self._weights, self._int8 = weights, int8
        self._values: dict[str, Any] = dict(inputs)
        self._constants: dict[str, Any] = {}

    def add(self, node: Node) -> None:
        """Writes what makes the value of a node.

        Raises:
            UnknownOperation: Nothing here does.
        """
        write = WRITERS.get(_target(node))
        if write is None:
            raise UnknownOperation(f"{_target(node)} is not known")
        made = write(self, node)
        if made is not None:
            self._values[node.name] = made

    def value(self, value: Any) -> Any:
        """What an argument is: a value, a weight or a number."""
        if not isinstance(value, Node):
            return self.constant(np.float32(value))
        if value.name in self._weights:
            return self._keep(value.name, self._weights[value.name].detach().numpy)
        return self._values[value.name]

    def constant(self, numbers: Any) -> Any:
        """An array that is part of the graph."""
        array = np.asarray(numbers)
        return self._keep(f"{array.dtype} {array.shape} {array.tolist()}", lambda: array)

    def product(self, rows: Any, weight: Node, bias: Node | None, *, is_turned: bool) -> Any:
        """Rows, shape (..., inputs), with a weight of shape (inputs, outputs), or (outputs, inputs) if turned."""
        matrix = self._weights[weight.name].detach()
        self.input_counts.add(matrix.shape[1 if is_turned else 0])
        if self._int8:
            made = ops.matmul(rows, self._int8_weight(weight.name, matrix if is_turned else matrix.t()), False, True)
        else:
            made = ops.matmul(rows, self.value(weight), False, is_turned)
        return made if bias is None else ops.add(made, self.value(bias))

    def attention(self, node: Node) -> Any:
        """Attention of one layer, which keeps its keys and values in parameters of the graph."""
        query, key, value, index, scaling = given(node)
        _refuse(node, scaling is None)
        caches = []
        for kind in ("key", "value"):
            name = f"{CACHES}.{kind}.{index}"
            _refuse(node, name in self.parameters)
            self.parameters[name] = cache_parameter(name)
            caches.append(self.parameters[name])
        made = paged_attention(
            [
                *(self._rows(source) for source in (query, key, value)),
                *caches,
                *(self.parameters[name] for name in STEP_INPUTS[:-1]),
                self.value(scaling),
                *(self.constant(numbers) for numbers in (np.int32(0), NO_NUMBERS)),  # no window, no slopes
                self.parameters[STEP_INPUTS[-1]],
                *(self.constant(numbers) for numbers in UNUSED),
            ],
            _heads(key),
            _heads(value),
        )
        return ops.reshape(made, self.constant(np.array(_shape(node))), False)

    def _rows(self, node: Node) -> Any:
        """What meets in attention, shape (1, heads, tokens, width), as rows: (tokens, heads * width)."""
        heads, width = _heads(node)
        if str(node.target) == "aten.transpose.int" and node.args[1:] == (1, 2):  # as it lay before
            turned = self.value(given(node)[0])
        else:
            turned = ops.transpose(self.value(node), self.constant(np.array([0, 2, 1, 3])))
        return ops.reshape(turned, self.constant(np.array([-1, heads * width])), False)

    def _int8_weight(self, name: str, weight: torch.Tensor) -> Any:
        """A weight of shape (outputs, inputs), kept in 8 bits."""

        def make() -> Any:
            scales = (weight.abs().amax(dim=1, keepdim=True) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
            rounded = torch.round(weight / scales).to(torch.int8).contiguous()
            kept = ops.convert(ops.constant(rounded.numpy(), shared_memory=True), np.float32)
            return ops.multiply(kept, ops.constant(scales.numpy(), shared_memory=True))

        return self._once(f"{name} in 8 bits", make)

    def _keep(self, name: str, make: Callable[[], Any]) -> Any:
        return self._once(name, lambda: ops.constant(np.require(make(), requirements="C"), shared_memory=True))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._constants:
            self._constants[name] = make()
        return self._constants[name]


Write = Callable[[Graph, Node], Any]


def _operator(make: Callable[..., Any], *more: Any) -> Write:
    """An operation that one operator does, with the same arguments."""

    def write(graph: Graph, node: Node) -> Any:
        _refuse(node, bool(node.kwargs))
        return make(*(graph.value(value) for value in given(node)), *more)

    return write


def _embedding(graph: Graph, node: Node) -> Any:
    weight, ids, *_ = given(node)
    return ops.gather(graph.value(weight), graph.value(ids), graph.constant(np.int32(0)))


def _linear(graph: Graph, node: Node) -> Any:
    rows, weight, *bias = given(node)
    return graph.product(graph.value(rows), weight, bias[0] if bias else None, is_turned=True)


def _addmm(graph: Graph, node: Node) -> Any:
    bias, rows, weight = given(node)
    _refuse(node, bool(node.kwargs))
    return graph.product(graph.value(rows), weight, bias, is_turned=False)


def _reshape(graph: Graph, node: Node) -> Any:
    return ops.reshape(graph.value(given(node)[0]), graph.constant(np.array(_shape(node))), False)


def _transpose(graph: Graph, node: Node) -> Any:
    value, one, other = given(node)
    order = list(range(len(_shape(node))))
    order[one], order[other] = order[other], order[one]
    return ops.transpose(graph.value(value), graph.constant(np.array(order)))


def _split(graph: Graph, node: Node) -> Any:
    value, _, *axis = given(node)
    at = axis[0] if axis else 0
    sizes = [part.shape[at] for part in node.meta["val"]]
    return ops.variadic_split(
        graph.value(value), graph.constant(np.int64(at)), graph.constant(np.array(sizes))
    ).outputs()


def _part(graph: Graph, node: Node) -> Any:
    value, number = given(node)
    return graph.value(value)[number]


def _same(graph: Graph, node: Node) -> Any:
    source = given(node)[0]
    is_float = node.meta["val"].dtype == torch.float32
    _refuse(node, not is_float and source.meta["val"].dtype != node.meta["val"].dtype)
    value = graph.value(source)
    return value if source.meta["val"].dtype == node.meta["val"].dtype else ops.convert(value, np.float32)


def _slice(graph: Graph, node: Node) -> Any:
    value, axis, begin, end, *step = given(node)
    _refuse(node, bool(step) or not (isinstance(begin, int) and isinstance(end, int)))
    begins, ends, steps, axes = (graph.constant(np.array([number])) for number in (begin, end, 1, axis))
    return ops.slice(graph.value(value), begins, ends, steps, axes)


def _cat(graph: Graph, node: Node) -> Any:
    values, *axis = given(node)
    return ops.concat([graph.value(value) for value in values], axis[0] if axis else 0)


def _mean(graph: Graph, node: Node) -> Any:
    value, axes, *keeps = given(node)
    return ops.reduce_mean(graph.value(value), graph.constant(np.array(axes)), bool(keeps and keeps[0]))


def _rsqrt(graph: Graph, node: Node) -> Any:
    return ops.divide(graph.value(1.0), ops.sqrt(graph.value(given(node)[0])))


def _layer_norm(graph: Graph, node: Node) -> Any:
    value, shape, weight, bias, epsilon, *_ = given(node)
    _refuse(node, weight is None or bias is None or len(shape) != 1)
    normal = ops.mvn(graph.value(value), graph.constant(np.array([-1])), True, epsilon, "inside_sqrt")
    return ops.add(ops.multiply(normal, graph.value(weight)), graph.value(bias))


def _gelu(graph: Graph, node: Node) -> Any:
    is_tanh = node.kwargs.get("approximate", "none") == "tanh"
    return ops.gelu(graph.value(given(node)[0]), "tanh" if is_tanh else "erf")


def _select(graph: Graph, node: Node) -> Any:
    """Rows of the second dimension by their numbers: what a model keeps to make logits of."""
    value, indices = given(node)
    is_known = isinstance(indices, list) and len(indices) == 2 and indices[0] is None
    _refuse(node, not is_known)
    return ops.gather(graph.value(value), graph.value(indices[1]), graph.constant(np.int32(1)))


def _nothing(graph: Graph, node: Node) -> None:
    """What only checks, or tells sizes."""


WRITERS: dict[str, Write] = {
    "millrace.attend.default": Graph.attention,
    "aten.embedding.default": _embedding,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.layer_norm.default": _layer_norm,
    "aten.mean.dim": _mean,
    "aten.rsqrt.default": _rsqrt,
    "aten.gelu.default": _gelu,
    "aten.silu.default": _operator(ops.swish),
    "aten.relu.default": _operator(ops.relu),
    "aten.tanh.default": _operator(ops.tanh),
    "aten.sigmoid.default": _operator(ops.sigmoid),
    "aten.cos.default": _operator(ops.cos),
    "aten.sin.default": _operator(ops.sin),
    "aten.add.Tensor": _operator(ops.add),
    "aten.sub.Tensor": _operator(ops.subtract),
    "aten.mul.Tensor": _operator(ops.multiply),
    "aten.div.Tensor": _operator(ops.divide),
    "aten.neg.default": _operator(ops.negative),
    "aten.pow.Tensor_Scalar": _operator(ops.power),
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.transpose.int": _transpose,
    "aten.split.Tensor": _split,
    "aten.slice.Tensor": _slice,
    "aten.cat.default": _cat,
    "aten.index.Tensor": _select,
    "getitem": _part,
    "aten.dropout.default": _same,  # networks are in evaluation
    "aten.contiguous.default": _same,
    "aten.clone.default": _same,
    "aten.alias.default": _same,
    "aten.to.dtype": _same,
    "aten.to.device": _same,
    "aten.to.dtype_layout": _same,
    "aten._to_copy.default": _same,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten.sym_size.int": _nothing,
}


def _target(node: Node) -> str:
    return str(getattr(node.target, "__name__", "")) if node.target is operator.getitem else str(node.target)


def given(node: Node) -> Any:
    """Its arguments; torch's type for them promises nothing."""
    return node.args


def _refuse(node: Node, is_unknown: bool) -> None:
    if is_unknown:
        raise UnknownOperation(f"{node.format_node()} is not known")


def _shape(node: Node) -> list[int]:
    """Of a value, -1 where it depends on the step."""
    sizes = [size if isinstance(size, int) else -1 for size in node.meta["val"].shape]
    _refuse(node, sizes.count(-1) > 1)
    return sizes


def _heads(node: Node) -> tuple[int, int]:
    """How many heads, and how wide, of shape (1, heads, tokens, width)."""
    _, count, _, width = node.meta["val"].shape
    return count, width
