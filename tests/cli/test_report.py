"""What `millrace up` shows: plain lines for pipes, a table for terminals."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from cli.report import LiveReport, PlainReport, make_report, obituary

LONG = "x" * 300


@pytest.fixture
def terminal() -> tuple[LiveReport, io.StringIO]:
    file = io.StringIO()
    return LiveReport(Console(file=file, force_terminal=True, width=80, color_system="standard")), file


def test_plain_report_prints_changes_only(capsys):
    """A state that did not change is not repeated."""
    report = PlainReport()
    report.show("edge", "starting")
    report.show("edge", "loading", "weights")
    report.show("edge", "loading", "weights")

    assert capsys.readouterr().out == "edge       starting\nedge       loading   weights\n"


def test_a_pipe_gets_plain_lines():
    """Output that is not a terminal is never drawn over."""
    assert isinstance(make_report(color=True), PlainReport)


def test_terminal_shows_every_service_in_one_row(terminal):
    """The table has a row for each service and cuts what does not fit instead of wrapping it."""
    report, file = terminal
    report.show("edge", "ready", "127.0.0.1:8080")
    report.show("inference", "loading", LONG)
    report.close()

    last = file.getvalue().rsplit("\x1b[2K", 1)[-1]
    assert "inference" in last
    assert "…" in file.getvalue()
    assert LONG not in file.getvalue()


def test_terminal_never_wraps_what_is_to_be_pasted(terminal):
    """Text that is said keeps its lines, however narrow the terminal."""
    report, file = terminal
    report.show("edge", "ready")
    report.say(f"curl [bold]{LONG}")

    assert f"curl [bold]{LONG}\n" in file.getvalue()


def test_a_death_is_told_on_the_terminal(terminal):
    """The obituary follows the table."""
    report, file = terminal
    report.show("cache", "ready")
    report.died("cache", -9, Path("cache.log"), ["[red]last words"])

    assert "cache died (signal 9). The last lines of cache.log:\n  [red]last words" in file.getvalue()


def test_an_obituary_without_words_says_so():
    """An empty log is named as such."""
    assert "exit code 3" in obituary("cache", 3, Path("cache.log"), [])
    assert "(its log is empty)" in obituary("cache", 3, Path("cache.log"), [])
