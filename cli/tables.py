"""`millrace config`: the configuration table, printed or kept current in a document.

The table comes from the settings classes, so it cannot say anything that the services do not do.
"""

from __future__ import annotations

from pathlib import Path

from cli.errors import CommandError
from kit import config
from services.cache.config import CacheSettings
from services.edge.config import EdgeSettings
from services.inference.config import InferenceSettings
from services.safety.config import SafetySettings

BEGIN = "<!-- configuration: begin (made by `make docs-config`) -->"
END = "<!-- configuration: end -->"
SECTIONS = {
    "edge": EdgeSettings,
    "inference": InferenceSettings,
    "cache": CacheSettings,
    "safety": SafetySettings,
}


def markdown() -> str:
    """Returns the tables of all four services."""
    return "\n\n".join(f"#### {name}\n\n{config.table(settings).strip()}" for name, settings in SECTIONS.items())


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
