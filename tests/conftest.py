"""Options of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what `make test` asks for."""
    said = "record the telemetry of every process there, and fail where a prompt, key or personal datum is in it"
    parser.addoption("--telemetry", metavar="FOLDER", type=Path, help=said)


def pytest_configure(config: pytest.Config) -> None:
    """Begins to record, before any test is imported."""
    if folder := config.getoption("--telemetry"):
        from tests.leaks.run import WholeRun

        config.pluginmanager.register(WholeRun(folder))
