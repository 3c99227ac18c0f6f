"""`millrace backup` and `millrace restore`: what is kept is lost, and comes back row by row."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import BigInteger, Boolean, Double, Integer, LargeBinary, SmallInteger, Table, Uuid, inspect, select

from cli.__main__ import EXIT_REFUSED, main
from cli.backup import cache, database, ledger
from cli.backup.archive import MANIFEST, DatabasePart, PartWriter, making, read_manifest
from cli.errors import CommandError
from services.cache.config import CacheSettings
from services.cache.entry import Entry, Savings
from services.cache.key import Address
from services.cache.store import EntryStore, Selector
from services.cache.wiring import build_store, redis_link
from services.inference.database.database import Database
from services.inference.database.migrating import upgrade, version
from services.inference.database.settings import DatabaseSettings
from services.inference.ledger.journal import Journal, records_of
from tests.fakes.redis_server import RedisServer
from tests.inference.postgres import PostgresServer

ENTRY_COUNT = 150
NUMBERS = count()
MakeUrl = Callable[[str], str]
MakeCache = Callable[[str], CacheSettings]


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real Redis."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def url(tmp_path: Path, request: pytest.FixtureRequest) -> MakeUrl:
    """Makes an empty database of a kind."""

    def make(kind: str) -> str:
        if kind == "postgresql":
            server: PostgresServer = request.getfixturevalue("postgres")
            return server.create_database()
        return f"sqlite+aiosqlite:///{tmp_path}/{next(NUMBERS)}.sqlite3"

    return make


@pytest.fixture
def cache_settings(tmp_path: Path, request: pytest.FixtureRequest) -> MakeCache:
    """Settings of an empty cache of a kind."""

    def make(kind: str) -> CacheSettings:
        if kind == "redis":
            server: RedisServer = request.getfixturevalue("redis")
            server.command("flushall")
            return CacheSettings(store="redis", redis_url=server.url)  # type: ignore[arg-type]
        return CacheSettings(path=tmp_path / f"{next(NUMBERS)}.cache")

    return make


def connect(url: str) -> Database:
    """A database by its URL."""
    return Database(DatabaseSettings(url=url))  # type: ignore[arg-type]


def value(column: Any, number: int) -> Any:
    """What fits a column: the awkward among it, told apart by a number."""
    if column.nullable and number == 1:
        return None
    kinds: list[tuple[type, Any]] = [
        (Uuid, f"01900000-0000-7000-8000-{number:012}"),
        (LargeBinary, bytes([0, 255, number]) * 3),
        (Boolean, number % 2 == 0),
        (Double, 0.1 + number),
        (SmallInteger, number),
        (BigInteger, 2**62 + number),
        (Integer, 2**30 + number),
    ]
    return next((made for kind, made in kinds if isinstance(column.type, kind)), f"ü'\"\\\n\u2028{number}")


async def fill(base: Database) -> None:
    """Puts three rows into every table."""
    await upgrade(base)
    async with base.writing() as connection:
        for table in database.every_table():
            await connection.execute(table.delete())
            rows = [{column.name: value(column, number) for column in table.columns} for number in range(3)]
            await connection.execute(table.insert(), rows)


async def rows_of(base: Database) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table."""

    async def rows(table: Table) -> list[tuple[Any, ...]]:
        async with base.reading() as connection:
            found = await connection.execute(select(table).order_by(*table.primary_key.columns))
            return [tuple(row) for row in found]

    return {table.name: await rows(table) for table in database.every_table()}


def entry(number: int) -> Entry:
    """An entry; every third has a vector, and every second a label."""
    now_ms = time.time_ns() // 1_000_000
    tenant, namespace = bytes([number % 3]) * 32, bytes([number % 5]) * 32
    return Entry(
        Address(tenant, namespace, number.to_bytes(32)),
        nonce=f"n{number}",
        schema_tag="test",
        model="m",
        chunks=(b"\x00" * number, f"answer {number}".encode()),
        created_ms=now_ms,
        expires_ms=now_ms + 3_600_000,
        gone_ms=now_ms + 7_200_000,
        tags=("even",) if number % 2 == 0 else (),
        savings=Savings(number, 1),
        compare_text=f"question {number}",
        embedding=b"\x01\x02" * 8 if number % 3 == 0 else b"",
        embedding_version="v" if number % 3 == 0 else "",
    )


async def opened(settings: CacheSettings) -> EntryStore:
    """The store of some settings."""
    store = build_store(settings, redis_link(settings) if settings.store == "redis" else None)
    await store.open()
    return store


async def kept(store: EntryStore) -> AsyncIterator[Any]:
    """What the store has of our entries, and then what it has of their vectors."""
    for number in range(ENTRY_COUNT):
        yield await store.get(entry(number).address)
    async with aclosing(store.outlines()) as outlines:
        found = [outline async for outline in outlines]
    for outline in sorted(found, key=lambda one: one.address.entry):
        yield outline


