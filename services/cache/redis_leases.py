"""The leases that replicas share, on Redis: who leads, what its answer is so far, and how it ended.

Every call has a deadline and raises StoreUnavailable when Redis does not keep it. This module decides nothing: what a
replica makes of the answers is told in services/cache/shared_flight.py.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec
from redis.exceptions import RedisError

from services.cache.entry import MARK_BYTES, Entry, decode, encode
from services.cache.flight import parse_lease_id
from services.cache.key import Address
from services.cache.redis_lease_scripts import ADOPT, APPEND, CHECK, CLAIM, END, READ, RENEW
from services.cache.redis_link import PREFIX, PROBE_INTERVAL_S, RedisLink, entry_key, slot
from services.cache.store import StoreUnavailable

CHANNEL: Final = f"{PREFIX}:flights"
# How long a lease outlives the replica that renews it, and how long the end of a flight can be read.
RENEWAL_S: Final = 5.0
KEEP_S: Final = 10.0


class Ending(Enum):
    """How a flight ended, for those who follow it."""

    LANDED = "landed"  # Streamed: the record has what was not sent yet, and the entry without its chunks.
    STORED = "stored"  # Not streamed: the store has the answer.
    FAILED = "failed"


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A piece of news of a flight: chunks, or its end, or both."""

    schema_tag: str | None = None
    chunks: tuple[bytes, ...] = ()
    ending: Ending | None = None
    entry: Entry | None = None


