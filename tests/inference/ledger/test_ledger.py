"""The ledger: each attempt and each request has exactly one row, whatever becomes of process, disk or database."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from kit.errors import Unavailable
from services.inference.events import AttemptOutcome, CacheEvent, CacheOutcome, Receipt
from services.inference.generation import Usage
from services.inference.ledger import sqlite_rows, tables
from services.inference.ledger.history import Scope
from services.inference.ledger.retention import DAY_MS, Retention
from services.inference.ledger.row import Entry, first_id, new_id
from services.inference.ledger.settings import LedgerSettings
from tests.inference.ledger.parts import ALICE, Books, answered, asked, attempt, open_database
from tests.inference.postgres import PostgresServer

DEADLINE_S = 60.0
EVERYBODY = Scope()


async def rows(books: Books, table: Any = tables.requests) -> list[Any]:
    async with books.database.reading() as connection:
        return list((await connection.execute(select(table).order_by(table.c.id))).mappings())


async def until(holds: Callable[[], bool]) -> None:
    """Waits for what another task brings about."""
    give_up_at = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up_at
        await asyncio.sleep(0.01)


def die(books: Books) -> None:
    """Ends the process, as far as others see: its lock is free, its files are as they were."""
    assert books.journal._lock is not None
    os.close(books.journal._lock)
    books.journal._lock = None


async def test_a_request_and_its_attempts_have_their_rows(books: Books) -> None:
    """Tokens and cost of the request are those of all its attempts; what was not made has no row."""
    broken = attempt(1, AttemptOutcome.FAILED, usage=Usage(3, 2, estimated=True), usage_source="counted")
    broken.cost_micro_usd, broken.error_reason = 5, "UPSTREAM_TRUNCATED"
    skipped = attempt(2, AttemptOutcome.SKIPPED, error_reason="BREAKER_OPEN")
    books.record(answered("gpt", None, broken, skipped, attempt(3, AttemptOutcome.OK)))
    await books.shipping.flush()

    (request,), tried = await rows(books), await rows(books, tables.attempts)

    assert [request[name] for name in ("tenant", "principal", "key_name", "model")] == [
        "acme",
        "alice",
        "alice's",
        "gpt",
    ]
    assert (request["prompt_token_count"], request["completion_token_count"], request["cost_micro_usd"]) == (6, 9, 15)
    assert (request["usage_source"], request["attempt_count"], request["outcome"]) == ("counted", 2, "ok")
    assert [(one["number"], one["outcome"], one["cost_micro_usd"]) for one in tried] == [
        (1, "failed", 5),
        (3, "ok", 10),
    ]
    assert {one["id"] for one in tried} == {request["id"]}


async def test_an_unknown_price_is_no_zero(books: Books) -> None:
    """One attempt without a price makes the whole unknown; a kept answer costs nothing."""
    books.record(answered("a", None, attempt(1, AttemptOutcome.OK), attempt(2, AttemptOutcome.OK, cost_micro_usd=None)))
    kept = answered("b")
    kept.attempts, kept.engine, kept.cache = [], "cache", CacheEvent(CacheOutcome.EXACT)
    books.record(kept)
    await books.shipping.flush()

    costs = {row["model"]: row["cost_micro_usd"] for row in await rows(books)}
    assert costs == {"a": None, "b": 0}
    (total,) = await books.history.sums(EVERYBODY)
    assert (total["unpriced_request_count"], total["cache_hit_count"], total["cost_micro_usd"]) == (1, 1, 0)


async def test_what_is_shipped_twice_is_there_once(books: Books) -> None:
    """A crash between the database's commit and ours doubles neither rows nor sums."""
    count = 2 * sqlite_rows.AT_ONCE + 5
    for _ in range(count):
        books.record()
    segment = books.journal.segments[0]
    await books.shipping.flush()
    segment.read = 0
    books.record()
    await books.shipping.flush()

    assert len(await rows(books)) == len(await rows(books, tables.attempts)) == count + 1
    assert [one["request_count"] for one in await books.history.sums(EVERYBODY)] == [count + 1]


