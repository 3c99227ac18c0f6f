"""OpenVINO's runtime, imported so that it tells nobody of it.

`import openvino` brings the package's converter with it, which first of all counts the import with a server of Google's
and in a file in the home directory, where `openvino-telemetry` is installed, as the package asks. Where that is missing
the converter is silent; so it is missing here. Whoever imports the package first decides that: import it only here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

TELEMETRY = "openvino_telemetry"


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Lets an import of a module fail within the block."""
    before = sys.modules.get(module)
    sys.modules[module] = None  # type: ignore[assignment]  # how Python spells it
    try:
        yield
    finally:
        if before is None:
            del sys.modules[module]
        else:
            sys.modules[module] = before


with _without(TELEMETRY):
    import openvino
    from openvino import opset13 as ops
    from openvino.op import Parameter, _PagedAttentionExtension

__all__ = ["cache_parameter", "compile_model", "openvino", "ops", "output", "paged_attention", "parameter"]


# Once and for as long as the process lives, made where no two threads can make it: the runtime gives the thread that
# first compiles a stack for signals, and unmaps that when a core and all its models are let go. If another thread does
# that, the first one's next signal finds no stack, and the process dies of it (2026.4).
_CORE = openvino.Core()


def compile_model(model: Any, settings: Mapping[str, Any]) -> Any:
    """Compiles a graph for the processor, with settings by the runtime's own names."""
    return _CORE.compile_model(model, "CPU", dict(settings))


def parameter(name: str, rank: int, kind: str = "i32") -> Any:
    """An input of any sizes."""
    made = Parameter(
        getattr(openvino.Type, kind), openvino.PartialShape.dynamic(rank) if rank else openvino.PartialShape([])
    )
    made.set_friendly_name(name)
    made.output(0).set_names({name})
    return made


def cache_parameter(name: str) -> Any:
    """An input that keeps keys or values; how they lie there the runtime decides when it compiles."""
    return parameter(name, 4, "dynamic")


def paged_attention(inputs: Sequence[Any], key_heads: tuple[int, int], value_heads: tuple[int, int]) -> Any:
    """Attention over keys and values in blocks; of both how many heads there are, and how wide."""
    made = _PagedAttentionExtension([output(one) for one in inputs])
    known = made.get_rt_info()
    known["num_k_heads"], known["k_head_size"] = key_heads
    known["num_v_heads"], known["v_head_size"] = value_heads
    return made.output(0)


def output(made: Any) -> Any:
    """What an operator makes, of which most make one thing."""
    return made.output(0) if isinstance(made, openvino.Node) else made
