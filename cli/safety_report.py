"""Shows the figures of `millrace bench safety`: tables for people, charts, and a table for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cli.bench_cache.chart import Chart, Point, Series
from cli.errors import CommandError
from cli.ranking import precision_recall

Record = Mapping[str, Any]

# What stands between these lines of a document is replaced.
BEGIN, END = "<!-- millrace bench safety: begin -->", "<!-- millrace bench safety: end -->"
_LEFT = ("category", "match")


def show(console: Console, records: Sequence[Record]) -> None:
    """Prints a table for each kind."""
    for kind, rows in _by_kind(records).items():
        columns = _columns(rows)
        table = Table(title=kind)
        for name in columns:
            table.add_column(name, justify="left" if name in _LEFT else "right")
        for row in rows:
            table.add_row(*(str(row.get(name, "")) for name in columns))
        console.print(table)


def ranking_chart(kind: str, curves: Mapping[str, tuple[Sequence[bool], Sequence[float]]]) -> Chart:
    """Precision against recall, a line for each category: its labels and scores."""
    series = [
        Series(name, [Point(recall, precision) for recall, precision in precision_recall(labels, scores)])
        for name, (labels, scores) in curves.items()
        if any(labels)
    ]
    return Chart(f"{kind}: how much is found, and how much of what is found is right", "recall", "precision", series)


def rewrite(path: Path, records: Sequence[Record]) -> None:
    """Puts the tables between the markers of a document.

    Raises:
        CommandError: It cannot be read or has no markers.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error}") from error
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise CommandError(f"{path} has no lines {BEGIN} and {END}")
    tables = "\n\n".join(_markdown(kind, rows) for kind, rows in _by_kind(records).items())
    path.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")


def _markdown(kind: str, rows: Sequence[Record]) -> str:
    columns = _columns(rows)
    head = [kind if name == "category" else name.replace("_", " ") for name in columns]
    lines = [_line(head), _line(["---" if name in _LEFT else "---:" for name in columns])]
    return "\n".join([*lines, *(_line([_cell(row.get(name, "")) for name in columns]) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _by_kind(records: Sequence[Record]) -> dict[str, list[Record]]:
    tables: dict[str, list[Record]] = {}
    for record in records:
        tables.setdefault(record["kind"], []).append(record)
    return tables


def _columns(rows: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