@pytest.mark.parametrize("to", ["sqlite", "postgresql"])
@pytest.mark.parametrize("of", ["sqlite", "postgresql"])
async def test_every_row_comes_back(of: str, to: str, url: MakeUrl, tmp_path: Path) -> None:
    """From either database into either, whatever the values."""
    source, target = connect(url(of)), connect(url(to))
    await fill(source)
    folder = tmp_path / "backup"
    folder.mkdir()

    schema, tables = await database.dump_tables(source, folder, lambda *_: None)
    part = DatabasePart(schema, of, tables, PartWriter(folder / "journal.gz").close(), None)
    assert await database.is_empty(target)
    await database.load_tables(target, folder, part, lambda *_: None)

    before, after = await rows_of(source), await rows_of(target)
    assert before == after
    assert {len(rows) for rows in after.values()} == {3}
    assert not await database.is_empty(target)
    for base in (source, target):
        await base.close()


async def test_no_table_is_forgotten(url: MakeUrl) -> None:
    """Whatever a migration makes is in a backup."""
    base = connect(url("sqlite"))
    await upgrade(base)
    async with base.reading() as connection:
        made = await connection.run_sync(lambda known: set(inspect(known).get_table_names()))

    assert made - {"alembic_version"} == {table.name for table in database.every_table()}
    await base.close()


async def test_a_backup_is_of_one_moment(url: MakeUrl, tmp_path: Path) -> None:
    """What is written while it is made is in none of its tables."""
    source = connect(url("sqlite"))
    await fill(source)
    tables = database.every_table()
    late = []

    async def write() -> None:
        async with source.writing() as connection:
            for table in tables:
                row = {column.name: value(column, 7) for column in table.columns}
                await connection.execute(table.insert(), row)

    async with database.snapshot(source) as connection:
        first = await connection.execute(select(tables[0]))
        await write()
        late = [len((await connection.execute(select(table))).all()) for table in tables]

    assert len(first.all()) == 3
    assert late == [3] * len(tables)
    await source.close()


async def test_an_older_backup_is_brought_up_to_date(url: MakeUrl, tmp_path: Path) -> None:
    """Tables that a release before this one did not have are there, and empty."""
    source, target = connect(url("sqlite")), connect(url("sqlite"))
    await fill(source)
    folder = tmp_path / "backup"
    folder.mkdir()
    _, tables = await database.dump_tables(source, folder, lambda *_: None)
    older = {name: table for name, table in tables.items() if name.startswith(("ledger_", "access_"))}

    part = DatabasePart("0002", "sqlite", older, PartWriter(folder / "journal.gz").close(), None)
    await database.load_tables(target, folder, part, lambda *_: None)

    found = await rows_of(target)
    assert {name: len(rows) for name, rows in found.items()} == {name: 3 if name in older else 0 for name in found}
    assert await version(target) == await version(source)
    for base in (source, target):
        await base.close()


@pytest.mark.parametrize("to", ["embedded", "redis"])
@pytest.mark.parametrize("of", ["embedded", "redis"])
async def test_every_entry_comes_back(of: str, to: str, cache_settings: MakeCache, tmp_path: Path) -> None:
    """Answers, vectors and labels, from either store into either; also from one that a service has open."""
    source = cache_settings(of)
    store = await opened(source)
    for number in range(ENTRY_COUNT):
        await store.put(entry(number))
    before = [one async for one in kept(store)]
    folder = tmp_path / "backup"
    folder.mkdir()

    part = await cache.dump_entries(source, folder, lambda *_: None)
    await store.close()
    target = cache_settings(to)
    assert await cache.is_empty(target)
    expired_count = await cache.load_entries(target, folder, part, lambda *_: None)

    again = await opened(target)
    assert (part.entries.count, expired_count) == (ENTRY_COUNT, 0)
    assert [one async for one in kept(again)] == before
    assert None not in before
    assert len(before) == ENTRY_COUNT + ENTRY_COUNT // 3
    assert await again.delete(Selector(bytes(32), tag="even"), dry_run=True) == ENTRY_COUNT // 6
    await again.close()


async def test_a_cache_that_a_service_has_is_not_restored(cache_settings: MakeCache, tmp_path: Path) -> None:
    """Its memory would go on with what the file had."""
    settings = cache_settings("embedded")
    store = await opened(settings)
    (tmp_path / "backup").mkdir()
    part = await cache.dump_entries(settings, tmp_path / "backup", lambda *_: None)

    with pytest.raises(CommandError, match="stop the cache service"):
        await cache.load_entries(settings, tmp_path / "backup", part, lambda *_: None)
    await store.close()


