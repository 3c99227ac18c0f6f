"""Reads what a bench runs on: JSON lines, plain or compressed with gzip.

A line that is not of the form is an error that names the file and the line: a bench on half of the data would mislead.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import CommandError


@dataclass(frozen=True, slots=True)
class Kind:
    """What a field may be, in words and as a test."""

    name: str
    allows: Callable[[Any], bool]


STRING = Kind("a string", lambda value: isinstance(value, str))
NAME = Kind("a string or a number", lambda value: isinstance(value, str | int | float))
TRUTH = Kind("true, false, 1 or 0", lambda value: isinstance(value, int) and value in {0, 1})


@dataclass(frozen=True, slots=True)
class Lookup:
    """A question in order of arrival; an answer to another question of its group answers it too."""

    id: str
    text: str
    group: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer does for both."""

    a: str
    b: str
    same: bool


def read_lookups(path: Path) -> list[Lookup]:
    """Reads lines of {"id", "text", "group"}.

    Raises:
        CommandError: The file cannot be read, or a line is not of the form.
    """
    fields = {"id": NAME, "text": STRING, "group": NAME}
    return [Lookup(str(row["id"]), _text(row, "text"), str(row["group"])) for row in _Rows(path, fields)]


def read_pairs(path: Path) -> list[Pair]:
    """Reads lines of {"a", "b", "same"}.

    Raises:
        CommandError: The file cannot be read, or a line is not of the form.
    """
    fields = {"a": STRING, "b": STRING, "same": TRUTH}
    return [Pair(_text(row, "a"), _text(row, "b"), bool(row["same"])) for row in _Rows(path, fields)]


class _Rows:
    """The objects of a file, each with the fields that it must have."""

    def __init__(self, path: Path, fields: Mapping[str, Kind]) -> None:
        self._path, self._fields = path, fields

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count = 0
        for number, line in self._lines():
            if line.strip():
                count += 1
                yield self._row(number, line)
        if not count:
            raise CommandError(f"{self._path} has no lines")

    def _lines(self) -> Iterator[tuple[int, str]]:
        try:
            opener = gzip.open if self._path.suffix == ".gz" else open
            with opener(self._path, "rt", encoding="utf-8") as file:
                yield from enumerate(file, 1)
        except (OSError, UnicodeDecodeError, EOFError) as error:
            raise CommandError(f"{self._path} cannot be read: {error}") from error

    def _row(self, number: int, line: str) -> dict[str, Any]:
        wanted = "{" + ", ".join(f'"{field}"' for field in self._fields) + "}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise CommandError(f"{self._path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict) or not row.keys() >= set(self._fields):
            raise CommandError(f"{self._path}:{number}: not of the form {wanted}")
        for field, kind in self._fields.items():
            if not kind.allows(row[field]):
                raise CommandError(f'{self._path}:{number}: "{field}" must be {kind.name}')
        return row


def _text(row: dict[str, Any], field: str) -> str:
    """A text that a lookup may hold; an empty one stands for a space, which no model tells from it."""
    return str(row[field]) or " "
