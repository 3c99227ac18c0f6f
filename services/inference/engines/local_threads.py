"""How many threads torch takes for a model."""

from __future__ import annotations

import os

# Below this one thread is best. Its products are so small that a second thread brings 1.5 times at most on an idle
# machine, and where the cores are busy the two wait for each other: measured on two cores beside other processes, the
# embedded model made 7 tokens a second with two threads and 80 with one; 16 texts took MiniLM 1,070 ms and 87 ms.
SMALL_PARAMETER_COUNT = 50_000_000


def thread_count(setting: int, parameter_count: int) -> int:
    """Returns the setting, or where it is 0 what suits the model: one thread, or one for each core."""
    if setting:
        return setting
    return 1 if parameter_count < SMALL_PARAMETER_COUNT else len(os.sched_getaffinity(0))
