"""How threads of OpenMP, which torch computes with, wait for each other: a moment awake, then asleep.

By itself GNU's OpenMP has a thread that waits for work, or for the others' part of it, turn round 300,000 times first,
which takes 17 ms on a processor whose pause takes 140 cycles. Beside anything else, and a service's event loop is
always beside it, the idle thread holds the core that the working one needs: beside one busy process a GPT-2's step
took more than four times as long. Alone on a machine, sleeping costs 10 to 17 %. OpenMP looks once, while torch is
loaded; an environment that says otherwise is left as it is.
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
