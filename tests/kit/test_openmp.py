"""OpenMP, told how to wait before torch loads it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from kit import openmp

PROGRAM = "from kit import openmp; openmp.wait_asleep(); import torch"


def loaded(**settings: str) -> str:
    """What OpenMP says of itself in a process that loads torch."""
    environ = {name: value for name, value in os.environ.items() if name not in openmp.SETTINGS}
    environ |= {"OMP_DISPLAY_ENV": "VERBOSE"} | settings
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stderr


@pytest.mark.skipif(platform.system() != "Linux", reason="torch brings GNU's OpenMP on Linux only")
def test_torch_is_loaded_with_threads_that_sleep() -> None:
    """The OpenMP that torch brings has heard how long it may spin; what the environment says stands."""
    assert "GOMP_SPINCOUNT = '1000'" in loaded()
    assert "GOMP_SPINCOUNT = '77'" in loaded(GOMP_SPINCOUNT="77")


def test_a_policy_of_the_operator_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has chosen a policy for waiting is not overruled by a count."""
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")

    openmp.wait_asleep()

    assert "GOMP_SPINCOUNT" not in os.environ
