"""Operations of torch as operators of ONNX: those that lie between two attentions of a language model.

Products with a weight are what everything else serves. In 8 bits a weight has a scale for each output and each row of
the input one of its own, and sums are whole numbers: a row does not depend on its neighbours, bit for bit.
It knows nothing of models or sessions; what it does not know it refuses, and the model is then computed by torch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch.fx import Node

FUSED = "com.microsoft"
# The oldest versions that have all of the operators, and the format that goes with them.
OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid(FUSED, 1)]
IR_VERSION = 9
INT8_MAX = 127
# Inputs are unsigned for the kernels: 8 bits around this.
ZERO_POINT = 128
# So that a row of nothing but 0 divides by something.
SCALE_MIN = 1e-30
TYPES = {torch.float32: TensorProto.FLOAT, torch.int64: TensorProto.INT64}


class UnknownOperation(Exception):
    """The model does something between its attentions that is not known here."""


class Graph:
    """One graph as it is written."""

    def __init__(self, weights: Mapping[str, torch.Tensor], *, int8: bool) -> None:
        """`weights` by the name of their node."""
        self._weights, self._int8 = weights, int8
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._same: dict[str, str] = {}
        self._flat: dict[str, str] = {}
        self._rounded: dict[str, tuple[str, str]] = {}

    def add(self, node: Node) -> None:
        """Writes what makes the value of a node.

        Raises:
            UnknownOperation: Nothing here does.
        """
        write = WRITERS.get(_target(node))
        if write is None:
            raise UnknownOperation(f"{_target(node)} is not known")
        write(self, node)

    def model(self, inputs: list[Node], outputs: list[Node]) -> ModelProto:
        """The whole graph."""
        for node in outputs:
            if node.name in self._same:
                self.write("Identity", [self._same[node.name]], node.name)
        graph = helper.make_graph(
            self._nodes,
            "between_attentions",
            [_info(node) for node in inputs],
            [_info(node) for node in outputs],
            list(self._constants.values()),
        )
        return helper.make_model(graph, opset_imports=OPSETS, ir_version=IR_VERSION)

    def write(self, kind: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds an operator, and returns its first output: a name of its own where none is given."""
        made = list(outputs) or [f"step_{len(self._nodes)}"]
        self._nodes.append(helper.make_node(kind, inputs, made, domain=domain, **attributes))
        return made[0]

    def name(self, value: Any) -> str:
        """What an argument is called: a value, a weight or a number."""
        if not isinstance(value, Node):
            return self.constant(np.float32(value))
        if value.name in self._weights:
            return self._keep(value.name, lambda: self._weights[value.name].detach().numpy())
        return self._same.get(value.name, value.name)

    def take_over(self, node: Node, name: str) -> None:
        """Lets a node have the value that there is already."""
        self._same[node.name] = self._same.get(name, name)

    def rows(self, node: Node) -> str:
        """A value as rows, shape (rows, width)."""
        name = self.name(node)
        if len(_shape(node)) == 2:
            return name
        if name not in self._flat:
            self._flat[name] = self.write("Reshape", [name, self.constant(np.array([-1, _shape(node)[-1]]))])
        return self._flat[name]

    def constant(self, numbers: Any) -> str:
        """An array that is part of the graph."""
        array = np.asarray(numbers)
        return self._keep(f"constant_{array.dtype}_{array.tolist()}", lambda: array)

    def product(self, rows: str, weight: Node, bias: Node | None, *, is_turned: bool, output: str) -> None:
        """Rows, shape (rows, inputs), with a weight of shape (inputs, outputs), or (outputs, inputs) if turned."""
        matrix = self._weights[weight.name].detach()
        if self._int8:
            self._int8_product(rows, weight.name, matrix if is_turned else matrix.t(), bias, output)
            return
        added = [self.name(bias)] if bias is not None else []
        self.write("Gemm", [rows, self.name(weight), *added], output, transB=int(is_turned))

    def _int8_product(self, rows: str, name: str, weight: torch.Tensor, bias: Node | None, output: str) -> None:
        """`weight` has shape (outputs, inputs)."""
        scales = (weight.abs().amax(dim=1) / INT8_MAX).clamp_min(torch.finfo(torch.float32).tiny)
        matrix = self._keep(f"{name}_int8", lambda: torch.round(weight / scales[:, None]).to(torch.int8).t().numpy())
        scale = self._keep(f"{name}_scales", (scales / INT8_MAX).numpy)  # so that a row's own is its largest number
        rounded, largest = self._round(rows)
        parts = [rounded, matrix, self.constant(np.float32(1)), scale, self.constant(np.uint8(ZERO_POINT))]
        summed = self.write("MatMulIntegerToFloat", parts, domain=FUSED)
        if bias is None:
            self.write("Mul", [summed, largest], output)
        else:
            self.write("Add", [self.write("Mul", [summed, largest]), self.name(bias)], output)

    def _round(self, rows: str) -> tuple[str, str]:
        """Rows in 8 bits, and the largest number of each, shape (rows, 1); once, however many weights they meet."""
        if rows not in self._rounded:
            found = self.write("ReduceMax", [self.write("Abs", [rows]), self.constant(np.array([1], np.int64))])
            largest = self.write("Max", [found, self.constant(np.float32(SCALE_MIN))])
            factor = self.write("Div", [self.constant(np.float32(INT8_MAX)), largest])
            scaled = self.write("Mul", [rows, factor])
            middle = [self.constant(np.float32(1)), self.constant(np.uint8(ZERO_POINT))]
            self._rounded[rows] = self.write("QuantizeLinear", [scaled, *middle]), largest
        return self._rounded[rows]

    def _keep(self, name: str, make: Callable[[], Any]) -> str:
        if name not in self._constants:
            array = np.asarray(make())
            self._constants[name] = numpy_helper.from_array(np.require(array, requirements="C"), name)
        return name


