"""`millrace config`: the configuration table, printed or kept current in a document.

The table comes from the settings classes, so it cannot say anything that the services do not do.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from cli.errors import CommandError
from kit import config
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.config import InferenceSettings
from services.safety.config import SafetySettings

BEGIN = "<!-- configuration: begin (made by `make docs-config`) -->"
END = "<!-- configuration: end -->"
SECTIONS: dict[str, type[config.Settings]] = {
    "edge": EdgeSettings,
    "inference": InferenceSettings,
    "cache": CacheSettings,
    "safety": SafetySettings,
}


def markdown() -> str:
    """Returns what all services share as one table, then a table for each service's own."""
    rows = {name: _rows(name, settings) for name, settings in SECTIONS.items()}
    counts = Counter(row for each in rows.values() for row in each)
    shared = [row for row in rows["inference"] if counts[row] == len(SECTIONS)]
    sections = [_section("every service (`<SERVICE>` is EDGE, INFERENCE, CACHE or SAFETY)", shared, "<SERVICE>")]
    for name, each in rows.items():
        sections.append(_section(name, [row for row in each if row not in shared], name.upper()))
    return "\n\n".join(sections)


def _rows(name: str, settings: type[config.Settings]) -> list[str]:
    """Returns the rows of a service's table with a blank in place of its name."""
    _, _, *rows = config.table(settings).strip().splitlines()
    return [row.replace(f"`MILLRACE_{name.upper()}_", "`MILLRACE_{}_", 1) for row in rows]


def _section(title: str, rows: list[str], name: str) -> str:
    head = ["| Variable | Default | Meaning |", "|---|---|---|"]
    return f"#### {title}\n\n" + "\n".join([*head, *(row.replace("{}", name, 1) for row in rows)])


def fill(document: str) -> str:
    """Returns a document with the tables between its markers.

    Raises:
        CommandError: The markers are missing.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise CommandError(f"no place for the table: the document needs the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{markdown()}\n\n{END}{tail}"


def write(path: Path) -> None:
    """Puts the tables into a document."""
    path.write_text(fill(path.read_text()))


def is_current(path: Path) -> bool:
    """Tells whether a document holds the tables as they are now."""
    text = path.read_text()
    return fill(text) == text
