"""What the ledger's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.inference.ledger.parts import Books, open_database


@pytest.fixture
async def books(database_url: str, tmp_path: Path) -> AsyncIterator[Books]:
    """A ledger over either kind of database."""
    database = await open_database(database_url)
    made = Books(tmp_path / "ledger", database)
    yield made
    made.journal.close()
    await database.close()
