"""The command line hands each command to the module that does it."""

from __future__ import annotations

import subprocess
import sys

from cli.__main__ import main


def test_version_names_what_runs(capsys):
    """`millrace version` prints the versions that a bug report needs."""
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("millrace 0.")


def test_a_command_failure_is_one_line(capsys):
    """A suite that does not run is said in one line, with exit code 1."""
    assert main(["chat", "--grpc", "--target", "127.0.0.1:1", "hello"]) == 1
    assert capsys.readouterr().err == "millrace: Nothing answers at 127.0.0.1:1: is `millrace up` running?\n"


def test_a_bad_setting_is_one_line(capsys, monkeypatch):
    """A bad variable is named, with exit code 2."""
    monkeypatch.setenv("MILLRACE_EDGE_PORT", "ninety")
    assert main(["models"]) == 2
    assert "MILLRACE_EDGE_PORT" in capsys.readouterr().err


def test_the_heavy_libraries_are_left_alone():
    """Starting the command line loads neither torch nor gRPC nor the HTTP client: it answers at once."""
    heavy = "{'torch', 'transformers', 'grpc', 'httpx', 'rich'}"
    program = f"import sys, cli.__main__; print(sorted({heavy} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)

    assert loaded.stdout.strip() == "[]"
