"""Files in the database, in chunks, so that any replica serves what another has taken in.

A file is there once it is whole; every method looks at its caller's own files only.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import msgspec
from sqlalchemy import ColumnElement, and_, delete, insert, select, update

from kit.errors import InvalidArgument, MillraceError, NotFound
from kit.identity import Caller
from services.inference.database.database import Database
from services.inference.jobs.job import new_id, now_ms
from services.inference.jobs.tables import chunks, files

CHUNK_BYTES = 1 << 20
UPLOAD_MS_MAX = 3_600_000  # what is not whole by then was given up, and is swept


class StoredFile(msgspec.Struct, frozen=True):
    """What is known of a file; instants in milliseconds since the epoch."""

    file_id: str
    filename: str
    purpose: str
    size_bytes: int
    created_ms: int
    expire_ms: int


COLUMNS = [files.c[name] for name in StoredFile.__struct_fields__]


class FileStore:
    """The files of a database; sizes in bytes."""

    def __init__(self, database: Database, bytes_max: int, clock: Callable[[], float] = time.time) -> None:
        self._database, self._bytes_max, self._clock = database, bytes_max, clock

    async def keep(
        self, caller: Caller, filename: str, purpose: str, ttl_s: float, data: AsyncIterator[bytes]
    ) -> StoredFile:
        """Keeps a file, durable and whole, or not at all.

        Raises:
            InvalidArgument: It is too large.
            Unavailable: The database does not answer.
        """
        now = now_ms(self._clock)
        file_id, size = new_id(now), 0
        owner = {"tenant": caller.tenant, "principal": caller.principal}
        begun = StoredFile(file_id, filename, purpose, 0, now, now + UPLOAD_MS_MAX)
        async with self._database.writing() as connection:
            await connection.execute(insert(files), [{**msgspec.structs.asdict(begun), **owner, "is_whole": False}])
        try:
            count = 0
            async for piece in data:
                size += len(piece)
                if size > self._bytes_max:
                    raise InvalidArgument("data", f"must have at most {self._bytes_max} bytes in all")
                async with self._database.writing() as connection:
                    await connection.execute(insert(chunks), [{"file_id": file_id, "idx": count, "data": piece}])
                count += 1
        except MillraceError:
            await self._drop(file_id)
            raise
        whole = {"size_bytes": size, "expire_ms": now + int(ttl_s * 1000), "is_whole": True}
        async with self._database.writing() as connection:
            await connection.execute(update(files).where(files.c.file_id == file_id).values(whole))
        return msgspec.structs.replace(begun, size_bytes=size, expire_ms=now + int(ttl_s * 1000))

    async def get(self, caller: Caller, file_id: str) -> StoredFile:
        """What is known of a file.

        Raises:
            NotFound: The caller has none of this id (FILE_NOT_FOUND).
        """
        statement = select(*COLUMNS).where(_own(caller), files.c.file_id == file_id)
        async with self._database.reading() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise NotFound("FILE_NOT_FOUND", f"there is no file {file_id[:64]!r} of yours")
        return StoredFile(*row)

    async def page(
        self, caller: Caller, purpose: str, count: int, after: str, *, oldest_first: bool = False
    ) -> list[StoredFile]:
        """The caller's files for a purpose, or all, newest first unless asked otherwise, behind that of id `after`."""
        by = files.c.file_id
        wanted = [_own(caller)]
        wanted += [files.c.purpose == purpose] if purpose else []
        wanted += [by > after if oldest_first else by < after] if after else []
        statement = select(*COLUMNS).where(*wanted).order_by(by if oldest_first else by.desc()).limit(count)
        async with self._database.reading() as connection:
            return [StoredFile(*row) for row in await connection.execute(statement)]

    async def read(self, caller: Caller, file_id: str) -> AsyncIterator[bytes]:
        """The bytes of a file, in chunks.

        Raises:
            NotFound: The caller has none of this id (FILE_NOT_FOUND).
        """
        await self.get(caller, file_id)
        index = 0
        while True:
            statement = select(chunks.c.data).where(chunks.c.file_id == file_id, chunks.c.idx == index)
            async with self._database.reading() as connection:
                data = await connection.scalar(statement)
            if data is None:
                return
            yield data
            index += 1

    async def delete(self, caller: Caller, file_id: str) -> None:
        """Forgets a file.

        Raises:
            NotFound: The caller has none of this id (FILE_NOT_FOUND).
        """
        await self.get(caller, file_id)
        await self._drop(file_id)

    async def _drop(self, file_id: str) -> None:
        async with self._database.writing() as connection:
            await connection.execute(delete(chunks).where(chunks.c.file_id == file_id))
            await connection.execute(delete(files).where(files.c.file_id == file_id))


def _own(caller: Caller) -> ColumnElement[bool]:
    return and_(files.c.tenant == caller.tenant, files.c.principal == caller.principal, files.c.is_whole)
