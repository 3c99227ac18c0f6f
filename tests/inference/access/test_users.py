"""Users: logins that tell nothing, refresh tokens that work once."""

from __future__ import annotations

import asyncio
import threading
from typing import Literal

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from kit.errors import Code, InvalidArgument, MillraceError, NotFound, ResourceExhausted, Unauthenticated
from kit.identity import Caller
from services.inference.access import tables
from services.inference.access.login_limit import LoginLimit
from services.inference.access.passwords import AT_ONCE, WAITING_MAX, Passwords
from services.inference.access.tokens import Minter, Tokens
from services.inference.access.user_store import UserStore
from services.inference.access.users import User, Users
from services.inference.database.database import Database
from services.inference.quota.memory_store import MemoryStore
from tests.inference.access.parts import PEPPER, Clock

PASSWORD = "correct horse battery"
MINTER = Minter(b"s" * 32, 900)


def made(database: Database, clock: Clock, name_max: int = 100, address_max: int = 100) -> tuple[Users, Passwords]:
    """Users over a database, with a cheap hash."""
    passwords = Passwords(PasswordHasher(1, 64, 1))
    limit = LoginLimit(MemoryStore(lambda: int(clock() * 1000)), name_max, address_max)
    return Users(UserStore(database, clock), passwords, MINTER, limit, PEPPER, 3600, clock), passwords


async def reason_of(awaitable) -> str:
    """The reason of the error that something ends with."""
    with pytest.raises(MillraceError) as caught:
        await awaitable
    return caught.value.reason


async def test_a_user_logs_in(either_database: Database, clock: Clock) -> None:
    """The token says who it is; what is kept of the password is an argon2id hash."""
    users, _ = made(either_database, clock)
    await users.create(User("ada", "acme", "admin", "premium"), PASSWORD)
    login = await users.login("ada", PASSWORD, "1.2.3.4")
    async with either_database.reading() as connection:
        kept = (await connection.execute(select(tables.users.c.password_hash))).scalar_one()

    assert await Tokens(MINTER.issuer).caller_of(login.access_token) == Caller("ada", "acme", "admin", tier="premium")
    assert login.access_ttl_s == 900
    assert kept.startswith("$argon2id$")


async def test_every_failed_login_looks_and_costs_the_same(database: Database, clock: Clock) -> None:
    """A wrong password, an unknown name, a disabled user and a name that cannot be one: one hash, one answer."""
    users, passwords = made(database, clock)
    await users.create(User("ada"), PASSWORD)
    await users.create(User("bob"), PASSWORD)
    await users.disable("bob")
    errors = []
    for name, password in (
        ("ada", "wrong"),
        ("nobody", PASSWORD),
        ("bob", PASSWORD),
        ("a b'--", PASSWORD),
        ("ada", ""),
    ):
        before = passwords.check_count
        with pytest.raises(Unauthenticated) as caught:
            await users.login(name, password, "1.2.3.4")
        errors.append(repr(caught.value))
        assert passwords.check_count == before + 1

    assert len(set(errors)) == 1
    assert "LOGIN_FAILED" in errors[0]


async def test_guesses_are_bounded_by_name_and_by_address(database: Database, clock: Clock) -> None:
    """The right password does not help whoever has used up the attempts; a minute later it does."""
    users, passwords = made(database, clock, name_max=3, address_max=10)
    await users.create(User("ada"), PASSWORD)
    for number in range(3):
        assert await reason_of(users.login("ada", "wrong", f"1.1.1.{number}")) == "LOGIN_FAILED"
    with pytest.raises(ResourceExhausted) as caught:
        await users.login("ada", PASSWORD, "2.2.2.2")
    assert caught.value.reason == "LOGIN_LIMITED"
    assert caught.value.retry_after_ms is not None
    assert passwords.check_count == 3
    for number in range(10):
        assert await reason_of(users.login(f"u{number}", "wrong", "3.3.3.3")) == "LOGIN_FAILED"
    assert await reason_of(users.login("other", "wrong", "3.3.3.3")) == "LOGIN_LIMITED"
    clock.now += 60

    assert await users.login("ada", PASSWORD, "2.2.2.2")


class StuckHasher(PasswordHasher):
    """A hasher whose checks take until they are let go."""

    def __init__(self) -> None:
        super().__init__(1, 64, 1)
        self.gate = threading.Event()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
        self.gate.wait(10)
        return super().verify(hash, password)


