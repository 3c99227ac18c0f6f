"""The database base: transactions, outages, the schema's history, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from kit.errors import ConfigError, Unavailable
from services.inference.database import migrating
from services.inference.database.database import Database
from services.inference.database.schema import metadata
from services.inference.database.settings import DatabaseSettings
from services.inference.database.watch import DatabaseWatch
from tests.inference.postgres import PostgresServer

DEADLINE_S = 20.0


def open_database(url: str, timeout_s: float = 5.0) -> Database:
    return Database(DatabaseSettings(url=SecretStr(url), timeout_s=timeout_s))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database."""
    opened = open_database(database_url)
    yield opened
    await opened.close()


async def test_migrations_make_the_schema_of_the_code(database: Database) -> None:
    """Nothing that the tables declare is missing afterwards, and nothing is there besides."""
    for declared in Path(migrating.__file__).parents[1].glob("*/tables.py"):
        import_module(f"services.inference.{declared.parent.name}.tables")
    await migrating.prepare(database, migrate=True)
    async with database.reading() as connection:
        different = await connection.run_sync(lambda sync: compare_metadata(MigrationContext.configure(sync), metadata))

    assert different == []


async def test_replicas_that_start_together_migrate_once(database_url: str) -> None:
    """Eight of them on an empty database all find it up to date."""
    replicas = [open_database(database_url) for _ in range(8)]
    await asyncio.gather(*(migrating.prepare(one, migrate=True) for one in replicas))
    versions = {await migrating.version(one) for one in replicas}
    for one in replicas:
        await one.close()

    assert len(versions) == 1
    assert None not in versions


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    """What a block did is undone where it raises, and there for everybody where it does not."""
    async with database.writing() as connection:
        await connection.execute(text("CREATE TABLE things (name VARCHAR(9) PRIMARY KEY)"))
        await connection.execute(text("INSERT INTO things VALUES ('kept')"))

    async def fail_half_way() -> None:
        async with database.writing() as connection:
            await connection.execute(text("INSERT INTO things VALUES ('undone')"))
            await connection.execute(text("INSERT INTO things VALUES ('kept')"))

    with pytest.raises(IntegrityError):
        await fail_half_way()
    async with database.reading() as connection:
        names = (await connection.execute(text("SELECT name FROM things"))).scalars().all()

    assert names == ["kept"]


async def test_writers_wait_for_each_other(database: Database) -> None:
    """Forty transactions that read and then write on as many tasks all succeed, and none is lost."""
    async with database.writing() as connection:
        await connection.execute(text("CREATE TABLE counts (count INTEGER)"))
        await connection.execute(text("INSERT INTO counts VALUES (0)"))

    async def add() -> None:
        async with database.writing() as connection:
            await connection.execute(text("SELECT count FROM counts"))
            await connection.execute(text("UPDATE counts SET count = count + 1"))

    await asyncio.gather(*(add() for _ in range(40)))
    async with database.reading() as connection:
        assert await connection.scalar(text("SELECT count FROM counts")) == 40


async def test_a_newer_database_is_refused(database: Database) -> None:
    """A release that does not know the schema does not start, and says what to do."""
    await migrating.upgrade(database)
    async with database.writing() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999_later'"))

    with pytest.raises(ConfigError, match="9999_later, which this release does not know"):
        await migrating.prepare(database, migrate=True)


async def test_only_sqlite_is_migrated_unasked(database: Database) -> None:
    """A PostgreSQL may be others' too: there the operator says so, by setting or by command."""
    if database.is_sqlite:
        await migrating.prepare(database, migrate=None)
        assert await migrating.version(database)
    else:
        with pytest.raises(ConfigError, match="run `millrace migrate`"):
            await migrating.prepare(database, migrate=None)
        assert await migrating.version(database) is None


