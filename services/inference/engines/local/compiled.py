"""A network's own forward, traced once and computed by ONNX Runtime in pieces, with our attention between them.

torch computes a step of a language model in a thousand operations, each started from Python, and many of them wake
threads that have just gone to sleep. Here all operations between two attentions are one call of a session, whose
threads stay awake for as long as it lasts and share the work out as they get on. The trace is torch's own export of the
model's code. It never guesses: what it does not know it refuses, and torch computes the model. Processors only.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export
from torch.fx import Graph as TorchGraph
from torch.fx import GraphModule, Node

from kit import huge_pages
from kit.onnx_runtime import onnxruntime as ort
from services.inference.engines.local import attention
from services.inference.engines.local.graph_ops import TYPES, Graph, UnknownOperation, given
from services.inference.engines.local.loading import Progress

# Where the first piece begins: what comes before it (embeddings, the angles of positions) torch computes.
HEAVY = {"aten.linear.default", "aten.addmm.default", "aten.layer_norm.default"}
TRACED_TOKENS = 24
ATTEND = torch.ops.millrace.attend.default
# So long a thread stays awake that finds nothing to do: longer than lies between two operators, and a moment to
# whoever else wants the core.
SPIN_US = 100
# Each layer's session has threads of its own.
THREADS_MAX = 16


class Compiled:
    """A network that computes steps."""

    def __init__(self, network: Any, *, int8: bool, threads: int, progress: Progress | None = None) -> None:
        """Traces a network that has our attention; its weights are copied.

        Raises:
            UnknownOperation: The network cannot be computed so.
        """
        self.device, self.dtype, self.config = network.device, network.dtype, network.config
        program = _trace(network)
        weights = _weights(program)
        stages = _stages(program, set(weights))
        self._prologue, self._names = _prologue(program, stages, weights)
        *_, kept = (node for node in program.graph.nodes if node.op == "placeholder")
        count = max(stages.values()) + 1
        numbers = progress.count(range(count)) if progress else range(count)
        *self._pieces, self._last = [
            Piece(*_members(stages, number), kept, weights, int8=int8, threads=threads) for number in numbers
        ]
        huge_pages.collapse_all()
        (self._answer,) = self._last.outputs
        # What is still read after each piece: the rest is let go at once, for the next to be made where it was.
        later = [{node.name for node in piece.inputs} for piece in (*self._pieces[1:], self._last)]
        self._needed = [{"kept"}.union(*later[number:]) for number in range(len(later))]

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        logits_to_keep: torch.Tensor,
        step: attention.Step,
        **_: Any,
    ) -> SimpleNamespace:
        """Computes a step, as the network does; the answer has `logits`, shape (1, kept, vocabulary)."""
        values = dict(zip(self._names, self._prologue(input_ids, position_ids, logits_to_keep), strict=True))
        for piece, needed in zip(self._pieces, self._needed, strict=True):
            piece.run(values, step)
            values = {name: values[name] for name in needed if name in values}
        if len(logits_to_keep):
            self._last.run(values, step)
        else:  # prompts are read on, and their last layer has kept what it must
            values[self._answer.name] = torch.empty(1, 0, self._answer.meta["val"].shape[-1])
        return SimpleNamespace(logits=values[self._answer.name])


class Piece:
    """The operations between two attentions as one session, and the attention that follows them."""

    def __init__(
        self,
        nodes: list[Node],
        follower: Node | None,
        kept: Node,
        weights: dict[str, torch.Tensor],
        *,
        int8: bool,
        threads: int,
    ) -> None:
        """`follower` is the attention; None: logits are what it makes."""
        self._follower = follower
        self._arguments: Any = () if follower is None else given(follower)
        # Views that only attention reads stay with torch, which copies nothing for them.
        self._turned: dict[str, str] = {
            node.name: given(node)[0].name
            for node in self._arguments[:3]
            if str(node.target) == "aten.transpose.int" and node.args[1:] == (1, 2) and len(node.users) == 1
        }
        nodes = [node for node in nodes if node.name not in self._turned]
        inside = set(nodes)
        used = dict.fromkeys(source for node in nodes for source in node.all_input_nodes)
        self.inputs = [
            node
            for node in used
            if node not in inside and node.name not in weights and isinstance(node.meta["val"], torch.Tensor)
        ]
        self.outputs = [node for node in nodes if any(user not in inside for user in node.users)]
        graph = Graph(weights, int8=int8)
        for node in nodes:
            graph.add(node)
        self._session = _session(graph.model(self.inputs, self.outputs).SerializeToString(), threads)
        self._binding = self._session.io_binding()
        # Of each output; what a size follows where it depends on the step.
        kept_size = str(kept.meta["val"].shape[0])
        self._shapes = [
            [
                size if isinstance(size, int) else "kept" if str(size) == kept_size else "tokens"
                for size in node.meta["val"].shape
            ]
            for node in self.outputs
        ]

    def run(self, values: dict[str, torch.Tensor], step: attention.Step) -> None:
        """Adds what it makes to the values of a step, by the names of their nodes."""
        counts = {"tokens": len(step.positions), "kept": len(values["kept"])}
        for node in self.inputs:
            tensor = values[node.name].contiguous()
            values[node.name] = tensor
            self._binding.bind_input(node.name, "cpu", 0, TYPES[tensor.dtype], tensor.shape, tensor.data_ptr())
        for node, sizes in zip(self.outputs, self._shapes, strict=True):
            shape = [counts[size] if isinstance(size, str) else size for size in sizes]
            tensor = values[node.name] = torch.empty(shape)
            self._binding.bind_output(node.name, "cpu", 0, TYPES[tensor.dtype], shape, tensor.data_ptr())
        self._session.run_with_iobinding(self._binding)
        if self._follower is not None:
            query, key, value = (self._part(values, node.name) for node in self._arguments[:3])
            index, scaling = self._arguments[3:]
            values[self._follower.name] = attention.compute(step, index, query, key, value, scaling)

    def _part(self, values: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        return values[self._turned[name]].transpose(1, 2) if name in self._turned else values[name]


class _Traceable(nn.Module):
    """The network with the arguments that a step has."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, ids: torch.Tensor, positions: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(
            input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=kept, step=attention.Traced()
        ).logits
        return logits


