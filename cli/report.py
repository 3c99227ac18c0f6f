"""What `millrace up` shows while the services start and stop: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

STYLES = {
    "starting": "dim",
    "loading": "yellow",
    "ready": "green",
    "waiting": "yellow",
    "stopping": "yellow",
    "stopped": "dim",
}
# States in which something is still going on.
BUSY = {"starting", "loading", "waiting", "stopping"}


class Report(Protocol):
    """Where the suite says what it does."""

    def show(self, name: str, state: str, detail: str = "") -> None:
        """Shows the state of a service: starting, loading, ready, waiting (to be started again), stopping, stopped."""

    def died(self, name: str, code: int, log: Path, tail: Sequence[str]) -> None:
        """Shows that a service ended by itself, with the last lines of its log."""

    def say(self, text: str) -> None:
        """Shows text as it is, so that what is pasted from it works."""

    def close(self) -> None:
        """Shows nothing more."""


class PlainReport:
    """One line for each change, for pipes, CI and log files."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, str]] = {}

    def show(self, name: str, state: str, detail: str = "") -> None:
        """Prints a line when something changed."""
        if self._shown.get(name) != (state, detail):
            self._shown[name] = (state, detail)
            print(f"{name:<10} {state:<9} {detail}".rstrip(), flush=True)

    def died(self, name: str, code: int, log: Path, tail: Sequence[str]) -> None:
        """Prints the obituary on standard error."""
        print(obituary(name, code, log, tail), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Prints the text."""
        print(text, flush=True)

    def close(self) -> None:
        """Does nothing: every line is out."""


class LiveReport:
    """A table that is drawn in place, with a spinner for what is under way."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, tuple[str, str]] = {}
        self._spinners: dict[str, Spinner] = {}
        self._live: Live | None = None

    def show(self, name: str, state: str, detail: str = "") -> None:
        """Redraws the table."""
        self._rows[name] = (state, detail)
        if self._live is None:
            self._live = Live(console=self._console, refresh_per_second=10, get_renderable=self._table)
            self._live.start()

    def died(self, name: str, code: int, log: Path, tail: Sequence[str]) -> None:
        """Prints the obituary above a fresh table."""
        self.say(obituary(name, code, log, tail))

    def say(self, text: str) -> None:
        """Ends the table and prints the text, unwrapped."""
        self.close()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def close(self) -> None:
        """Leaves the table as it stands; the next change begins a fresh one."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._rows.clear()

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, (state, detail) in self._rows.items():
            spinner = self._spinners.setdefault(name, Spinner("dots", style="yellow"))
            mark = spinner if state in BUSY else Text("✓" if state == "ready" else "·", style=STYLES[state])
            table.add_row(mark, Text(name, style="bold"), Text(state, style=STYLES[state]), _one_line(detail))
        return table


def make_report(color: bool) -> Report:
    """Returns the report that fits standard output."""
    console = Console(no_color=not color, soft_wrap=True)
    return LiveReport(console) if console.is_terminal and not console.is_dumb_terminal else PlainReport()


def how_it_ended(code: int) -> str:
    """Names the signal or the exit code that a process ended with."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def obituary(name: str, code: int, log: Path, tail: Sequence[str]) -> str:
    """Says which service died, how, and what it said last."""
    lines = "\n".join(f"  {line}" for line in tail) or "  (its log is empty)"
    return f"\n{name} died ({how_it_ended(code)}). The last lines of {log}:\n{lines}\n"


def _one_line(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")
