"""What `millrace keys` reads from its command line, and the banner that tells of a key."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from cli.__main__ import main
from cli.banner import Callers, banner
from cli.key_options import seconds
from cli.up import take_first_key
from services.inference.access.secret import is_secret


@pytest.mark.parametrize(("text", "span"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)])
def test_a_span_is_a_number_and_a_unit(text: str, span: int) -> None:
    """Seconds, minutes, hours and days."""
    assert seconds(text) == span


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "1w", "1 d", "1.5h", "9999999999d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    """A key that ends at once, or never by mistake, is not made."""
    with pytest.raises(argparse.ArgumentTypeError):
        seconds(text)


def test_a_fresh_secret_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a script can put it into a file."""
    assert main(["keys", "secret"]) == 0
    assert is_secret(capsys.readouterr().out.removesuffix("\n"))


def test_nobody_there_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what to start."""
    monkeypatch.setenv("MILLRACE_API_KEY", "")

    assert main(["keys", "list", "--target", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err == "millrace: nothing answers: is `millrace up` running?\n"


def test_the_first_key_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that brought it is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".millrace").mkdir()
    (tmp_path / ".millrace" / "first-key").write_text("mr_x\n")

    assert [take_first_key(), take_first_key()] == ["mr_x", ""]


def test_the_banner_says_who_may_call() -> None:
    """An open suite says how to shut it; a shut one shows the key in what can be pasted by its variable alone."""
    shown = banner("http://e", "i:1", Path("logs"), 1.0, Callers(False, "mr_first"))
    shut = banner("http://e", "i:1", Path("logs"), 1.0, Callers(True, ""))

    assert "MILLRACE_INFERENCE_ACCESS_MODE=required" in shown
    assert shown.count("mr_first") == 1
    assert "Authorization" not in shown
    assert '-H "Authorization: Bearer $MILLRACE_API_KEY"' in shut
    assert "os.environ['MILLRACE_API_KEY']" in shut
    assert "Key " not in shut
