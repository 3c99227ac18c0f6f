"""Budgets are told what the ledger knows: once for all who come at a time, and never at the price of a long wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kit.errors import Unavailable
from kit.identity import Caller
from services.inference.quota.limit import Claim, Limit, Unit, Window
from services.inference.quota.memory_store import MemoryStore
from services.inference.quota.opening import SECOND_LOOK_S, Account, Opening, Used
from services.inference.quota.redis_store import RedisStore
from tests.fakes.redis_server import RedisServer
from tests.inference.quota.conftest import redis_lane
from tests.inference.quota.parts import claim, limit

ALICE = Caller(tenant="acme", principal="alice", key_id="k1")
PATIENCE_S = 10


class Books:
    """A ledger that says what it is told to say."""

    def __init__(self) -> None:
        self.used = Used(70, 5)
        self.asked: list[Account] = []
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def look_up(self, account: Account, since_ms: int) -> Used:
        self.asked.append(account)
        await self.answers.wait()
        if self.is_away:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        return self.used


class Told(MemoryStore):
    """A store that says when a count was raised."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: asyncio.Queue[Claim] = asyncio.Queue()

    async def floor(self, claim: Claim) -> None:
        await super().floor(claim)
        self.raised.put_nowait(claim)


class Clock:
    """A steady clock that stands until it is turned."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def books() -> Books:
    """A ledger."""
    return Books()


@pytest.fixture
def steady() -> Clock:
    """The clock of looks."""
    return Clock()


@pytest.fixture
async def store() -> Told:
    """An empty store."""
    return Told()


@pytest.fixture
async def opening(books: Books, store: Told, steady: Clock) -> AsyncIterator[Opening]:
    """What is tested."""
    made = Opening(books.look_up, store, steady)
    yield made
    await made.close()


def budget(maximum: int = 100, subject: str = "user:alice", unit: Unit = Unit.TOKENS) -> Limit:
    return limit(maximum, Window.DAY, unit, subject=subject)


async def granted(opening: Opening, one: Limit, amount: int) -> bool:
    return all(standing.fits for standing in await opening.take(claim((one, amount)), ALICE))


async def raised(store: Told) -> None:
    """Waits until a look has raised a count."""
    async with asyncio.timeout(PATIENCE_S):
        await store.raised.get()


async def test_those_who_come_at_once_share_one_look(opening: Opening, store: Told, books: Books) -> None:
    """Of a thousand claims at once only what the ledger leaves is granted, and the ledger is asked once."""
    answers = await asyncio.gather(*(granted(opening, budget(), 1) for _ in range(1_000)))

    assert sum(answers) == 30
    assert books.asked == [Account("acme", "alice")]


@pytest.mark.parametrize(
    ("subject", "account"),
    [
        ("tenant:acme", Account("acme")),
        ("key:k1", Account("acme", "alice", "k1")),
        ("user:alice", Account("acme", "alice")),
    ],
)
async def test_each_subject_has_its_account(
    opening: Opening, store: Told, books: Books, subject: str, account: Account
) -> None:
    """A tenant's, a principal's and a key's budget are told of their own rows; money in money's unit."""
    assert not await granted(opening, budget(10, subject, Unit.MICRO_USD), 6)
    assert await granted(opening, budget(10, subject, Unit.MICRO_USD), 5)
    assert books.asked == [account]


async def test_what_the_ledger_does_not_know_begins_at_nothing(opening: Opening, store: Told, books: Books) -> None:
    """Anonymous clients have no rows of their own, and minutes are nobody's past: the ledger is not asked."""
    assert await granted(opening, budget(100, "client:9"), 100)
    assert await granted(opening, limit(100, unit=Unit.TOKENS), 100)
    assert not books.asked


async def test_a_slow_ledger_is_waited_for_once(opening: Opening, store: Told, books: Books, steady: Clock) -> None:
    """The first claim waits a moment, the next ones do not; when the answer comes it counts."""
    books.answers.clear()
    assert await granted(opening, budget(), 31)
    steady.now_s += 0.2
    assert await granted(opening, budget(), 1)
    assert len(books.asked) == 1

    books.answers.set()
    await raised(store)
    assert not await granted(opening, budget(), 31)
    assert await granted(opening, budget(), 30)


async def test_a_ledger_that_is_away_is_asked_again_later(
    opening: Opening, store: Told, books: Books, steady: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the ledger claims go on at once, the log says so once, and a later look finds what was used."""
    books.is_away = True
    for _ in range(3):
        assert await granted(opening, budget(), 1)
    assert len(books.asked) == 1
    assert [record.getMessage() for record in caplog.records] == ["budgets are counted without the ledger"]

    books.is_away = False
    steady.now_s += SECOND_LOOK_S
    assert await granted(opening, budget(), 1)
    await raised(store)
    assert not await granted(opening, budget(), 31)


async def test_what_a_dead_process_left_is_found_a_little_later(
    opening: Opening, store: Told, books: Books, steady: Clock
) -> None:
    """A second look comes by itself, the next one when the counts may be old."""
    assert await granted(opening, budget(), 1)
    await raised(store)
    books.used = Used(90, 0)
    for count in (2, 3):
        steady.now_s += SECOND_LOOK_S
        assert await granted(opening, budget(), 0)
        await raised(store)
        assert not await granted(opening, budget(), 11)
        assert len(books.asked) == count
        steady.now_s += 100 * SECOND_LOOK_S
        assert not await granted(opening, budget(), 11)
        opening.forget()
        assert not await granted(opening, budget(), 11)
        assert len(books.asked) == count


async def test_a_count_that_was_lost_is_found_again(books: Books, shared_redis: RedisServer) -> None:
    """A Redis that comes back empty, unnoticed, gives no budget twice."""
    lane = redis_lane(shared_redis.url)
    await lane.open()
    opening = Opening(books.look_up, RedisStore(lane))
    month = limit(1_000, Window.MONTH, Unit.TOKENS)
    for _ in range(2):
        shared_redis.command("flushall")
        standings = await opening.take(claim((budget(), 10), (month, 10)), ALICE)

        assert [one.remaining for one in standings] == [20, 920]
    await opening.close()
    await lane.close()
