"""Sets a loaded model up for its thread: in a batch where the batch knows it, else one request after the other."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kit.process import give_memory_back
from services.inference.engines.local import linears, pace, probe
from services.inference.engines.local.attention import UnknownAttention
from services.inference.engines.local.batch import Batch
from services.inference.engines.local.extents import EXTENT_TOKENS_MIN
from services.inference.engines.local.grammar import Grammars
from services.inference.engines.local.loading import Progress
from services.inference.engines.local.machine import cache_bytes
from services.inference.engines.local.metrics import LocalMetrics
from services.inference.engines.local.model import LocalModel
from services.inference.engines.local.runner import Runner
from services.inference.engines.local.scheduler import Scheduler
from services.inference.engines.local.turns import Reader, Turns

if TYPE_CHECKING:
    from services.inference.engines.local.compiled import Compiled

logger = logging.getLogger(__name__)

# A cache for less than this could hold no conversation.
CACHE_TOKENS_MIN = 16 * EXTENT_TOKENS_MIN


@dataclass(frozen=True, slots=True)
class Serving:
    """A model that is ready, and what it can take."""

    model: LocalModel
    grammars: Grammars
    work: Batch | Turns
    token_count_max: int | None
    """Most tokens of one prompt and its answer; None: no bound."""


def serve(
    model: LocalModel,
    active_max: int,
    cache_mib: int,
    *,
    reuses_prefixes: bool = True,
    drafts: bool = True,
    int8: bool = False,
    metrics: LocalMetrics | None = None,
    progress: Progress | None = None,
) -> Serving:
    """Makes the work of a model; measures its pace, which takes a few steps."""
    try:
        token_bytes = probe.prepare(model.network)
    except UnknownAttention as error:
        logger.warning("this model is served one request at a time: %s", error, extra={"model": model.name})
        reader = Reader(model.network)
        reader.check()
        _pack(model, int8, progress)
        return Serving(model, Grammars(model), Turns(model, reader, active_max), model.context_token_count_max)
    threads = torch.get_num_threads()
    if _compile(model, int8, progress):
        token_bytes = model.network.token_bytes
    else:
        _pack(model, int8, progress)
    token_count = _token_count(model, active_max, cache_mib, token_bytes)
    runner = Runner(model.network, token_count)
    measured = pace.measure(runner.time_reading, runner.time_decoding)
    scheduler = Scheduler(
        token_count,
        active_max,
        measured.step_token_count,
        reuses_prefixes=reuses_prefixes,
        draft_count=measured.draft_count if drafts else None,
    )
    facts = {
        "model": model.name,
        "kv_cache_tokens": token_count,
        "kv_cache_mib": token_count * token_bytes >> 20,
        "step_ms": round(measured.step_s * 1e3, 2),
        "row_ms": round(measured.row_s * 1e3, 3),
        "token_ms": round(measured.token_s * 1e3, 3),
        "threads": threads,
        "precision": "int8" if int8 else str(model.network.dtype).removeprefix("torch."),
    }
    logger.info("local model is served in a batch", extra=facts)
    size_max = scheduler.extents.size_max
    token_count_max = min(model.context_token_count_max or size_max, size_max)
    batch = Batch(model, scheduler, runner, metrics, measured.observe)
    return Serving(model, Grammars(model), batch, token_count_max)


def _compile(model: LocalModel, int8: bool, progress: Progress | None) -> bool:
    """Has OpenVINO compute the network; False where that cannot be."""
    if model.device.type != "cpu" or model.network.dtype != torch.float32:
        return False
    compiled = _compiled(model, int8, progress)
    if compiled is not None:
        model.network = compiled
        # What is left to torch is to draw: beside other work its threads wait longer for each other than one takes.
        torch.set_num_threads(1)
    give_memory_back()  # a trace and its network hold each other
    return compiled is not None


def _compiled(model: LocalModel, int8: bool, progress: Progress | None) -> Compiled | None:
    """What computes as the network does; None where there is no runtime, or it computes something else."""
    try:
        from services.inference.engines.local.compiled import Compiled

        compiled = Compiled(model.network, int8=int8, threads=torch.get_num_threads(), progress=progress)
        probe.compare(model.network, compiled, int8=int8)
    except Exception as error:  # whatever a model's own code makes of being traced
        is_missing = isinstance(error, ModuleNotFoundError) and error.name == "openvino"  # this platform has none
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        level = logging.INFO if is_missing else logging.WARNING
        logger.log(level, "torch computes this model: %s", said, extra={"model": model.name})
        return None
    return compiled


def _pack(model: LocalModel, int8: bool, progress: Progress | None) -> None:
    """Lays the weights out for the processor; kernels of a GPU, and of 16 bits, want them as they are.

    So do those of a torch without oneDNN: macOS has no other.

    Raises:
        ValueError: Without oneDNN nothing is computed in int8.
    """
    if model.device.type != "cpu" or model.network.dtype != torch.float32:
        return
    if torch.backends.mkldnn.is_available():
        linears.pack(model.network, int8=int8, progress=progress)
    elif int8:
        raise ValueError("this build of torch has no oneDNN for int8; leave the precision to be chosen")


def _token_count(model: LocalModel, active_max: int, cache_mib: int, token_bytes: int) -> int:
    """Positions that fit the memory, and not more than all that can run at once could use."""
    affordable = _device_bytes(model.device, cache_mib) // token_bytes
    context = model.context_token_count_max
    usable = active_max * (1 << (context - 1).bit_length()) if context else affordable
    return max(min(affordable, usable), CACHE_TOKENS_MIN)


def _device_bytes(device: torch.device, cache_mib: int) -> int:
    if device.type == "cuda" and not cache_mib:
        # What is left of a card is for little else.
        return int(torch.cuda.mem_get_info(device)[0] * 0.8)
    return cache_bytes(cache_mib)
