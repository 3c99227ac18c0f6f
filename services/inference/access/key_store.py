"""Keys in the database, and who was disabled. It knows digests only; what they are of never comes here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.errors import FailedPrecondition, InvalidArgument, NotFound
from kit.identity import Caller
from services.inference.access import tables
from services.inference.access.key import Key, KeyDraft, Secret, key_of
from services.inference.database.database import Database

# Nothing that a user began lasts longer: a job a week, a token a day.
DISABLED_MS = 8 * 24 * 3_600_000
_LISTS = ("models", "endpoints", "safety_profiles")
_VERSION = select(tables.state.c.version)  # asked for twice a second
_COLUMNS = [column for column in tables.keys.columns if column.name != "version"]


class Changes(msgspec.Struct, frozen=True):
    """Keys that changed, every secret of theirs, who was disabled of late, and the version that this makes whole."""

    version: int
    keys: Sequence[Key]
    secrets: Sequence[Secret]
    disabled_users: frozenset[tuple[str, str]] = frozenset()


class KeyStore:
    """Keeps keys.

    Every method raises Unavailable (DATABASE_UNAVAILABLE) where the database does not answer.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    async def agree(self, pepper_check: str) -> bool:
        """Whether the keys were hashed under the pepper with this check; the first one to ask decides."""
        async with self._database.writing() as connection:
            state = tables.state
            first = and_(state.c.id == 1, state.c.pepper_check == "")
            await connection.execute(update(state).where(first).values(pepper_check=pepper_check))
            kept: str = (await connection.execute(select(state.c.pepper_check))).scalar_one()
            return kept == pepper_check

    async def changes(self, since: int) -> Changes | None:
        """Returns what changed after a version, or None where nothing did; -1 asks for all."""
        keys, secrets, users = tables.keys, tables.secrets, tables.users
        async with self._database.reading() as connection:
            version: int = (await connection.execute(_VERSION)).scalar_one()
            if version == since:
                return None
            found = (await connection.execute(select(*_COLUMNS).where(keys.c.version > since))).all()
            joined = select(secrets).join(keys, keys.c.key_id == secrets.c.key_id).where(keys.c.version > since)
            kept = (await connection.execute(joined)).all()
            late = users.c.disable_time_ms > self._now_ms() - DISABLED_MS
            disabled = (await connection.execute(select(users.c.tenant, users.c.name).where(late))).all()
        # What was committed between the queries has a higher version: it is read again with the next one.
        users_off = frozenset((row.tenant, row.name) for row in disabled)
        return Changes(version, [_key(row) for row in found], [_secret(row) for row in kept], users_off)

    async def create(self, draft: KeyDraft, prefix: str, digest: str) -> Key:
        """Keeps a new key; raises InvalidArgument as `KeyDraft.check`."""
        draft.check(self._now_ms())
        key = key_of(draft, prefix, self._now_ms())
        async with self._database.writing() as connection:
            await self._insert(connection, key, digest)
        return key

    async def create_first(self, draft: KeyDraft, prefix: str, digest: str) -> Key | None:
        """Keeps a new key if it is the first one; else None."""
        key = key_of(draft, prefix, self._now_ms())
        async with self._database.writing() as connection:
            await raise_version(connection)
            if await connection.scalar(select(tables.keys.c.key_id).limit(1)) is not None:
                return None
            await self._insert(connection, key, digest)
        return key

    async def list(self, count: int, after: tuple[int, str] | None = None) -> list[Key]:
        """Returns keys, newest first, from behind a key's time of making and id."""
        keys = tables.keys
        query = select(*_COLUMNS).order_by(keys.c.created_time_ms.desc(), keys.c.key_id.desc()).limit(count)
        if after is not None:
            same = and_(keys.c.created_time_ms == after[0], keys.c.key_id < after[1])
            query = query.where(or_(keys.c.created_time_ms < after[0], same))
        async with self._database.reading() as connection:
            return [_key(row) for row in (await connection.execute(query)).all()]

    async def count(self, owner: Caller | None = None) -> int:
        """Returns how many keys are in force, of one principal or in all."""
        keys = tables.keys.c
        lasts = or_(keys.expire_time_ms.is_(None), keys.expire_time_ms > self._now_ms())
        query = select(func.count()).where(keys.revoke_time_ms.is_(None), lasts)
        if owner is not None:
            query = query.where(keys.tenant == owner.tenant, keys.principal == owner.principal)
        async with self._database.reading() as connection:
            found: int = (await connection.execute(query)).scalar_one()
            return found

    async def revoke(self, key_id: str) -> Key:
        """Revokes a key for good; raises NotFound (KEY_NOT_FOUND)."""
        async with self._database.writing() as connection:
            version = await raise_version(connection)
            key = await self._find(connection, key_id)
            if key.revoke_time_ms is None:
                key = msgspec.structs.replace(key, revoke_time_ms=self._now_ms())
                values = {"revoke_time_ms": key.revoke_time_ms, "version": version}
                await connection.execute(update(tables.keys).where(tables.keys.c.key_id == key_id).values(values))
        return key

    async def rotate(self, key_id: str, prefix: str, digest: str, overlap_ms: int) -> Key:
        """Gives a key another secret; those it had work on for `overlap_ms`, if they would have.

        Raises:
            NotFound: There is no such key (KEY_NOT_FOUND).
            FailedPrecondition: It is revoked or expired (KEY_NOT_ACTIVE).
        """
        secrets, end_ms = tables.secrets, self._now_ms() + overlap_ms
        async with self._database.writing() as connection:
            version = await raise_version(connection)
            key = await self._find(connection, key_id)
            if not key.is_active(self._now_ms()):
                raise FailedPrecondition("KEY_NOT_ACTIVE", f"{key_id} is revoked or expired; make another key")
            later = or_(secrets.c.expire_time_ms.is_(None), secrets.c.expire_time_ms > end_ms)
            of_key = and_(secrets.c.key_id == key_id, later)
            await connection.execute(update(secrets).where(of_key).values(expire_time_ms=end_ms))
            await connection.execute(insert(secrets).values(digest=digest, key_id=key_id))
            values = {"prefix": prefix, "version": version}
            await connection.execute(update(tables.keys).where(tables.keys.c.key_id == key_id).values(values))
        return msgspec.structs.replace(key, prefix=prefix)

    async def _insert(self, connection: AsyncConnection, key: Key, digest: str) -> None:
        version = await raise_version(connection)
        values: dict[str, Any] = msgspec.structs.asdict(key)
        values |= {name: msgspec.json.encode(values[name]).decode() for name in _LISTS}
        await connection.execute(insert(tables.keys).values(**values, version=version))
        await connection.execute(insert(tables.secrets).values(digest=digest, key_id=key.key_id))

    async def _find(self, connection: AsyncConnection, key_id: str) -> Key:
        row = (await connection.execute(select(*_COLUMNS).where(tables.keys.c.key_id == key_id))).one_or_none()
        if row is None:
            raise NotFound("KEY_NOT_FOUND", f"there is no key {key_id[:64]!r}")
        return _key(row)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def after_of(page_token: str) -> tuple[int, str] | None:
    """Reads a page token; None where it is empty.

    Raises:
        InvalidArgument: It is not one of ours.
    """
    if not page_token:
        return None
    time_ms, _, key_id = page_token.partition(".")
    if not (time_ms.isascii() and time_ms.isdigit() and len(time_ms) < 16 and 1 <= len(key_id) <= 64):
        raise InvalidArgument("page_token", "must be one that the list before gave")
    return int(time_ms), key_id


def page_token(last: Key) -> str:
    """Returns the token of the page that follows a key."""
    return f"{last.created_time_ms}.{last.key_id}"


async def raise_version(connection: AsyncConnection) -> int:
    """Raises the version, which is ours alone until the transaction ends."""
    raised = update(tables.state).values(version=tables.state.c.version + 1).returning(tables.state.c.version)
    version: int = (await connection.execute(raised)).scalar_one()
    return version


def _key(row: Row[Any]) -> Key:
    fields = dict(row._mapping)
    fields |= {name: msgspec.json.decode(fields[name], type=tuple[str, ...]) for name in _LISTS}
    return Key(**fields)


def _secret(row: Row[Any]) -> Secret:
    return Secret(row.key_id, row.digest, row.expire_time_ms)
