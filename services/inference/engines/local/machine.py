"""What the machine gives a model: threads, memory for its cache, and that models are loaded one at a time."""

from __future__ import annotations

import os
import threading
from pathlib import Path

# Below this one thread is best. Its products are so small that a second thread brings 1.5 times at most on an idle
# machine, and where the cores are busy the two wait for each other: measured on two cores beside other processes, the
# embedded model made 7 tokens a second with two threads and 80 with one; 16 texts took MiniLM 1,070 ms and 87 ms.
SMALL_PARAMETER_COUNT = 50_000_000

# Held while a model is imported and loaded. Two threads that import transformers at once find it half made, and loading
# sets torch's default type for the whole process.
LOADING = threading.Lock()

# Of the memory that is free once a model is loaded, its cache may take this much, and never more than the second
# figure, which holds 58,000 tokens of a GPT-2: on one machine there are other services and other models.
CACHE_SHARE = 0.25
CACHE_BYTES_MAX = 4 << 30
MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def thread_count(setting: int, parameter_count: int) -> int:
    """Returns the setting, or where it is 0 what suits the model: one thread, or one for each core."""
    if setting:
        return setting
    return 1 if parameter_count < SMALL_PARAMETER_COUNT else core_count()


def core_count() -> int:
    """Cores that this process may use; where the system does not tell, those that there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache_bytes(setting_mib: int) -> int:
    """Returns the setting in bytes, or where it is 0 a share of the memory that this process may still take."""
    return setting_mib << 20 if setting_mib else min(int(_free_bytes() * CACHE_SHARE), CACHE_BYTES_MAX)


def _free_bytes() -> int:
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if MEMINFO.exists():
        free = next(int(line.split()[1]) << 10 for line in MEMINFO.open() if line.startswith("MemAvailable"))
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)