def _trace(network: Any) -> ExportedProgram:
    ids = torch.arange(TRACED_TOKENS)[None]
    kept = torch.tensor([1, 3, 5])
    sizes: Any = ({1: Dim("tokens")}, {1: Dim("tokens")}, {0: Dim("kept")})
    with torch.no_grad():
        return export(_Traceable(network), (ids, ids.clone(), kept), dynamic_shapes=sizes, strict=False)


def _weights(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """Of each node that stands for one."""
    signature = program.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    held = {**program.constants, **program.state_dict}
    lifted = signature.inputs_to_lifted_tensor_constants
    return {name: held[source] for name, source in {**named, **lifted}.items()}


def _stages(program: ExportedProgram, weights: set[str]) -> dict[Node, int]:
    """Which piece computes each node: the one after all attentions that it needs; -1: none, torch before the first."""
    stages: dict[Node, int] = {}
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        after = [
            stages.get(source, -1) + (source.target is ATTEND)
            for source in node.all_input_nodes
            if source.name not in weights
        ]
        stage = max(after, default=-1)
        stages[node] = max(stage, 0) if str(node.target) in HEAVY or node.target is ATTEND else stage
    return stages


def _members(stages: dict[Node, int], number: int) -> tuple[list[Node], Node | None]:
    """The nodes of a piece, and the attention that follows it."""
    nodes = [node for node, stage in stages.items() if stage == number]
    followers = [node for node in nodes if node.target is ATTEND]
    if len(followers) > 1:
        raise UnknownOperation("attentions stand side by side")
    return [node for node in nodes if node.target is not ATTEND], followers[0] if followers else None


def _prologue(
    program: ExportedProgram, stages: dict[Node, int], weights: dict[str, torch.Tensor]
) -> tuple[GraphModule, list[str]]:
    """What torch computes before the first piece, and the names of what it returns: all that any piece needs of it."""
    graph, root, copies = TorchGraph(), nn.Module(), {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in weights:
            if any(stages.get(user) == -1 for user in node.users):
                root.register_buffer(node.name, weights[node.name].detach())
                copies[node] = graph.get_attr(node.name)
        elif node.op == "placeholder":
            copies[node] = graph.placeholder(node.name)
        elif stages.get(node) == -1 and node.users:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    made = [
        node
        for node in copies
        if node.name not in weights
        and isinstance(node.meta["val"], torch.Tensor)
        and any(stages.get(user, -1) >= 0 for user in node.users)
    ]
    graph.output(tuple(copies[node] for node in made))
    graph.eliminate_dead_code()
    return GraphModule(root, graph), [node.name for node in made]


def _session(model: bytes, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = min(threads, THREADS_MAX)
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # it keeps one for each size of a step
    options.enable_cpu_mem_arena = False  # each session would keep its own for the largest step
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without VNNI the sums of products in 8 bits would overflow; where the processor has it nothing changes.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    session._model_bytes = None  # It keeps all weights a second time, as they were written, and never reads them.
    return session