async def test_shipping_takes_what_was_there_and_not_what_comes_meanwhile(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under load something always comes: it waits to be gathered, in place of a transaction for each few rows."""
    insert, taken = books.store.insert, list[int]()

    async def and_one_more(entries: Sequence[Entry]) -> None:
        taken.append(len(entries))
        books.record()
        await insert(entries)

    monkeypatch.setattr(books.store, "insert", and_one_more)
    for _ in range(3):
        books.record()
    await books.shipping.flush()
    assert taken == [3]

    await books.shipping.flush()
    assert (taken, len(await rows(books))) == ([3, 1], 4)


async def test_another_brings_in_what_a_dead_process_left(books: Books, tmp_path: Path) -> None:
    """What had ended has its row, what had only begun gets one that says so; a process that lives is left alone."""
    dead = Books(tmp_path / "ledger", books.database)
    ended = dead.record()
    running = Receipt("r2", "gpt", created_time=1.0)
    for number in (1, 2):
        running.attempts.append(attempt(number))
        dead.ledger.begin(asked(), running, running.attempts[-1])
    ended_too = Receipt("r3", "gpt", created_time=1.0, attempts=[attempt(1)])
    dead.ledger.begin(asked(), ended_too, ended_too.attempts[0])
    dead.record(ended_too, outcome="failed")
    await books.shipping.adopt()
    assert await rows(books) == []

    die(dead)
    for _ in range(2):
        await books.shipping.adopt()

    found = {row["id"]: row for row in await rows(books)}
    assert {ended.ledger_id: "ok", running.ledger_id: "lost", ended_too.ledger_id: "failed"} == {
        key: row["outcome"] for key, row in found.items()
    }
    lost = found[running.ledger_id]
    assert (lost["error_reason"], lost["completion_token_count"], lost["cost_micro_usd"]) == (
        "PROCESS_LOST",
        None,
        None,
    )
    assert (lost["tenant"], lost["key_name"], lost["attempt_count"]) == ("acme", "alice's", 2)
    tried = [(one["number"], one["outcome"]) for one in await rows(books, tables.attempts) if one["id"] == lost["id"]]
    assert tried == [(1, "lost"), (2, "lost")]
    assert not dead.journal.folder.exists()


async def test_a_row_that_the_database_refuses_keeps_no_other_back(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged whole, and the rest goes on."""
    bad = answered()
    bad.request_id = "\x00" if not books.database.is_sqlite else "r"
    books.record()
    books.record(bad)
    if books.database.is_sqlite:
        async with books.database.writing() as connection:
            await connection.execute(
                text("CREATE TRIGGER no BEFORE INSERT ON ledger_requests WHEN NEW.request_id = 'r' "
                     "BEGIN SELECT RAISE(ABORT, 'no'); END")
            )  # fmt: skip
    books.record()
    await books.shipping.flush()

    assert len(await rows(books)) == 2
    assert "a row was refused by the database" in caplog.text


async def test_a_full_disk_refuses_new_work_and_loses_nothing(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs is recorded in memory until there is room; new requests get LEDGER_FULL meanwhile."""
    books.ledger.check()

    def no_room(record: bytes) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(books.journal, "append", no_room)
    books.record()
    with pytest.raises(Unavailable, match="the disk of the ledger is full; whoever runs it must make room") as caught:
        books.ledger.check()
    assert caught.value.reason == "LEDGER_FULL"
    await books.shipping.flush()
    assert await rows(books) == []

    monkeypatch.undo()
    await books.shipping.flush()
    books.ledger.check()
    assert len(await rows(books)) == 1


async def test_why_no_work_is_taken_is_said_once(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk without room and a database that takes nothing are told apart, to callers and in the log."""
    told = []
    with caplog.at_level(logging.INFO, "services.inference.ledger.ledger"):
        for name in ("is_disk_full", "is_behind"):
            monkeypatch.setattr(type(books.journal), name, property(lambda _: True))
            for _ in range(2):
                with pytest.raises(Unavailable) as caught:
                    books.ledger.check()
            told.append(caught.value.message)
            monkeypatch.undo()
            books.ledger.check()

    assert ["disk" in told[0], "database" in told[1]] == [True, True]
    assert [record.message for record in caplog.records] == [
        "new requests are refused",
        "requests are recorded again",
    ] * 2


async def test_sync_waits_for_the_disk_and_shares_the_wait(
    books: Books, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty requests that end together wait for two turns of the disk at most; without the setting nobody waits."""
    strict, turns = Books(tmp_path / "strict", books.database, sync=True), []
    monkeypatch.setattr(strict.journal, "sync", lambda: turns.append(strict.ledger._appended))

    async def end() -> None:
        strict.record()
        await strict.ledger.recorded()

    await asyncio.gather(*(end() for _ in range(50)))
    assert 1 <= len(turns) <= 2
    assert turns[-1] == 50
    strict.journal.close()


@pytest.fixture
def frozen(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server that is thawed in any case."""
    yield postgres
    postgres.thaw()


@pytest.mark.parametrize("how", ["freeze", "stop"])
async def test_an_outage_of_postgresql_loses_and_doubles_nothing(
    frozen: PostgresServer, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests are recorded at once all the while; afterwards each row is there once, and the log has two lines."""
    database = await open_database(frozen.create_database(), timeout_s=2.0)
    books = Books(tmp_path / "ledger", database)
    ready = asyncio.Event()
    ready.set()
    books.shipping.start(ready)
    ids = {books.record().ledger_id for _ in range(50)}
    await books.shipping.flush()
    getattr(frozen, how)()
    try:
        ids |= {books.record().ledger_id for _ in range(200)}
        await until(lambda: books.shipping.lag_s > 0)
        ids |= {books.record().ledger_id for _ in range(200)}
    finally:
        frozen.thaw() if how == "freeze" else frozen.start()
    await until(lambda: not books.shipping.lag_s and not books.journal.waiting_bytes)

    found = [row["id"] for row in await rows(books)]
    assert len(found) == len(ids) == 450
    assert set(found) == ids
    assert [one["request_count"] for one in await books.history.sums(EVERYBODY)] == [450]
    said = [one.message for one in caplog.records if one.name.endswith("shipping")]
    assert said.count("rows wait for the database") == 1
    await books.shipping.close(1)
    await database.close()


async def test_pages_go_on_where_the_last_one_ended(books: Books) -> None:
    """Newest first, each once, though others are added meanwhile; by tenant, principal, key, model and time."""
    for number in range(25):
        books.record(answered(f"m{number % 2}", 1_000.0 + number))
    books.record(answered(created_time=5_000.0), caller=ALICE.__class__("bob", "acme"))
    seen: list[str] = []
    before = None
    while page := await books.history.page(Scope(principal="alice"), 10, before):
        before = page[-1]["id"]
        seen += [row["id"] for row in page]
        books.record(answered(created_time=9_000.0))

    assert len(seen) == 25
    assert seen == sorted(seen, reverse=True)
    assert len(await books.history.page(Scope(model="m1", key_id="k1", tenant="acme"), 100, None)) == 12
    span = Scope(start_ms=1_010_000, end_ms=1_020_000, principal="alice")
    assert len(await books.history.page(span, 100, None)) == 10
    assert [len(row["attempts"]) for row in await books.history.page(span, 1, None)] == [1]


async def test_sums_are_told_by_time_and_group(books: Books) -> None:
    """By day and key, of whole hours; what nobody did has no line."""
    day_s = 86_400
    for day, count in ((10, 2), (11, 3), (20, 1)):
        for _ in range(count):
            books.record(answered("gpt", day * day_s + 7_200.0))
    books.record(answered("other", 10 * day_s + 7_200.0), caller=ALICE.__class__("bob", "acme", key_id="k2"))

    lines = await books.history.sums(Scope(tenant="acme"), DAY_MS, ["key_id"])
    told = [(line["start_time_ms"] // DAY_MS, line["key_id"], line["request_count"]) for line in lines]
    assert told == [(10, "k1", 2), (10, "k2", 1), (11, "k1", 3), (20, "k1", 1)]
    hour = 10 * DAY_MS + 7_200_000
    (within,) = await books.history.sums(Scope(start_ms=hour + 5, end_ms=hour + 6), None)
    sums = [within[name] for name in ("request_count", "prompt_token_count", "cost_micro_usd")]
    assert sums == [3, 9, 30]
    assert [type(one) for one in sums] == [int, int, int]
    assert await books.history.sums(Scope(start_ms=hour + 3_600_000, end_ms=hour + 7_200_000)) == []


async def test_texts_and_rows_are_kept_for_so_long(books: Books) -> None:
    """Each as long as its own setting says; the sums stay for good."""
    now_s = 1_000 * 86_400.0
    for age_days in (0, 20, 40, 80):
        made = answered(created_time=now_s - age_days * 86_400)
        made.texts = lambda: ("What?", "That.")
        books.record(made)
    await books.shipping.flush()
    retention = Retention(books.store, LedgerSettings(text_days=30, row_days=60), lambda: now_s)
    await retention.delete()

    assert len(await rows(books, tables.texts)) == 2
    assert len(await rows(books)) == len(await rows(books, tables.attempts)) == 3
    assert sum(one["request_count"] for one in await books.history.sums(EVERYBODY)) == 4
    newest, *_ = await books.history.page(EVERYBODY, 1, None)
    assert (newest["prompt"], newest["completion"]) == ("What?", "That.")


def test_ids_are_in_the_order_of_time() -> None:
    """Ten thousand of one instant differ, and lie between the bounds of that instant."""
    ids = {new_id(1_700_000_000.123) for _ in range(10_000)}

    assert len(ids) == 10_000
    assert first_id(1_700_000_000_123) < min(ids) < max(ids) < first_id(1_700_000_000_124)
    assert {one[14] for one in ids} == {"7"}
