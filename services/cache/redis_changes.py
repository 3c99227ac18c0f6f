"""Tells every replica what was stored in Redis and what was removed, by a capped stream.

Only entries with an embedding are told of, for only semantic indexes follow. A change is written after the step that it
tells of, and is lost if the process dies in between: an index may name an entry that is gone, or not know one, until it
reads everything again. It is never the reason why an answer is served.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec

from services.cache.changes import Behind, Change, Removed, Stored, Version
from services.cache.entry import decode_outline
from services.cache.redis_link import PREFIX, PROBE_INTERVAL_S, RedisLink
from services.cache.store import StoreUnavailable

STREAM: Final = f"{PREFIX}:changes"
# Changes kept for those who lag, some 2 KB each. Whoever is further behind reads everything again.
CHANGES_MAX: Final = 10_000
# Changes read at once.
PAGE_COUNT: Final = 256

_Record = tuple[bytes, dict[bytes, bytes]]
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[Version, ...])


class RedisChanges:
    """The stream of changes on one Redis."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._closed = asyncio.Event()

    async def stored(self, outline: bytes) -> None:
        """Tells that an entry was stored; to be called while `asking`."""
        await self._add("stored", outline)

    async def removed(self, versions: Sequence[Version]) -> None:
        """Tells that entries were removed; to be called while `asking`."""
        await self._add("removed", _ENCODER.encode(versions))

    async def follow(self) -> AsyncGenerator[Change, None]:
        """Yields `Behind`, then every change, and `Behind` again where some were lost; ends when closed."""
        while (position := await self._patiently(self._mark)) is not None:
            yield Behind()
            async with contextlib.aclosing(self._follow_from(position)) as changes:
                async for change in changes:
                    yield change

    def close(self) -> None:
        """Ends what is followed."""
        self._closed.set()

    async def _follow_from(self, position: bytes) -> AsyncGenerator[Change, None]:
        """Yields the changes after a position, until some were lost or all ends."""
        while True:
            records = await self._patiently(self._read, position)
            if records is None or not await self._patiently(self._holds, position):
                return
            for seen, fields in records:
                position = seen
                change = _change(fields)
                if change is not None:
                    yield change

    async def _patiently(self, step: Any, *arguments: Any) -> Any:
        """Takes a step as soon as Redis answers; None when closed."""
        while not self._closed.is_set():
            try:
                async with self._link.asking(self._link.write_timeout_s):
                    return await step(*arguments)
            except StoreUnavailable:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), PROBE_INTERVAL_S)
        return None

    async def _mark(self) -> bytes:
        """Adds a record that says nothing, as a position to read from."""
        return await self._add("mark", b"")

    async def _read(self, position: bytes) -> list[_Record]:
        """Waits for records after a position, well within the time that Redis has to answer."""
        wait_ms = max(1, int(self._link.write_timeout_s * 500))
        answer = await self._link.client.xread({STREAM: position}, count=PAGE_COUNT, block=wait_ms)
        return _records(answer)

    async def _holds(self, position: bytes) -> bool:
        """Whether the stream still holds a position that was read: if not, some records after it may be lost."""
        oldest = await self._link.client.xrange(STREAM, count=1)
        return bool(oldest) and _order(oldest[0][0]) <= _order(position)

    async def _add(self, kind: str, content: bytes) -> bytes:
        fields = {kind: content}
        return await self._link.client.xadd(STREAM, fields, maxlen=CHANGES_MAX, approximate=True)  # type: ignore[no-any-return]


def _records(answer: Any) -> list[_Record]:
    """The records of one stream; redis-py answers a list of streams, or a mapping with RESP 3."""
    streams = list(answer.values()) if isinstance(answer, dict) else [records for _, records in answer or ()]
    return streams[0] if streams else []


def _change(fields: dict[bytes, bytes]) -> Change | None:
    """Reads a record; None if it says nothing, or nothing that this release understands."""
    kind, content = next(iter(fields.items()))
    if kind == b"stored":
        entry = decode_outline(content)
        return None if entry is None else Stored(entry)
    if kind == b"removed":
        with contextlib.suppress(msgspec.DecodeError):
            return Removed(_DECODER.decode(content))
    return None


def _order(position: bytes) -> tuple[int, ...]:
    return tuple(int(part) for part in position.split(b"-"))
