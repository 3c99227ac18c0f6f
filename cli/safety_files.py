"""Reads labelled texts for `millrace bench safety`: JSON lines, plain or compressed with gzip.

A line that is not of its kind's form is an error that names file, line and field: a bench on half of the data would
mislead.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli.errors import CommandError

Row = dict[str, Any]


def read_rows(path: Path, kind: str) -> list[Row]:
    """Reads the rows of one kind: moderation, pii or injection.

    Raises:
        CommandError: The file cannot be read, has no rows, or a line is not of the form.
    """
    rows = []
    for number, line in _lines(path):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CommandError(f"{path}:{number}: not JSON: {error}") from error
            if problem := _problem(row, kind):
                raise CommandError(f"{path}:{number}: {problem}")
            rows.append(row)
    if not rows:
        raise CommandError(f"{path} has no rows")
    return rows


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            yield from enumerate(file, 1)
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise CommandError(f"{path} cannot be read: {error}") from error


def _problem(row: Any, kind: str) -> str | None:
    """Says in words what is wrong with a row; None when nothing is."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        return 'must be an object with "text", a string'
    return CHECKS[kind](row)


def _check_moderation(row: Row) -> str | None:
    labels = row.get("labels")
    if isinstance(labels, dict) and all(value in (0, 1) for value in labels.values()):
        return None
    return '"labels" must be an object of categories, each 0 or 1'


def _check_injection(row: Row) -> str | None:
    return None if row.get("injection") in (0, 1) else '"injection" must be true or false'


def _check_pii(row: Row) -> str | None:
    spans = row.get("spans")
    if not isinstance(spans, list):
        return '"spans" must be a list of {"start", "end", "type"}'
    for number, span in enumerate(spans):
        if not isinstance(span, dict) or not isinstance(span.get("type"), str):
            return f'"spans"[{number}] must be {{"start", "end", "type"}}'
        start, end = span.get("start"), span.get("end")
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(row["text"])):
            return f'"spans"[{number}] must begin and end within the text, in code points'
    return None


CHECKS: dict[str, Callable[[Row], str | None]] = {
    "moderation": _check_moderation,
    "pii": _check_pii,
    "injection": _check_injection,
}
