"""`millrace migrate`: the schema of inference's database, brought up to date by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.__main__ import EXIT_REFUSED, main


def test_an_empty_database_is_brought_up_to_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says from where to where; a second time there is nothing to do."""
    monkeypatch.setenv("MILLRACE_INFERENCE_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/database.sqlite3")

    assert main(["migrate"]) == 0
    assert main(["migrate"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("(was: empty)")
    assert second.endswith("already")


def test_a_database_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the variable, without its password."""
    monkeypatch.setenv("MILLRACE_INFERENCE_DATABASE_URL", "mysql://user:secret@host/name")

    assert main(["migrate"]) == EXIT_REFUSED
    told = capsys.readouterr().err
    assert "MILLRACE_INFERENCE_DATABASE_URL" in told
    assert "secret@" not in told
