"""Users and refresh tokens in the database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Row, and_, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.errors import Code, MillraceError, NotFound, Unauthenticated, error_of
from services.inference.access import tables
from services.inference.access.key_store import raise_version
from services.inference.access.users import RefreshToken, User
from services.inference.database.database import Database

_USER_COLUMNS = [column for column in tables.users.columns if column.name != "password_hash"]


class UserStore:
    """Keeps users; see `users.Store`."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    async def create(self, user: User, password_hash: str) -> User:
        """Keeps a new user."""
        values = {**msgspec.structs.asdict(user), "password_hash": password_hash}
        try:
            async with self._database.writing() as connection:
                await connection.execute(insert(tables.users).values(values))
        except IntegrityError:
            raise error_of(Code.ALREADY_EXISTS, "USER_EXISTS", f"there is a user {user.name!r} already") from None
        return user

    async def find(self, name: str) -> tuple[User, str] | None:
        """Returns a user and the password's hash, or None."""
        query = select(tables.users).where(tables.users.c.name == name)
        async with self._database.reading() as connection:
            row = (await connection.execute(query)).one_or_none()
        return row and (_user(row), row.password_hash)

    async def list(self, count: int, after: str) -> list[User]:
        """Returns users by name, from behind a name."""
        users = tables.users
        query = select(*_USER_COLUMNS).where(users.c.name > after).order_by(users.c.name).limit(count)
        async with self._database.reading() as connection:
            return [_user(row) for row in (await connection.execute(query)).all()]

    async def disable(self, name: str) -> User:
        """Disables a user and voids the refresh tokens."""
        users, tokens = tables.users, tables.refresh_tokens
        active = and_(users.c.name == name, users.c.disable_time_ms.is_(None))
        async with self._database.writing() as connection:
            await raise_version(connection)  # keyrings learn of it
            await connection.execute(update(users).where(active).values(disable_time_ms=self._now_ms()))
            await connection.execute(delete(tokens).where(tokens.c.user_name == name))
            row = (await connection.execute(select(*_USER_COLUMNS).where(users.c.name == name))).one_or_none()
            if row is None:
                raise NotFound("USER_NOT_FOUND", f"there is no user {name[:64]!r}")
            return _user(row)

    async def add_token(self, token: RefreshToken) -> None:
        """Keeps a refresh token, and forgets those that have expired."""
        tokens = tables.refresh_tokens
        async with self._database.writing() as connection:
            await connection.execute(delete(tokens).where(tokens.c.expire_time_ms < self._now_ms()))
            await connection.execute(insert(tokens).values(msgspec.structs.asdict(token)))

    async def use_token(self, digest: str, successor: RefreshToken) -> User:
        """Trades a refresh token, once, for a successor."""
        async with self._database.writing() as connection:
            outcome = await self._use(connection, digest, successor)
        # Raised behind the transaction: what it voided stays void.
        if isinstance(outcome, MillraceError):
            raise outcome
        return outcome

    async def _use(self, connection: AsyncConnection, digest: str, successor: RefreshToken) -> User | MillraceError:
        tokens, now_ms = tables.refresh_tokens, self._now_ms()
        unused = and_(tokens.c.digest == digest, tokens.c.use_time_ms.is_(None), tokens.c.expire_time_ms > now_ms)
        used = update(tokens).where(unused).values(use_time_ms=now_ms).returning(tokens)
        row = (await connection.execute(used)).one_or_none()
        if row is None:
            return await self._refuse(connection, digest)
        user = (
            await connection.execute(select(tables.users).where(tables.users.c.name == row.user_name))
        ).one_or_none()
        if user is None or user.disable_time_ms is not None:
            return _invalid()
        successor = msgspec.structs.replace(successor, login_id=row.login_id, user_name=row.user_name)
        await connection.execute(insert(tokens).values(msgspec.structs.asdict(successor)))
        return _user(user)

    async def _refuse(self, connection: AsyncConnection, digest: str) -> MillraceError:
        tokens = tables.refresh_tokens
        row = (await connection.execute(select(tokens).where(tokens.c.digest == digest))).one_or_none()
        if row is None or row.use_time_ms is None:
            return _invalid()
        await connection.execute(
            delete(tokens).where(tokens.c.login_id == row.login_id, tokens.c.use_time_ms.is_(None))
        )
        return Unauthenticated("REFRESH_TOKEN_REUSED", "the refresh token was used before; log in again")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _user(row: Row[Any]) -> User:
    return User(row.name, row.tenant, row.role, row.tier, row.created_time_ms, row.disable_time_ms)


def _invalid() -> Unauthenticated:
    return Unauthenticated("REFRESH_TOKEN_INVALID", "the refresh token is not valid; log in again")
