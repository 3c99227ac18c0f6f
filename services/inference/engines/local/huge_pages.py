"""Memory in pages of 2 MiB, for what every step reads from end to end: the weights and the KV cache.

In pages of 4 KiB the processor spends a tenth of a step on finding them. Whatever the system refuses, or does not know,
stays as it is: nothing but time depends on it.
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress
from pathlib import Path

import torch

HUGE_PAGE_BYTES = 2 << 20
# Linux 6.1: makes huge pages of memory that is in use, at once. Python's mmap has no name for it.
MADV_COLLAPSE = 25
MAPS = Path("/proc/self/maps")


def zeros(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Numbers on the processor that take no memory before they are written; shape (count,)."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(count, dtype=dtype)
    memory = mmap.mmap(-1, count * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)  # holds the memory for as long as it lives


def collapse(address: int, size: int) -> bool:
    """Moves bytes that are in use to huge pages, as far as whole ones fit; False where that was refused."""
    begin = -(-address // HUGE_PAGE_BYTES) * HUGE_PAGE_BYTES
    end = (address + size) // HUGE_PAGE_BYTES * HUGE_PAGE_BYTES
    if end <= begin:
        return True
    try:
        advise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):  # no such system
        return False
    return bool(advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_COLLAPSE) == 0)


def collapse_all() -> None:
    """Moves all memory of this process that is in use to huge pages: weights lie in it that others have laid out."""
    if not MAPS.exists():
        return
    for line in MAPS.read_text().splitlines():
        bounds, access, *_, inode = line.split()[:5]
        begin, end = (int(bound, 16) for bound in bounds.split("-"))
        if access == "rw-p" and inode == "0" and end - begin >= HUGE_PAGE_BYTES:
            collapse(begin, end - begin)
