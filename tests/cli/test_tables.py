"""The configuration table of the README comes from the settings classes and is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import tables
from cli.__main__ import main
from cli.errors import CommandError

README = Path(__file__).resolve().parents[2] / "README.md"


def test_readme_has_the_table_as_it_is_now():
    """The README's configuration table is what `make docs-config` would write."""
    assert tables.is_current(README), "run make docs-config"


def test_table_has_every_variable_with_a_meaning():
    """Each row names a variable of one of the services and says what it does."""
    rows = [line.split("|") for line in tables.markdown().splitlines() if line.startswith("| `")]
    names = [row[1].strip() for row in rows]

    assert {
        "`MILLRACE_<SERVICE>_GRACE_S`",
        "`MILLRACE_EDGE_PORT`",
        "`MILLRACE_CACHE_STORE`",
        "`MILLRACE_INFERENCE_MODELS_FILE`",
    } <= set(names)
    assert len(set(names)) == len(names)
    assert [row[1] for row in rows if not row[3].strip()] == []


def test_writing_fills_the_place_between_the_markers(tmp_path):
    """Writing replaces what is between the markers, leaves the rest alone, and is then current."""
    document = tmp_path / "README.md"
    document.write_text(f"# Before\n{tables.BEGIN}\nyesterday's words\n{tables.END}\nAfter\n")
    assert main(["config", "--check", str(document)]) == 1

    assert main(["config", "--write", str(document)]) == 0
    assert main(["config", "--check", str(document)]) == 0
    text = document.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("\nAfter\n")
    assert "yesterday" not in text


def test_a_document_without_a_place_is_refused():
    """A document that has no markers is never written to."""
    with pytest.raises(CommandError, match="the document needs the lines"):
        tables.fill("# Nothing here\n")