@pytest.mark.parametrize("url", ["mysql://host/name", "postgresql+psycopg://host/name", "no url"])
def test_other_databases_are_refused(url: str) -> None:
    """The message names the variable and what is allowed, never the URL, which holds a password."""
    with pytest.raises(ConfigError, match="MILLRACE_INFERENCE_DATABASE_URL") as caught:
        open_database(url)

    assert "host/name" not in caught.value.message


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
async def test_a_host_s_own_url_of_postgresql_works(postgres: PostgresServer, scheme: str) -> None:
    """Hosts hand out postgres:// with libpq's sslmode; it is taken as it is."""
    _, _, rest = postgres.create_database().partition("://")
    mode = "" if "+" in scheme else ("&" if "?" in rest else "?") + "sslmode=disable"
    database = open_database(f"{scheme}://{rest}{mode}")

    await database.ping()
    await database.close()


async def test_only_its_owner_reads_a_file_that_is_made_here(tmp_path: Path) -> None:
    """Prompts and hashes of passwords are in it, and in what SQLite keeps beside it."""
    database = open_database(f"sqlite+aiosqlite:///{tmp_path}/data/x.sqlite3")
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql("CREATE TABLE t (x)")
        modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "data").iterdir()}
    await database.engine.dispose()

    assert modes == {"x.sqlite3": 0o600, "x.sqlite3-wal": 0o600, "x.sqlite3-shm": 0o600}


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """The file's place is named."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"file/x\.sqlite3"):
        open_database(f"sqlite+aiosqlite:///{tmp_path}/file/x.sqlite3")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """At the start and by name, and not as a database that does not answer."""
    with pytest.raises(ConfigError, match=f"{tmp_path}: Is a directory"):
        open_database(f"sqlite+aiosqlite:///{tmp_path}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """As the cache's and the ledger's are: whoever runs it must see to that."""
    path = tmp_path / "x.sqlite3"
    path.touch(mode=0o400)
    with pytest.raises(ConfigError, match=r"x\.sqlite3: Permission denied"):
        open_database(f"sqlite+aiosqlite:///{path}")


async def test_a_frozen_postgresql_is_unavailable_in_time(postgres: PostgresServer) -> None:
    """Connections that hang cost the timeout, not more, and work again after the thaw."""
    database = open_database(postgres.create_database(), timeout_s=0.5)
    await asyncio.gather(*(database.ping() for _ in range(5)))
    postgres.freeze()
    try:
        async with asyncio.timeout(DEADLINE_S):
            outcomes = await asyncio.gather(*(database.ping() for _ in range(20)), return_exceptions=True)
    finally:
        postgres.thaw()

    assert {type(one) for one in outcomes} == {Unavailable}
    await _until_up(database)
    await database.close()


@pytest.mark.parametrize(("part", "other"), [("millrace@", "stranger@"), ("/test_", "/gone_")])
async def test_a_postgresql_that_lets_nobody_in_is_unavailable(postgres: PostgresServer, part: str, other: str) -> None:
    """Credentials that are none, or a database that is not there, are an outage for callers; operators learn which."""
    database = Database(DatabaseSettings(url=SecretStr(postgres.create_database().replace(part, other))))

    with pytest.raises(Unavailable) as caught:
        await database.ping()

    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    assert other.strip("@/") in database.trouble
    assert "exist" in database.trouble
    await database.close()


async def test_a_postgresql_that_restarts_is_found_again(postgres: PostgresServer) -> None:
    """While it is down, calls fail at once with DATABASE_UNAVAILABLE; then they go on by themselves."""
    database = open_database(postgres.create_database())
    await database.ping()
    postgres.stop()
    try:
        with pytest.raises(Unavailable) as caught:
            await database.ping()
    finally:
        postgres.start()

    assert caught.value.reason == "DATABASE_UNAVAILABLE"
    await _until_up(database)
    await database.close()


async def test_the_watch_waits_for_a_database_that_is_away(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It starts without one, migrates when it comes, and says each change once."""
    told: list[tuple[str, bool]] = []
    database = open_database(postgres.create_database())
    postgres.stop()
    watch = DatabaseWatch(database, True, lambda name, is_up: told.append((name, is_up)), 0.01)
    with caplog.at_level(logging.INFO, "services.inference.database.watch"):
        try:
            await watch.start()
        finally:
            postgres.start()
        async with asyncio.timeout(DEADLINE_S):
            await watch.ready.wait()
    await watch.close()
    await database.close()

    assert told[0] == ("dependency/database", False)
    assert told[-1] == ("dependency/database", True)
    assert [record.message for record in caplog.records] == [
        "the database does not answer",
        "the database answers again",
    ]


