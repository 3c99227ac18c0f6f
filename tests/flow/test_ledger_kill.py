"""The ledger's word through SIGKILL, with real processes, on both databases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.ledger_kill import is_right, run
from tests.inference.postgres import PostgresServer


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_every_attempt_that_was_told_of_has_one_row(kind: str, request: pytest.FixtureRequest) -> None:
    """Killed in the middle of streams, the service still accounts for each; `bench.ledger_kill` does it more often."""
    url = request.getfixturevalue("postgres").create_database() if kind == "postgresql" else ""
    found = await run(kills=3, callers=10, url=url, seed=5)

    assert is_right(found), found
    assert found["attempts_told"] > found["lost_rows"] > 0
