"""A network's own forward, traced once and computed by OpenVINO in one call a step.

torch computes a step of a language model in a thousand operations, each started from Python, and many of them wake
threads that have just gone to sleep. The runtime has them as one graph: it lays out weights for its kernels, joins what
belongs together, and its paged attention reads keys and values by blocks, of which our extents are runs. The trace is
torch's own export of the model's code. It never guesses: what it does not know it refuses, and torch computes the
model. Processors only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import Dim, ExportedProgram, export

from kit import huge_pages
from services.inference.engines.local import attention, paged_cache
from services.inference.engines.local.graph_ops import CACHES, Graph
from services.inference.engines.local.loading import Progress
from services.inference.engines.local.openvino_runtime import compile_model, openvino, ops, parameter
from services.inference.engines.local.paged_cache import PagedCache, PagedStep
from services.inference.engines.local.traced_node import given

TRACED_TOKENS = 24
# Numbers of a token that one scale rounds to 8 bits. By itself the runtime takes 32: steps of a GPT-2 of 124M are
# 10 to 20 % quicker with 128, no quicker with 768. It must divide every width, or nothing is rounded.
GROUP_INPUTS_MAX = 128
NETWORK_INPUTS = ("input_ids", "position_ids", "logits_to_keep")


class Compiled:
    """A network that computes steps."""

    def __init__(self, network: Any, *, int8: bool, threads: int, progress: Progress | None = None) -> None:
        """Traces a network that has our attention; its weights are copied.

        Raises:
            UnknownOperation: The network cannot be computed so.
        """
        self.device, self.dtype, self.config = network.device, network.dtype, network.config
        made: Any = network
        stages: list[Callable[[Any], Any]] = [
            _trace,
            partial(_graph, int8=int8),
            partial(_compile, int8=int8, threads=threads),
        ]
        for stage in progress.count(stages) if progress else stages:
            made = stage(made)
        self._request = made.create_infer_request()
        self._layers = {name: port for port in made.inputs if (name := port.get_any_name()).startswith(CACHES)}
        paged_cache.check(self._layers)
        self._inputs = {name: _input(port) for port in made.inputs if (name := port.get_any_name()) not in self._layers}
        for name, tensor in self._inputs.items():
            self._request.set_tensor(name, tensor)
        self._vocabulary_size = int(made.outputs[0].get_partial_shape()[2].get_length())
        self._bound: PagedCache | None = None
        huge_pages.collapse_all()

    @property
    def token_bytes(self) -> int:
        """Bytes of one position of a cache in all layers."""
        return paged_cache.token_bytes(self._layers)

    def make_cache(self, token_count: int) -> PagedCache:
        """A cache for so many positions, as this network keeps them."""
        return PagedCache(self._layers, token_count)

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        logits_to_keep: torch.Tensor,
        step: PagedStep,
        **_: Any,
    ) -> SimpleNamespace:
        """Computes a step, as the network does; the answer has `logits`, shape (1, kept, vocabulary)."""
        if step.cache is not self._bound:
            self._bound = step.cache
            for name, tensor in step.cache.tensors.items():
                self._request.set_tensor(name, tensor)
        for name, numbers in zip(NETWORK_INPUTS, (input_ids, position_ids, logits_to_keep), strict=True):
            self._set(name, numbers.flatten().numpy())
        for name, array in step.inputs.items():
            self._set(name, array)
        logits = torch.empty(1, len(logits_to_keep), self._vocabulary_size)
        if len(logits_to_keep):
            self._request.set_output_tensor(0, openvino.Tensor(logits.numpy(), shared_memory=True))
        self._request.start_async()
        self._request.wait()
        return SimpleNamespace(logits=logits)

    def _set(self, name: str, numbers: Any) -> None:
        """Fills an input; a new tensor for each would take twice as long."""
        tensor = self._inputs[name]
        tensor.shape = numbers.shape
        tensor.data[...] = numbers


def _input(port: Any) -> Any:
    """What an input of whole numbers is filled in."""
    return openvino.Tensor(port.get_element_type(), openvino.Shape([0] * len(port.get_partial_shape())))


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


def _graph(program: ExportedProgram, *, int8: bool) -> tuple[Any, int]:
    """The whole of it as one graph, from ids to logits, and the size of the groups for 8 bits."""
    weights = _weights(program)
    nodes = list(program.graph.nodes)
    own = [node for node in nodes if node.op == "placeholder" and node.name not in weights]
    parameters = [parameter(name, 1) for name in NETWORK_INPUTS]
    ids, positions, kept = parameters
    as_batch = ops.constant(np.array([1, -1]))
    inputs = (ops.reshape(ids, as_batch, False), ops.reshape(positions, as_batch, False), kept)
    graph = Graph(weights, {node.name: value for node, value in zip(own, inputs, strict=True)}, int8=int8)
    for node in nodes:
        if node.op == "call_function":
            graph.add(node)
    (answer,) = given(nodes[-1])[0]
    model = openvino.Model([graph.value(answer)], [*parameters, *graph.parameters.values()], "step")
    return model, math.gcd(GROUP_INPUTS_MAX, *graph.input_counts)


def _compile(made: tuple[Any, int], *, int8: bool, threads: int) -> Any:
    model, group_inputs = made
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",  # by itself it takes bfloat16 where the processor has it
        "KV_CACHE_PRECISION": "u8" if int8 else "f32",
        "KEY_CACHE_QUANT_MODE": "BY_TOKEN",  # by channel keys of one block would depend on when they came
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group_inputs,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # the services of a host share its cores
    }
    return compile_model(model, settings)
