"""How threads of OpenMP, which torch computes with, wait for each other: a moment awake, then asleep.

By itself GNU's OpenMP has a thread that waits for work, or for the others' part of it, turn round 300,000 times first,
which takes 17 ms on a processor whose pause takes 140 cycles. Alone on a machine that saves waking up. Beside anything
else, and a service's event loop is beside it always, the idle thread holds the core that the working one needs: a step
of a GPT-2 took twice the processor's time, and beside a busy process several times as long. OpenMP looks once, while
torch is loaded. An environment that says otherwise is left as it is.
"""

from __future__ import annotations

import os

# Rounds: more than lie between two operations of a model (some microseconds), fewer than a wake-up costs many times.
SPIN_COUNT = 1000
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def wait_asleep() -> None:
    """Says so to an OpenMP that is not loaded yet; before torch is imported."""
    if not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