def test_waiting_rows_come_back(tmp_path: Path) -> None:
    """Records that a living process has on its disk lie where one has left them that died."""
    journal = Journal(tmp_path / "ledger", "one", 1 << 26, segment_bytes=4096)
    records = [bytes([number]) * 100 for number in range(1, 90)]
    for record in records:
        journal.append(record)
    (tmp_path / "backup").mkdir()

    part = ledger.dump_journal(tmp_path / "ledger", tmp_path / "backup")
    assert ledger.is_running(tmp_path / "ledger")
    ledger.load_journal(tmp_path / "elsewhere", tmp_path / "backup", part)

    (process,) = (tmp_path / "elsewhere").iterdir()
    assert part.count == len(records)
    assert [record for page in records_of(process) for record in page] == records
    with pytest.raises(CommandError, match="inference is running"):
        ledger.load_journal(tmp_path / "ledger", tmp_path / "backup", part)
    journal.close()


@pytest.fixture
def kept_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything that the services keep, and the settings that say so."""
    folder = tmp_path / "kept"
    for name, at in {
        "INFERENCE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/millrace.sqlite3",
        "INFERENCE_LEDGER_FOLDER": f"{folder}/ledger",
        "INFERENCE_ACCESS_PEPPER_PATH": f"{folder}/pepper",
        "CACHE_PATH": f"{folder}/cache.sqlite3",
    }.items():
        monkeypatch.setenv(f"MILLRACE_{name}", at)
    folder.mkdir()
    (folder / "pepper").write_text("p" * 43 + "\n")
    (folder / "pepper").chmod(0o600)
    assert main(["migrate"]) == 0
    return folder


@pytest.fixture
def made(kept_folder: Path, tmp_path: Path) -> Path:
    """A backup of it."""
    assert main(["backup", str(tmp_path / "made")]) == 0
    return tmp_path / "made"


def test_a_database_of_another_release_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tables are not those that this release would read; an empty one has none."""
    monkeypatch.setenv("MILLRACE_INFERENCE_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path}/empty.sqlite3")

    assert main(["backup", str(tmp_path / "made"), "--only", "database"]) == EXIT_REFUSED
    assert "millrace migrate" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_a_backup_is_its_owners(made: Path) -> None:
    """It has the pepper and people's texts."""
    modes = {stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}

    assert (stat.S_IMODE(made.stat().st_mode), modes) == (0o700, {0o600})


def test_nothing_is_overwritten_unasked(made: Path, kept_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The pepper is enough to stop it; `--check` says the same, and `--force` goes on."""
    (kept_folder / "pepper").write_text("q" * 43)

    assert main(["restore", str(made), "--check"]) == 1
    assert main(["restore", str(made)]) == 1
    assert (kept_folder / "pepper").read_text() == "q" * 43
    assert "--force" in capsys.readouterr().err
    assert main(["restore", str(made), "--force"]) == 0
    assert (kept_folder / "pepper").read_text() == "p" * 43 + "\n"
    assert stat.S_IMODE((kept_folder / "pepper").stat().st_mode) == 0o600


def test_a_backup_is_never_overwritten(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A second one needs a name of its own."""
    before = (made / MANIFEST).read_bytes()

    assert main(["backup", str(made)]) == 1
    assert (made / MANIFEST).read_bytes() == before
    assert "is there already" in capsys.readouterr().err


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No folder could be taken for a backup."""

    def fail() -> None:
        with making(tmp_path / "made") as folder:
            PartWriter(folder / "part").close()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_damage_is_found_before_anything_changes(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bit is enough, and the part is named."""
    part = made / "access_keys.jsonl.gz"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)

    assert main(["restore", str(made), "--force"]) == 1
    assert "damaged (access_keys.jsonl.gz)" in capsys.readouterr().err


def test_a_part_that_is_missing_is_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So is a folder that is no backup at all."""
    (made / "files.jsonl.gz").unlink()

    assert main(["restore", str(made), "--force"]) == 1
    assert main(["restore", str(made.parent), "--force"]) == 1
    told = capsys.readouterr().err
    assert "files.jsonl.gz is missing" in told
    assert f"{MANIFEST} is missing" in told


def test_a_newer_format_is_left_alone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody guesses what a later one means."""
    manifest = json.loads((made / MANIFEST).read_text())
    (made / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))

    assert main(["restore", str(made)]) == 1
    assert "format 99" in capsys.readouterr().err


def test_the_manifest_says_what_there_is(made: Path) -> None:
    """Every file is in it, and nothing else is there."""
    manifest = read_manifest(made)

    assert {part.file for part in manifest.parts} | {MANIFEST} == {path.name for path in made.iterdir()}
    assert manifest.database is not None
    assert manifest.database.tables["access_state"].part.count == 1
    assert manifest.cache is not None
    assert manifest.cache.store == "embedded"


def test_half_of_it_can_be_left_out(kept_folder: Path, tmp_path: Path) -> None:
    """A backup of the cache alone neither has nor restores the database."""
    assert main(["backup", str(tmp_path / "half"), "--only", "cache"]) == 0

    assert read_manifest(tmp_path / "half").database is None
    assert main(["restore", str(tmp_path / "half"), "--only", "database"]) == 1
