"""A real PostgreSQL server for tests, which may not do without one where CI runs."""

from __future__ import annotations

import os

import pytest

import bench.postgres


class PostgresServer(bench.postgres.PostgresServer):
    """See the base; without PostgreSQL the test that asks for it is skipped, and fails in CI."""

    def __init__(self) -> None:
        try:
            super().__init__()
        except FileNotFoundError as missing:
            if os.environ.get("CI"):
                pytest.fail(str(missing))
            pytest.skip(str(missing))
