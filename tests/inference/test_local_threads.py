"""The threads that torch takes."""

from __future__ import annotations

import os

from services.inference.engines.local_threads import SMALL_PARAMETER_COUNT, thread_count


def test_setting_wins() -> None:
    """A setting is taken as it is, whatever the model."""
    assert thread_count(3, 1) == thread_count(3, SMALL_PARAMETER_COUNT) == 3


def test_small_models_take_one_and_large_ones_every_core() -> None:
    """Without a setting a small model has one thread and a large one a thread for each core it may use."""
    assert thread_count(0, SMALL_PARAMETER_COUNT - 1) == 1
    assert thread_count(0, SMALL_PARAMETER_COUNT) == len(os.sched_getaffinity(0))
