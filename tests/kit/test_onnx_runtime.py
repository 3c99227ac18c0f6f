"""ONNX Runtime as the kit loads it."""

from __future__ import annotations

import os
import subprocess
import sys


def test_the_runtime_is_told_to_keep_quiet_before_it_is_loaded() -> None:
    """Where it could not keep an identifier of the machine it would complain, were it to make one; it does not."""
    homeless = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"), "/proc/none")
    quiet = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    loaded = subprocess.run(
        [sys.executable, "-c", "import kit.bert_onnx, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"],
        env=quiet | homeless, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert (loaded.returncode, loaded.stdout.strip()) == (0, "1"), loaded.stderr
    assert "telemetry" not in loaded.stderr