class Tenure(Enum):
    """Whose a lease is."""

    OURS = b"ours"
    ADOPTED = b"adopted"  # Another replica got hold of it: the answer is streamed there.
    GONE = b"gone"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who leads; if it is the one who asked, what the store holds by now."""

    lease_id: str
    lasts_s: float
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class News:
    """What was read of a flight: records up to a position, and whether more can come, for its lease is still there."""

    records: list[Record]
    position: str
    goes_on: bool


@dataclass(frozen=True, slots=True)
class Notice:
    """There is news of a flight; `own` if this replica made it."""

    lease_id: str
    own: bool


class RedisLeases:
    """The leases on one Redis, as one replica sees them.

    Args:
        replica: Names this process among the replicas.
    """

    def __init__(self, link: RedisLink, replica: str) -> None:
        self._link, self._replica = link, replica

    @property
    def available(self) -> bool:
        """Whether Redis is being asked."""
        return self._link.available

    def on_loss(self, listener: Callable[[], None]) -> None:
        """Tells a listener when Redis is not asked any more."""
        self._link.on_change(lambda available: None if available else listener())

    def left_s(self, since: float) -> float:
        """What is left, in seconds, of the time in which a lookup that began at an instant may ask Redis."""
        return max(0.0, since + self._link.read_timeout_s - asyncio.get_running_loop().time())

    async def claim(self, address: Address, lease_id: str, ttl_s: float, since: float) -> Claim:
        """Claims the lease to an address, or finds who has it, in what is left of a lookup's time."""
        left_s = self.left_s(since)
        if left_s == 0:
            raise StoreUnavailable("The time to ask Redis is over.")
        keys = [*_keys(lease_id), entry_key(address.tenant, address.entry.hex())]
        arguments = [lease_id, self._replica, _ms(ttl_s), _ms(min(ttl_s, RENEWAL_S)), CHANNEL]
        async with self._link.asking(left_s):
            token, lasts_ms, *body = await self._link.run(CLAIM, keys, arguments)
        entry = decode(body[0], address) if body and body[0] is not None else None
        return Claim(token.decode(), max(0, lasts_ms) / 1000, entry)

    async def renew(self, lease_id: str, left_s: float) -> tuple[Tenure, bool]:
        """Renews a lease that has so long to go; returns whose it is, and whether another replica follows."""
        tenure, followed = await self._run(RENEW, lease_id, [lease_id, self._replica, _ms(min(left_s, RENEWAL_S))])
        return Tenure(tenure), bool(followed)

    async def check(self, lease_id: str) -> float | None:
        """How long another's lease lasts at least, in seconds; None if it has ended."""
        left_ms = await self._run(CHECK, lease_id, [lease_id])
        return None if left_ms < 0 else left_ms / 1000

    async def adopt(self, lease_id: str) -> float | None:
        """Takes over the care of a lease that another replica gave; returns its seconds, or None if it has ended."""
        ttl_ms = await self._run(ADOPT, lease_id, [lease_id, self._replica, CHANNEL])
        return None if ttl_ms < 0 else ttl_ms / 1000

    async def append(self, lease_id: str, record: Record, left_s: float) -> bool:
        """Adds to a flight and renews its lease; false if the lease is not ours any more."""
        renewal_ms = _ms(min(left_s, RENEWAL_S))
        arguments = [lease_id, self._replica, renewal_ms, CHANNEL, _ENCODER.encode(record)]
        return bool(await self._run(APPEND, lease_id, arguments))

    async def end(self, lease_id: str, record: Record, *, told: bool) -> bool:
        """Ends a lease of ours; false if it had ended.

        What the record says is sent only if it is `told` or if someone turns out to follow.
        """
        data = _ENCODER.encode(record)
        ended = -1 if told else await self._end(lease_id, b"", token=lease_id, owned=True)
        if ended < 0:
            ended = await self._end(lease_id, data, token=lease_id, owned=True)
        return ended == 1

    async def end_any(self, entry: Entry) -> None:
        """Ends whatever lease there is to an answer that is stored now, unless it is streamed or was given for more."""
        address = entry.address
        lease_id = f"{address.tenant.hex()}.{address.entry.hex()}.any"
        record, mark = _ENCODER.encode(Record(ending=Ending.STORED)), encode(entry)[:MARK_BYTES]
        await self._end(lease_id, record, token="", owned=False, mark=mark)

    async def release(self, lease_id: str) -> bool:
        """Ends a lease without an answer, whichever replica cares for it; false if it had ended."""
        record = _ENCODER.encode(Record(ending=Ending.FAILED))
        return await self._end(lease_id, record, token=lease_id, owned=False) == 1

    async def read(self, lease_id: str, position: str) -> News:
        """Reads what was added to a flight after a position."""
        current, found = await self._run(READ, lease_id, [lease_id, position])
        own = [(place, data) for place, (_, token, _, data) in found if token.decode() == lease_id]
        records = [_DECODER.decode(data) for _, data in own]
        return News(records, own[-1][0].decode() if own else position, goes_on=bool(current))

    async def notices(self) -> AsyncGenerator[Notice | None, None]:
        """Yields what replicas publish, this one included; None when some may have been missed. Never ends."""
        while True:
            try:
                async with self._link.client.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(CHANNEL)
                    yield None
                    while True:
                        message = await channel.get_message(timeout=None)
                        if message is not None:
                            lease_id, _, sender = message["data"].decode().partition(" ")
                            yield Notice(lease_id, own=sender == self._replica)
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(PROBE_INTERVAL_S)

    async def _end(self, lease_id: str, record: bytes, *, token: str, owned: bool, mark: bytes = b"") -> int:
        arguments = [self._replica, CHANNEL, _ms(KEEP_S), record, token, "1" if owned else "0", mark]
        return int(await self._run(END, lease_id, arguments))

    async def _run(self, script: str, lease_id: str, arguments: list[Any]) -> Any:
        async with self._link.asking(self._link.write_timeout_s):
            return await self._link.run(script, _keys(lease_id), arguments)


def _keys(lease_id: str) -> tuple[str, str]:
    """The keys of a lease and of its stream."""
    digests = parse_lease_id(lease_id)
    assert digests is not None, "only leases that can be one get here"
    tenant, entry = digests
    return f"{slot(tenant)}:lease:{entry.hex()}", f"{slot(tenant)}:flight:{entry.hex()}"


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
