"""Threads and torch: how many it takes for a model, and that models are loaded one at a time."""

from __future__ import annotations

import os
import threading

# Below this one thread is best. Its products are so small that a second thread brings 1.5 times at most on an idle
# machine, and where the cores are busy the two wait for each other: measured on two cores beside other processes, the
# embedded model made 7 tokens a second with two threads and 80 with one; 16 texts took MiniLM 1,070 ms and 87 ms.
SMALL_PARAMETER_COUNT = 50_000_000

# Held while a model is imported and loaded. Two threads that import transformers at once find it half made, and loading
# sets torch's default type for the whole process.
LOADING = threading.Lock()


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
