"""`python -m bench.openvino` with a scripted OpenVINO: its environment is not part of ours."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from bench.openvino import main
from services.inference.engines.local.model import EMBEDDED_DIRECTORY

LOADED = "print('loaded', flush=True)\n"
# 30 tokens per second in the first turn, 10 in each after.
ANSWERS = "import sys\nrates = iter([30.0] + [10.0] * 99)\nfor line in sys.stdin: print(next(rates), flush=True)\n"


@pytest.fixture
def asked(tmp_path: Path) -> argparse.Namespace:
    """Two rounds of one and of two callers, on the embedded model, in float32 only."""
    return argparse.Namespace(
        python=str(tmp_path / "python"),
        model=str(EMBEDDED_DIRECTORY),
        float32="converted",
        int8=None,
        concurrency="1,2",
        prompt_tokens=8,
        new_tokens=4,
        rounds=2,
        threads=1,
        no_drafts=False,
        json=tmp_path / "figures.json",
    )


def script(path: str, text: str) -> None:
    """Writes what stands for OpenVINO's Python: it does what it does whatever it is told to run."""
    Path(path).write_text(f"#!{sys.executable}\n{text}")
    Path(path).chmod(0o755)


def test_ratios_are_of_neighbouring_turns(asked: argparse.Namespace, capsys: pytest.CaptureFixture[str]) -> None:
    """A record for each engine and number of callers, without the turns that warm up, and ours over theirs."""
    script(asked.python, LOADED + ANSWERS)

    main(asked)

    records = json.loads(asked.json.read_text())
    assert [(one["engine"], one["concurrency"], one["rounds"]) for one in records] == [
        ("millrace", 1, 2),
        ("openvino-genai", 1, 2),
        ("millrace", 2, 2),
        ("openvino-genai", 2, 2),
    ]
    for ours, theirs in zip(records[::2], records[1::2], strict=True):
        assert (theirs["tokens_per_s"], theirs["tokens_per_s_max"], theirs["ratio"]) == (10.0, 10.0, 1.0)
        assert ours["ratio"] == pytest.approx(ours["tokens_per_s"] / 10.0, rel=0.02)
    assert "openvino-genai" in capsys.readouterr().out


def test_an_engine_that_ends_is_named(asked: argparse.Namespace) -> None:
    """An environment without the library ends the run, and no figure is written."""
    script(asked.python, "import sys\nsys.exit(1)\n")

    with pytest.raises(SystemExit, match="openvino-genai float32 has ended"):
        main(asked)

    assert not asked.json.exists()
