"""What becomes of files where there is no room for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text

from kit.errors import Unavailable
from services.inference.database.database import Database
from services.inference.jobs.file_store import FileStore
from tests.inference.jobs.parts import ANNA, DAY_S, open_database


async def limit(database: Database, pages: int) -> None:
    """Gives a SQLite file so much room."""
    async with database.reading() as connection:
        await connection.execute(text(f"PRAGMA max_page_count = {pages}"))


async def pieces() -> AsyncIterator[bytes]:
    """A file of 4 MB."""
    for _ in range(4):
        yield bytes(1_000_000)


async def test_a_file_for_which_there_is_no_room_is_not_kept(tmp_path: Path) -> None:
    """Its sender is told that the disk is full, nothing of it stays, and it is kept once there is room."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/database.sqlite3") as database:
        files = FileStore(database, 10_000_000)
        await limit(database, 500)
        with pytest.raises(Unavailable, match="the disk of the database is full") as caught:
            await files.keep(ANNA, "in.jsonl", "batch", DAY_S, pieces())
        left = await files.page(ANNA, "", 10, "")
        await limit(database, 10_000)
        kept = await files.keep(ANNA, "in.jsonl", "batch", DAY_S, pieces())

    assert (caught.value.reason, left, kept.size_bytes) == ("DATABASE_FULL", [], 4_000_000)
