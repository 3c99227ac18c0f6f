"""The scan of a whole run finds what it is there for: leaks that are planted in a run of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.leaks.markers import markers
from tests.leaks.recorder import Recorder, entries
from tests.leaks.run import LEAKED

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "seven quokkas crossed the harbour at dawn"
PLANTED = """
import logging, os, subprocess, sys
from prometheus_client import Counter
from kit import telemetry
from kit.config import ServeSettings

PROMPT, NUMBER = {prompt!r}, "4111 1111 1111 1111"
CHILD = '''
import logging, sys
from kit import logs, telemetry
from kit.config import ServeSettings, load
class EdgeSettings(ServeSettings):
    model_config = ServeSettings.model_config | {{"env_prefix": "MILLRACE_EDGE_"}}
import os
logs.setup("child")
made = telemetry.setup("child", load(EdgeSettings))
with made.tracer.start_as_current_span("work") as span:
    span.set_attribute("planted", sys.argv[1])
logging.getLogger("services.child").warning("said", extra={{"planted": sys.argv[1]}})
made.shutdown()
'''

def test_here():
    made = telemetry.off()
    with made.tracer.start_as_current_span("work") as span:
        span.set_attribute("planted", PROMPT)
    logging.getLogger("services.here").warning("nobody asked for %s", PROMPT)

def test_metric(request):
    made = telemetry.off()
    request.node.made = made  # as a fixture would hold it
    Counter("planted", "Planted.", ("who",), registry=made.registry).labels(NUMBER).inc()

def test_child(tmp_path):
    with (tmp_path / "child.log").open("w") as log:
        subprocess.run([sys.executable, "-c", CHILD, PROMPT], check=True, stderr=log)

def test_clean():
    logging.getLogger("services.here").warning("the ledger is slow")
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the planted run writes: not below this run's own folder, which is looked through as well."""
    with TemporaryDirectory() as made:
        yield Path(made)


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Runs the planted tests, or some of them, as `make test` does."""
    planted = folder / "test_planted.py"
    planted.write_text(PLANTED.format(prompt=PROMPT))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--rootdir={ROOT}", "--confcutdir=/",
               "-p", "tests.conftest", f"--telemetry={folder}/telemetry", f"--basetemp={folder}/tmp"]  # fmt: skip
    names = [f"{planted}::{name}" for name in tests] or [str(planted)]
    return subprocess.run([*command, *names], cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_planted_leaks_fail_the_run_and_are_named(folder: Path) -> None:
    """A prompt in a span, a log and a child's OTLP and output, and a card in a label, each with place and test."""
    made = run(folder)
    said = [line for line in made.stdout.splitlines() if line.startswith("LEAKED")]

    assert made.returncode == LEAKED, made.stdout + made.stderr
    for place, test in (
        ("attribute planted of span work", "test_here"),
        ("log of services.here", "test_here"),
        ("label who of metric planted_total", "test_metric"),
        ("attribute planted of exported span work", "test_child"),
        ("field planted of an exported log", "test_child"),
        ("field planted of an output", "child.log"),
    ):
        assert any(place in line and test in line for line in said), (place, said)
    assert not any("test_clean" in line for line in said)


def test_a_clean_run_passes(folder: Path) -> None:
    """Without a leak the run ends as it would have ended."""
    made = run(folder, "test_clean")

    assert made.returncode == pytest.ExitCode.OK, made.stdout + made.stderr
    assert "0 places with leaks" in made.stdout


@pytest.mark.parametrize(
    "text",
    [
        PROMPT,
        f'{{"content": "{PROMPT}"}}',
        PROMPT.replace(" ", "%20"),
        "the key mr_" + "x1Y2" * 10,
        "Authorization: Bearer abcdefgh12345678",
        "postgresql://millrace:secret@db/millrace",
        "write to ann.example@mail.example",
        "4111111111111111",
        "078-05-1120",
        "+49 151 23456789",
        "DE89 3704 0044 0532 0130 00",
    ],
)
def test_what_does_not_belong_is_known(text: str) -> None:
    """A prompt of this file, packed as it may be, keys, passwords and personal data of each kind."""
    assert list(markers().found(text))


@pytest.mark.parametrize(
    "text",
    ["chat gpt-4o", "2026-11-21T10:00:00.123+00:00", "redis://127.0.0.1:6379/0", "4111111111111112",
     "FAKE_ERROR_500", "http://127.0.0.1:8080/v1/chat/completions", "550e8400-e29b-41d4-a716-446655440000"],
)  # fmt: skip
def test_what_belongs_is_let_be(text: str) -> None:
    """Names, times, addresses of servers and numbers are what telemetry is made of."""
    assert list(markers().found(text)) == []


def test_a_text_is_written_once(tmp_path: Path) -> None:
    """What a thousand requests say alike costs one line, and ids and numbers none."""
    recorder = Recorder(tmp_path, "one")
    for _ in range(1000):
        recorder.saw("span name", "chat")
        recorder.saw("span id", "00f067aa0ba902b7")
        recorder.saw("status", "200")
    recorder.line('{"span_id": "4111111111111111"}')
    recorder.close()

    assert list(entries(tmp_path)) == [("span name", "chat", "")]