Write = Callable[[Graph, Node], None]


def _operator(kind: str, domain: str = "", **attributes: Any) -> Write:
    """An operation that one operator does, with the same arguments."""

    def write(graph: Graph, node: Node) -> None:
        _refuse(node, bool(node.kwargs))
        graph.write(kind, [graph.name(value) for value in given(node)], node.name, domain=domain, **attributes)

    return write


def _linear(graph: Graph, node: Node) -> None:
    rows, weight, *bias = given(node)
    made = f"{node.name}_rows"
    graph.product(graph.rows(rows), weight, bias[0] if bias else None, is_turned=True, output=made)
    graph.write("Reshape", [made, graph.constant(np.array(_shape(node)))], node.name)


def _addmm(graph: Graph, node: Node) -> None:
    bias, rows, weight = given(node)
    _refuse(node, bool(node.kwargs))
    graph.product(graph.rows(rows), weight, bias, is_turned=False, output=node.name)


def _reshape(graph: Graph, node: Node) -> None:
    graph.write("Reshape", [graph.name(given(node)[0]), graph.constant(np.array(_shape(node)))], node.name)


def _transpose(graph: Graph, node: Node) -> None:
    value, one, other = given(node)
    order = list(range(len(_shape(node))))
    order[one], order[other] = order[other], order[one]
    graph.write("Transpose", [graph.name(value)], node.name, perm=order)


def _split(graph: Graph, node: Node) -> None:
    value, _, *axis = given(node)
    at = axis[0] if axis else 0
    parts = [f"{node.name}_{number}" for number in range(len(node.meta["val"]))]
    sizes = [part.shape[at] for part in node.meta["val"]]
    graph.write("Split", [graph.name(value), graph.constant(np.array(sizes))], *parts, axis=at)


def _part(graph: Graph, node: Node) -> None:
    value, number = given(node)
    graph.take_over(node, f"{graph.name(value)}_{number}")


def _same(graph: Graph, node: Node) -> None:
    source = given(node)[0]
    _refuse(node, source.meta["val"].dtype != node.meta["val"].dtype)
    graph.take_over(node, graph.name(source))


def _slice(graph: Graph, node: Node) -> None:
    value, axis, begin, end, *step = given(node)
    _refuse(node, bool(step) or not (isinstance(begin, int) and isinstance(end, int)))
    bounds = [graph.constant(np.array([number])) for number in (begin, end, axis)]
    graph.write("Slice", [graph.name(value), *bounds], node.name)


def _cat(graph: Graph, node: Node) -> None:
    values, *axis = given(node)
    names = [graph.name(value) for value in values]
    graph.write("Concat", names, node.name, axis=axis[0] if axis else 0)


def _mean(graph: Graph, node: Node) -> None:
    value, axes, *keeps = given(node)
    kept = int(bool(keeps and keeps[0]))
    graph.write("ReduceMean", [graph.name(value), graph.constant(np.array(axes))], node.name, keepdims=kept)


def _rsqrt(graph: Graph, node: Node) -> None:
    graph.write("Div", [graph.name(1.0), graph.write("Sqrt", [graph.name(given(node)[0])])], node.name)


def _layer_norm(graph: Graph, node: Node) -> None:
    value, shape, weight, bias, epsilon, *_ = given(node)
    _refuse(node, weight is None or bias is None or len(shape) != 1)
    names = [graph.name(part) for part in (value, weight, bias)]
    graph.write("LayerNormalization", names, node.name, axis=-1, epsilon=epsilon)


def _gelu(graph: Graph, node: Node) -> None:
    value = graph.name(given(node)[0])
    is_tanh = node.kwargs.get("approximate", "none") == "tanh"
    graph.write("FastGelu" if is_tanh else "Gelu", [value], node.name, domain=FUSED)


def _select(graph: Graph, node: Node) -> None:
    """Rows of the second dimension by their numbers: what a model keeps to make logits of."""
    value, indices = given(node)
    is_known = isinstance(indices, list) and len(indices) == 2 and indices[0] is None
    _refuse(node, not is_known)
    graph.write("Gather", [graph.name(value), graph.name(indices[1])], node.name, axis=1)


def _nothing(graph: Graph, node: Node) -> None:
    """What only checks, or tells sizes."""


WRITERS: dict[str, Write] = {
    "aten.linear.default": _linear,
    "aten.addmm.default": _addmm,
    "aten.layer_norm.default": _layer_norm,
    "aten.mean.dim": _mean,
    "aten.rsqrt.default": _rsqrt,
    "aten.gelu.default": _gelu,
    "aten.silu.default": _operator("QuickGelu", FUSED, alpha=1.0),
    "aten.relu.default": _operator("Relu"),
    "aten.tanh.default": _operator("Tanh"),
    "aten.sigmoid.default": _operator("Sigmoid"),
    "aten.add.Tensor": _operator("Add"),
    "aten.sub.Tensor": _operator("Sub"),
    "aten.mul.Tensor": _operator("Mul"),
    "aten.div.Tensor": _operator("Div"),
    "aten.neg.default": _operator("Neg"),
    "aten.pow.Tensor_Scalar": _operator("Pow"),
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


def _info(node: Node) -> ValueInfoProto:
    value = node.meta["val"]
    shape = [size if size >= 0 else None for size in _shape(node)]
    return helper.make_tensor_value_info(node.name, TYPES[value.dtype], shape)
