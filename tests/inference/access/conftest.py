"""Databases with the tables of access, and the service with its door shut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.inference.access.key_store import KeyStore
from services.inference.database import migrating
from services.inference.database.database import Database
from services.inference.database.settings import DatabaseSettings
from tests.inference.access.parts import Clock


@pytest.fixture
def clock() -> Clock:
    """A clock that the test sets."""
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A fresh SQLite database."""
    opened = Database(DatabaseSettings(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path}/access.sqlite3")))
    await migrating.prepare(opened, True)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database, clock: Clock) -> KeyStore:
    """Keys in it."""
    return KeyStore(database, clock)


@pytest.fixture
async def either_database(database_url: str) -> AsyncIterator[Database]:
    """A fresh database of either kind."""
    opened = Database(DatabaseSettings(url=SecretStr(database_url)))
    await migrating.prepare(opened, True)
    yield opened
    await opened.close()
