"""Memory in pages of 2 MiB that takes none before it is written: the KV cache, which every step reads.

Where the system has no such pages, nothing but time depends on it.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import torch


def zeros(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers on the processor; shape (count,)."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(count, dtype=dtype)
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)  # holds the memory for as long as it lives