async def test_a_full_disk_is_told_as_that(database: Database) -> None:
    """It is neither an outage nor a bug: what was there is read, and what is written goes on once there is room."""
    async with database.writing() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))
        if database.is_sqlite:
            await connection.execute(text("PRAGMA max_page_count = 20"))
    many = "RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'"
    fill = "INSERT INTO things VALUES (randomblob(1000000))" if database.is_sqlite else f"DO $$ BEGIN {many}; END $$"
    with pytest.raises(Unavailable) as caught:
        async with database.writing() as connection:
            await connection.execute(text(fill))
    async with database.writing() as connection:
        await connection.execute(text("INSERT INTO things VALUES ('small')"))
    async with database.reading() as connection:
        kept = (await connection.execute(text("SELECT count(*) FROM things"))).scalar()

    assert (caught.value.reason, kept) == ("DATABASE_FULL", 1)
    assert "disk of the database is full" in caught.value.message
    assert caught.value.retry_after_ms


async def test_a_disk_that_is_full_at_the_start_is_logged_as_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The schema cannot be made: the operator reads why, and it is made when there is room."""
    told: list[tuple[str, bool]] = []
    database = open_database(f"sqlite+aiosqlite:///{tmp_path}/database.sqlite3")

    async def limit(pages: int) -> None:
        async with database.reading() as connection:
            await connection.execute(text(f"PRAGMA max_page_count = {pages}"))

    await limit(2)
    watch = DatabaseWatch(database, True, lambda name, is_up: told.append((name, is_up)), 0.01)
    with caplog.at_level(logging.INFO, "services.inference.database.watch"):
        await watch.start()
        await limit(10_000)
        async with asyncio.timeout(DEADLINE_S):
            await watch.ready.wait()
    await watch.close()
    await database.close()

    assert (told[0][1], told[-1][1]) == (False, True)
    assert [record.message for record in caplog.records] == [
        "the disk of the database is full",
        "the database answers again",
    ]


async def test_a_file_that_is_no_database_is_told_at_the_start(tmp_path: Path) -> None:
    """Which file it is and what to do, in place of a traceback."""
    path = tmp_path / "x.sqlite3"
    path.write_bytes(b"something else altogether " * 100)
    database = open_database(f"sqlite+aiosqlite:///{path}")
    with pytest.raises(ConfigError, match=r"x\.sqlite3 cannot be read \(file is not a database\): restore it"):
        await migrating.prepare(database, None)
    await database.close()


async def test_a_file_that_breaks_is_told_as_damaged(tmp_path: Path) -> None:
    """A disk that lost pages is no bug of ours: 503, and whoever runs it reads what it is."""
    path = tmp_path / "x.sqlite3"
    database = open_database(f"sqlite+aiosqlite:///{path}")
    async with database.writing() as connection:
        await connection.execute(text("CREATE TABLE things (name TEXT)"))
        await connection.execute(text("INSERT INTO things VALUES (hex(randomblob(100000)))"))
    await database.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(Unavailable) as caught:
        async with database.reading() as connection:
            await connection.execute(text("SELECT * FROM things"))
    await database.close()

    assert caught.value.reason == "DATABASE_DAMAGED"
    assert "malformed" in database.trouble


async def test_cancelled_statements_leave_no_task_behind(database: Database) -> None:
    """Cancelled at any step, twice at once as a server that stops does, every connection ends and others take over."""
    await asyncio.gather(*(_cancelled(database, step) for step in range(200)))
    before = asyncio.current_task()
    async with asyncio.timeout(DEADLINE_S):
        while others := asyncio.all_tasks() - {before}:
            await asyncio.wait(others)

    await database.ping()


async def _cancelled(database: Database, step: int) -> None:
    asking = asyncio.ensure_future(database.ping())
    for _ in range(step):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])


async def _until_up(database: Database) -> None:
    until = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await database.ping()
        except Unavailable:
            assert time.monotonic() < until
