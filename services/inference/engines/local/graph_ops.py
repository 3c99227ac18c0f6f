"""Operations of torch as operators of OpenVINO: all that a language model is made of, attention included.

Products with a weight are what everything else serves. It knows nothing of models or of steps; what it does not know it
refuses, and the model is then computed by torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from services.inference.engines.local import int8_products
from services.inference.engines.local.openvino_runtime import cache_parameter, ops, output, paged_attention, parameter
from services.inference.engines.local.traced_node import (
    UnknownOperation,
    arguments_of,
    given,
    heads_of,
    kind_of,
    operation,
    refuse,
    shape_of,
)

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
        write = WRITERS.get(operation(node))
        if write is None:
            raise UnknownOperation(f"{operation(node)} is not known")
        made = write(self, node)
        if made is not None:
            self._values[node.name] = made

    def value(self, value: Any, number: type = np.float32) -> Any:
        """What an argument is: a value, a weight or a number, of which kind is said."""
        if not isinstance(value, Node):
            return self.constant(number(value))
        if value.name in self._weights:
            return self._keep(value.name, self._weights[value.name].detach().numpy)
        return self._values[value.name]

    def constant(self, numbers: Any) -> Any:
        """An array that is part of the graph."""
        array = np.asarray(numbers)
        return self._keep(f"{array.dtype} {array.shape} {array.tolist()}", lambda: array)

    def product(self, node: Node, rows: Node, weight: Node, bias: Node | None, *, is_turned: bool) -> Any:
        """Rows, shape (..., inputs), with a weight of shape (inputs, outputs), or (outputs, inputs) if turned."""
        matrix = self._weights[weight.name].detach()
        width = matrix.shape[1 if is_turned else 0]
        self.input_counts.add(width)
        value = self.value(rows)
        # Rows are rows, however many dimensions say so.
        value = before if _sizes(before := _before(value))[-1:] == [width] else value
        if self._int8:
            made = self._int8_product(rows.name, value, weight.name, matrix if is_turned else matrix.t())
        else:
            made = ops.matmul(value, self.value(weight), False, is_turned)
        return self.reshaped(made if bias is None else ops.add(made, self.value(bias)), shape_of(node))

    def attention(self, node: Node) -> Any:
        """Attention of one layer, which keeps its keys and values in parameters of the graph."""
        query, key, value, index, scaling = given(node)
        refuse(node, scaling is None)
        caches = []
        for kind in ("key", "value"):
            name = f"{CACHES}.{kind}.{index}"
            refuse(node, name in self.parameters)
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
            heads_of(key),
            heads_of(value),
        )
        return self.reshaped(made, shape_of(node))

    def reshaped(self, value: Any, sizes: list[int]) -> Any:
        """A value in another shape, of which one size at most is -1; itself, or what it was before, where that has it.

        A step with another number of tokens gives every operator its shape anew: so there are few.
        """
        before = _before(value)
        if _sizes(before) == sizes:
            return before
        return ops.reshape(before, self.constant(np.array(sizes)), False)

    def _rows(self, node: Node) -> Any:
        """What meets in attention, shape (1, heads, tokens, width), as rows: (tokens, heads * width)."""
        heads, width = heads_of(node)
        if str(node.target) == "aten.transpose.int" and node.args[1:] == (1, 2):  # as it lay before
            turned = self.value(given(node)[0])
        else:
            turned = ops.transpose(self.value(node), self.constant(np.array([0, 2, 1, 3])))
        return self.reshaped(turned, [-1, heads * width])

    def _int8_product(self, rows_name: str, rows: Any, name: str, matrix: torch.Tensor) -> Any:
        """Rows with a weight of shape (outputs, inputs), both in 8 bits."""
        weight = self._once(f"{name} in 8 bits", lambda: int8_products.weight(matrix))
        if not int8_products.is_tiled(matrix):  # the runtime rounds the rows
            return ops.matmul(rows, weight, False, True)
        rounded, scales = self._once(f"{rows_name} in 8 bits", lambda: int8_products.rounded(rows))
        return ops.multiply(ops.matmul(rounded, weight, False, True), scales)

    def _keep(self, name: str, make: Callable[[], Any]) -> Any:
        return self._once(name, lambda: ops.constant(np.require(make(), requirements="C"), shared_memory=True))

    def _once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._constants:
            self._constants[name] = make()
        return self._constants[name]


Write = Callable[[Graph, Node], Any]


def _operator(make: Callable[..., Any]) -> Write:
    """An operation that one operator does, with the same arguments; whole numbers stay whole, or it is not known."""

    def write(graph: Graph, node: Node) -> Any:
        values = given(node)
        is_float = any(isinstance(value, Node) and kind_of(value).is_floating_point for value in values)
        makes_float = kind_of(node).is_floating_point or any(isinstance(value, float) for value in values)
        refuse(node, bool(node.kwargs) or (makes_float and not is_float))
        return make(*(graph.value(value, np.float32 if is_float else np.int32) for value in values))

    return write


def _function(make: Callable[[Any], Any]) -> Write:
    """An operation on one value of broken numbers and nothing else."""

    def write(graph: Graph, node: Node) -> Any:
        (value,) = arguments_of(node, None)
        refuse(node, not kind_of(value).is_floating_point)
        return make(graph.value(value))

    return write


def _expm1(value: Any) -> Any:
    """Without the difference of two numbers near 1."""
    return ops.multiply(ops.tanh(ops.multiply(value, np.float32(0.5))), ops.add(ops.exp(value), np.float32(1)))


def _embedding(graph: Graph, node: Node) -> Any:
    """Rows by number. The runtime finds one for every number: that a token is known is checked where prompts come in,
    and no answer is longer than the positions that a model's configuration promises.
    """
    weight, ids, *_ = given(node)
    return ops.gather(graph.value(weight), graph.value(ids), graph.constant(np.int32(0)))


def _linear(graph: Graph, node: Node) -> Any:
    rows, weight, *bias = given(node)
    return graph.product(node, rows, weight, bias[0] if bias else None, is_turned=True)


def _addmm(graph: Graph, node: Node) -> Any:
    bias, rows, weight = arguments_of(node, None, None, None)
    return graph.product(node, rows, weight, bias, is_turned=False)


def _reshape(graph: Graph, node: Node) -> Any:
    return graph.reshaped(graph.value(given(node)[0]), shape_of(node))


def _transpose(graph: Graph, node: Node) -> Any:
    value, one, other = given(node)
    order = list(range(len(shape_of(node))))
    order[one], order[other] = order[other], order[one]
    return ops.transpose(graph.value(value), graph.constant(np.array(order)))


def _split(graph: Graph, node: Node) -> Any:
    value, _, at = arguments_of(node, None, None, 0)
    sizes = [part.shape[at] for part in node.meta["val"]]
    refuse(node, not all(isinstance(size, int) for size in sizes))
    return ops.variadic_split(
        graph.value(value), graph.constant(np.int64(at)), graph.constant(np.array(sizes))
    ).outputs()


def _part(graph: Graph, node: Node) -> Any:
    value, number = arguments_of(node, None, None)
    parts = graph.value(value)
    refuse(node, not (isinstance(parts, list) and isinstance(number, int)))
    return parts[number]


def _at(graph: Graph, node: Node) -> Any:
    value, axis, number = arguments_of(node, None, None, None)
    refuse(node, not isinstance(number, int))
    return ops.gather(graph.value(value), graph.constant(np.int32(number)), graph.constant(np.int32(axis)))


def _repeat(graph: Graph, node: Node) -> Any:
    """Each of the last dimension so many times, one beside the other."""
    value, count, axis = arguments_of(node, None, None, None)
    sizes = shape_of(value)
    refuse(node, axis not in (-1, len(sizes) - 1) or sizes[-1] < 0 or not isinstance(count, int))
    sources = graph.constant(np.repeat(np.arange(sizes[-1]), count))
    return ops.gather(graph.value(value), sources, graph.constant(np.int32(-1)))


def _same(graph: Graph, node: Node) -> Any:
    source = given(node)[0]
    is_same = kind_of(source) == kind_of(node)
    refuse(node, not is_same and kind_of(node) != torch.float32)
    return graph.value(source) if is_same else ops.convert(graph.value(source), np.float32)


def _slice(graph: Graph, node: Node) -> Any:
    value, *numbers = arguments_of(node, None, 0, None, None, 1)
    refuse(node, not all(isinstance(number, int) for number in numbers))
    axes, begins, ends, steps = (graph.constant(np.array([number])) for number in numbers)
    return ops.slice(graph.value(value), begins, ends, steps, axes)


def _cat(graph: Graph, node: Node) -> Any:
    values, axis = arguments_of(node, None, 0)
    made = [graph.value(value) for value in values]
    if operation(node) == "aten.stack.default":
        made = [ops.unsqueeze(value, graph.constant(np.int32(axis))) for value in made]
    return ops.concat(made, axis)


def _mean(graph: Graph, node: Node) -> Any:
    value, axes, keeps = arguments_of(node, None, None, False)
    refuse(node, not axes)
    return ops.reduce_mean(graph.value(value), graph.constant(np.array(axes)), keeps)


def _layer_norm(graph: Graph, node: Node) -> Any:
    value, shape, weight, bias, epsilon, _ = arguments_of(node, None, None, None, None, 1e-5, True)
    refuse(node, len(shape) != 1)
    made = ops.mvn(graph.value(value), graph.constant(np.array([-1])), True, epsilon, "inside_sqrt")
    made = made if weight is None else ops.multiply(made, graph.value(weight))
    return made if bias is None else ops.add(made, graph.value(bias))


def _gelu(graph: Graph, node: Node) -> Any:
    (value,), options = given(node), dict(node.kwargs)
    kind = str(options.pop("approximate", "none"))
    refuse(node, kind not in ("none", "tanh") or bool(options))
    return ops.gelu(graph.value(value), "tanh" if kind == "tanh" else "erf")


def _select(graph: Graph, node: Node) -> Any:
    """Rows of the second dimension by their numbers: what a model keeps to make logits of."""
    value, indices = given(node)
    is_known = isinstance(indices, list) and len(indices) == 2 and indices[0] is None
    refuse(node, not is_known)
    return ops.gather(graph.value(value), graph.value(indices[1]), graph.constant(np.int32(1)))


def _nothing(graph: Graph, node: Node) -> None:
    """What only checks, or tells sizes."""


def _unread(graph: Graph, node: Node) -> None:
    """What a model makes and has no use for in a step: a mask, where positions are given."""
    refuse(node, bool(node.users))


WRITERS: dict[str, Write] = {
    "millrace.attend.default": Graph.attention,
    "aten.embedding.default": _embedding,
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.layer_norm.default": _layer_norm,
    "aten.mean.dim": _mean,
    "aten.rsqrt.default": _function(lambda value: ops.divide(np.float32(1), ops.sqrt(value))),
    "aten.square.default": _function(lambda value: ops.multiply(value, value)),
    "aten.expm1.default": _function(_expm1),
    "aten.softplus.default": _function(ops.softplus),
    "aten.gelu.default": _gelu,
    "aten.silu.default": _function(ops.swish),
    "aten.relu.default": _function(ops.relu),
    "aten.tanh.default": _function(ops.tanh),
    "aten.sigmoid.default": _function(ops.sigmoid),
    "aten.cos.default": _function(ops.cos),
    "aten.sin.default": _function(ops.sin),
    "aten.add.Tensor": _operator(ops.add),
    "aten.sub.Tensor": _operator(ops.subtract),
    "aten.mul.Tensor": _operator(ops.multiply),
    "aten.div.Tensor": _operator(ops.divide),
    "aten.neg.default": _function(ops.negative),
    "aten.pow.Tensor_Scalar": _operator(ops.power),
    "aten.min.other": _operator(ops.minimum),
    "aten.gt.Scalar": _operator(ops.greater),
    "aten.where.self": _operator(ops.select),
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.flatten.using_ints": _reshape,
    "aten.transpose.int": _transpose,
    "aten.split.Tensor": _split,
    "aten.split_with_sizes.default": _split,
    "aten.chunk.default": _split,
    "aten.select.int": _at,
    "aten.repeat_interleave.self_int": _repeat,
    "aten.slice.Tensor": _slice,
    "aten.cat.default": _cat,
    "aten.stack.default": _cat,
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
    "aten.type_as.default": _same,
    "aten.ones.default": _unread,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten.sym_size.int": _nothing,
}


def _before(value: Any) -> Any:
    """What a value was before it was reshaped."""
    before = output(value)
    while (node := before.get_node()).get_type_name() == "Reshape":
        before = node.input_value(0)
    return before


def _sizes(value: Any) -> list[int]:
    """Of what the graph makes, -1 where it depends on the step."""
    return [size.get_length() if size.is_static else -1 for size in value.get_partial_shape()]
