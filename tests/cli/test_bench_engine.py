"""`millrace bench engine` on a small model, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cli.__main__ import main
from cli.bench_engine.record import Answer, Limits, record

FIELDS = {"engine", "precision", "concurrency", "tokens_per_s", "ttft_p50_ms", "itl_p50_ms", "itl_p99_ms"}


def test_figures_come_from_the_times_of_tokens() -> None:
    """Throughput is over the whole run, times between tokens are within answers, and goodput counts who kept both."""
    fast = Answer(0.0, [0.1, 0.2, 0.3])
    slow = Answer(0.0, [1.0, 1.5, 2.0])

    one = record("e", "float32", 2, [fast, slow], Limits(ttft_ms=500, itl_ms=200), cpu_s=0.6)

    assert one["tokens_per_s"] == 3.0
    assert one["ttft_p50_ms"] == 1000.0
    assert (one["itl_p50_ms"], one["itl_p99_ms"]) == (500.0, 500.0)
    assert one["goodput_per_s"] == 0.5
    assert one["cpu_ms_per_token"] == 100.0


def test_every_engine_has_a_record_for_each_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is a list of flat records: the machine, Millrace by precision, and the peers asked for."""
    out = tmp_path / "figures.json"
    asked = ["--model", "embedded", "--concurrency", "1,3", "--prompt-tokens", "12", "--new-tokens", "6"]
    more = ["--rounds", "1", "--threads", "1", "--precision", "float32,int8", "--json", str(out)]
    peers = ["--peer", "generate", "--peer", "cb"]

    assert main(["bench", "engine", *asked, *more, *peers, "--long-prompt", "100"]) == 0

    records = json.loads(out.read_text())
    assert all(set(one) >= FIELDS for one in records)
    assert {(one["engine"], one["precision"], one["concurrency"]) for one in records} == {
        (engine, precision, level)
        for level in (1, 3)
        for engine, precision in (
            ("machine limit", "float32"),
            ("millrace", "float32"),
            ("millrace +100", "float32"),
            ("millrace", "int8"),
            ("millrace +100", "int8"),
            ("generate", "float32"),
            ("cb", "float32"),
        )
    }
    assert all(one["answers"] == one["concurrency"] for one in records if one["engine"] == "cb")
    assert all(one["itl_p50_ms"] > 0 for one in records if one["engine"] == "cb")
    assert all(one["tokens_per_s"] > 0 for one in records)
    printed = capsys.readouterr().out
    assert "tok/s" in printed
    assert "good/s" in printed
    drawn = " ".join(ElementTree.parse(out.with_suffix(".svg")).getroot().itertext())
    assert all(f"{one['engine']} {one['precision']}" in drawn for one in records)


def test_a_batching_that_fails_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where transformers' batching gives up on a request, the run ends with what it said, not with fewer tokens."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("transformers.generation.continuous_batching.model_runner.ModelRunner.compute_batch", broken)
    asked = ["--model", "embedded", "--concurrency", "2", "--prompt-tokens", "8", "--new-tokens", "4", "--rounds", "1"]

    assert main(["bench", "engine", *asked, "--threads", "1", "--peer", "cb"]) == 1

    assert "--peer cb: transformers' batching failed: no such kernel" in capsys.readouterr().err


def test_transformers_batching_needs_psutil(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it nothing is measured: the option is refused first, with the reason and the remedy."""
    monkeypatch.setattr("cli.bench_engine.command.find_spec", lambda name: None)

    assert main(["bench", "engine", "--peer", "cb"]) == 1

    refusal = capsys.readouterr().err
    assert "memory of the machine" in refusal
    assert "pip install psutil" in refusal


def test_callers_must_be_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """A bad number of callers is refused before anything is loaded."""
    assert main(["bench", "engine", "--concurrency", "1,many"]) == 1
    assert "--concurrency 1,many" in capsys.readouterr().err