async def test_too_many_at_once_are_sent_away() -> None:
    """A flood of logins cannot queue without end for threads that hash; afterwards it is as before."""
    hasher = StuckHasher()
    passwords = Passwords(hasher)
    checks = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(AT_ONCE + WAITING_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as caught:
        await passwords.verify(None, "x")
    hasher.gate.set()

    assert caught.value.reason == "LOGIN_BUSY"
    assert not any(await asyncio.gather(*checks))
    assert await passwords.verify(None, "x") is False


async def test_a_refresh_token_works_once_and_its_successor_goes_on(either_database: Database, clock: Clock) -> None:
    """One after the other, for as long as somebody comes."""
    users, _ = made(either_database, clock)
    await users.create(User("ada"), PASSWORD)
    login = await users.login("ada", PASSWORD, "a")
    for _ in range(3):
        clock.now += 1800
        before, login = login, await users.refresh(login.refresh_token)
        assert before.refresh_token != login.refresh_token


async def test_a_refresh_token_that_comes_twice_voids_its_login(either_database: Database, clock: Clock) -> None:
    """Whoever stole it and whoever it was stolen from both have to log in; another login of the user goes on."""
    users, _ = made(either_database, clock)
    await users.create(User("ada"), PASSWORD)
    first, other = await users.login("ada", PASSWORD, "a"), await users.login("ada", PASSWORD, "a")
    second = await users.refresh(first.refresh_token)

    assert await reason_of(users.refresh(first.refresh_token)) == "REFRESH_TOKEN_REUSED"
    assert await reason_of(users.refresh(second.refresh_token)) == "REFRESH_TOKEN_INVALID"
    assert await users.refresh(other.refresh_token)


async def test_of_two_who_refresh_at_once_one_wins(either_database: Database, clock: Clock) -> None:
    """The database decides, so that it holds between replicas."""
    users, _ = made(either_database, clock)
    await users.create(User("ada"), PASSWORD)
    token = (await users.login("ada", PASSWORD, "a")).refresh_token
    outcomes = await asyncio.gather(*(users.refresh(token) for _ in range(4)), return_exceptions=True)

    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1


async def test_refresh_tokens_end(database: Database, clock: Clock) -> None:
    """By time, by the user's end, and one that nobody gave out was never good."""
    users, _ = made(database, clock)
    await users.create(User("ada"), PASSWORD)
    late, void = await users.login("ada", PASSWORD, "a"), await users.login("ada", PASSWORD, "a")
    await users.disable("ada")
    assert await reason_of(users.refresh(void.refresh_token)) == "REFRESH_TOKEN_INVALID"
    clock.now += 3601

    assert await reason_of(users.refresh(late.refresh_token)) == "REFRESH_TOKEN_INVALID"
    assert await reason_of(users.refresh("mrr_" + "x" * 43)) == "REFRESH_TOKEN_INVALID"
    assert await reason_of(users.refresh("x")) == "REFRESH_TOKEN_INVALID"


async def test_users_are_listed_and_disabled(either_database: Database, clock: Clock) -> None:
    """By name, in pages; whoever does not exist is not found."""
    users, _ = made(either_database, clock)
    for name in ("carol", "ada", "bob"):
        await users.create(User(name), PASSWORD)
    await users.disable("bob")

    assert [user.name for user in await users.list(2, "")] == ["ada", "bob"]
    assert [user.name for user in await users.list(2, "bob")] == ["carol"]
    assert [user.disable_time_ms is None for user in await users.list(9, "")] == [True, False, True]
    with pytest.raises(NotFound):
        await users.disable("nobody")


async def test_a_user_that_cannot_be_is_refused(database: Database, clock: Clock) -> None:
    """A name with a space, a short password, a second one of the name."""
    users, _ = made(database, clock)
    with pytest.raises(InvalidArgument, match=r"user\.name"):
        await users.create(User("a b"), PASSWORD)
    with pytest.raises(InvalidArgument, match="password"):
        await users.create(User("ada"), "short")
    await users.create(User("ada"), PASSWORD)
    with pytest.raises(MillraceError) as caught:
        await users.create(User("ada"), PASSWORD)

    assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "USER_EXISTS")
