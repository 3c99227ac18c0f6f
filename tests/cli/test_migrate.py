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


@pytest.mark.parametrize(
    ("url", "place", "trouble"),
    [
        ("postgresql+asyncpg://user:secret@127.0.0.1:1/name", "user:***@127.0.0.1:1/name", "errno 111"),
        ("sqlite+aiosqlite:///{folder}/text.sqlite3", "text.sqlite3", "file is not a database"),
    ],
)
def test_a_database_that_does_not_do_is_told_with_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    url: str,
    place: str,
    trouble: str,
) -> None:
    """Where it was looked for, without its password, and what it said: a retry alone mends neither."""
    (tmp_path / "text.sqlite3").write_text("no database, but long enough to look like the head of one " * 100)
    monkeypatch.setenv("MILLRACE_INFERENCE_DATABASE_URL", url.format(folder=tmp_path))

    assert main(["migrate"]) != 0
    told = capsys.readouterr().err
    assert place in told
    assert trouble in told.lower()
    assert "secret" not in told
