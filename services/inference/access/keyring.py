"""The keyring: every key, and every user disabled of late, in memory: a call is let in or sent away without asking.

What other replicas change is learned by asking the store twice a second for what is newer than what is known. A
notification could be lost, and a revoked key would live; a question cannot, and works through every pool and on both
databases. A key that is not known is asked for before it is refused, since another replica may just have made it; but
all that ask wait for one question, at most one every tenth of a second: whoever tries random keys cannot reach the
database through here.

Without the store the keys that are known go on for a set time, and nobody else is let in or called a stranger: that is
UNAVAILABLE, because nobody knows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Protocol

import msgspec

from kit.errors import MillraceError, Unauthenticated, Unavailable
from kit.identity import Caller
from services.inference.access import secret
from services.inference.access.key import Key, Secret

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 0.1  # between questions for keys that are not known
RETRY_AFTER_MS = 1_000


class ChangesLike(Protocol):
    """See `key_store.Changes`."""

    @property
    def version(self) -> int:
        """What this makes whole."""

    @property
    def keys(self) -> Iterable[Key]:
        """The keys."""

    @property
    def secrets(self) -> Iterable[Secret]:
        """Every secret of theirs."""

    @property
    def disabled_users(self) -> Collection[tuple[str, str]]:
        """Tenant and name of every user disabled of late, whatever changed."""


class Source(Protocol):
    """Where keys are kept."""

    async def changes(self, since: int) -> ChangesLike | None:
        """Returns what changed after a version; raises Unavailable."""


class _Entry(msgspec.Struct, frozen=True):
    """What a digest opens. `caller` is made once, not at each call."""

    key: Key
    caller: Caller
    expire_time_s: float | None


class Keyring:
    """Knows every key.

    Args:
        source: Where keys are kept.
        pepper: The key of the digests.
        outage_s: How long known keys go on while the source is away.
        clock: Seconds since the epoch, for expiry.
        monotonic: Seconds that never jump, for everything else.
        sleep: Waits for so many of them.
    """

    def __init__(
        self,
        source: Source,
        pepper: bytes,
        outage_s: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source, self._pepper, self._outage_s = source, pepper, outage_s
        self._clock, self._monotonic, self._sleep = clock, monotonic, sleep
        self._entries: dict[str, _Entry] = {}
        self._digests: dict[str, list[str]] = {}  # of each key
        self._permanent: dict[str, Caller] = {}
        self._disabled_users: Collection[tuple[str, str]] = frozenset()
        self._version = -1
        self._asking, self._looking = asyncio.Lock(), asyncio.Lock()
        self._asked_count = 0
        self._asked_time = self._heard_time = -float("inf")  # of the last question, and of the last answer
        self._is_away = False

    @property
    def key_count(self) -> int:
        """Keys that are known, those that open nothing any more included."""
        return len(self._digests)

    def add_permanent(self, text: str, caller: Caller) -> None:
        """Adds a key that is in no store and goes on whatever becomes of it."""
        self._permanent[self.digest(text)] = caller

    def digest(self, text: str) -> str:
        """What is kept of a key."""
        return secret.digest(text, self._pepper)

    async def caller_of(self, text: str) -> Caller:
        """Returns who calls with a key.

        Raises:
            Unauthenticated: It is none, unknown, expired or revoked (KEY_INVALID, KEY_EXPIRED, KEY_REVOKED).
            Unavailable: It may be one, but the store is away (STORE_UNAVAILABLE).
        """
        if not secret.is_secret(text):
            raise _invalid()
        digest = self.digest(text)
        entry = self._entries.get(digest)
        if entry is None:
            if caller := self._permanent.get(digest):
                return caller
            await self._look()
            entry = self._entries.get(digest)
            if entry is None:
                raise _invalid()
        if self._monotonic() - self._heard_time > self._outage_s:
            raise _away()
        return self._checked(entry)

    def is_disabled(self, caller: Caller) -> bool:
        """Whether a caller is a user who was disabled of late, as far as is known here.

        Names of keys and the subjects of another issuer may be the same and are somebody else's.
        """
        is_user = not (caller.key_name or caller.issuer)
        return is_user and (caller.tenant, caller.principal) in self._disabled_users

    def is_good(self, caller: Caller) -> bool:
        """Whether who was let in once still would be, as far as is known here; for work that outlives its call."""
        return self._is_good(caller.key_id) if caller.key_id else not self.is_disabled(caller)

    def _is_good(self, key_id: str) -> bool:
        if (digests := self._digests.get(key_id)) is None:
            return True  # no key is ever deleted: another replica has just made it, and let its holder in
        now = self._clock()
        entries = [self._entries[digest] for digest in digests]
        return any(
            one.key.revoke_time_ms is None and (one.expire_time_s is None or now < one.expire_time_s) for one in entries
        )

    async def refresh(self) -> None:
        """Learns what has changed.

        Raises:
            Unavailable: The store is away.
        """
        async with self._asking:
            await self._refresh()

    async def poll(self, interval_s: float) -> None:
        """Learns what has changed, again and again; for a task of its own."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.refresh()
            except MillraceError:
                continue
            except Exception:  # a poll that died in silence would let revoked keys live
                log.exception("keys could not be read")

    async def _look(self) -> None:
        """Has the store asked once more for a key that is not known; a question of somebody else meanwhile will do."""
        asked_count = self._asked_count
        async with self._looking:
            if self._asked_count == asked_count:
                await self._sleep(max(0.0, self._asked_time + LOOK_INTERVAL_S - self._monotonic()))
                with suppress(MillraceError):
                    await self.refresh()
        if self._heard_time < self._asked_time:
            raise _away()

    async def _refresh(self) -> None:
        self._asked_count += 1
        self._asked_time = self._monotonic()
        try:
            changes = await self._source.changes(self._version)
        except MillraceError:
            if not self._is_away:
                log.warning("the store of keys is away", extra={"keys": self.key_count, "outage_s": self._outage_s})
            self._is_away = True
            raise
        if self._is_away:
            log.info("the store of keys is back")
        self._is_away = False
        self._heard_time = self._monotonic()
        if changes is not None:
            self._take(changes)

    def _take(self, changes: ChangesLike) -> None:
        changed = {key.key_id: key for key in changes.keys}
        for key_id in changed:
            for digest in self._digests.pop(key_id, ()):
                del self._entries[digest]
            self._digests[key_id] = []
        callers = {key_id: key.caller for key_id, key in changed.items()}
        for one in changes.secrets:
            if key := changed.get(one.key_id):
                self._entries[one.digest] = _Entry(key, callers[one.key_id], _earliest(key, one))
                self._digests[one.key_id].append(one.digest)
        self._disabled_users = changes.disabled_users
        self._version = changes.version

    def _checked(self, entry: _Entry) -> Caller:
        if entry.key.revoke_time_ms is not None:
            raise Unauthenticated("KEY_REVOKED", f"key {entry.key.prefix}... is revoked")
        if entry.expire_time_s is not None and self._clock() >= entry.expire_time_s:
            raise Unauthenticated("KEY_EXPIRED", f"key {entry.key.prefix}... has expired, or was rotated since")
        return entry.caller


def _earliest(key: Key, one: Secret) -> float | None:
    ends_ms = [end for end in (key.expire_time_ms, one.expire_time_ms) if end is not None]
    return min(ends_ms) / 1000 if ends_ms else None


def _invalid() -> Unauthenticated:
    return Unauthenticated("KEY_INVALID", "the API key is not valid")


def _away() -> Unavailable:
    return Unavailable(
        "STORE_UNAVAILABLE", "keys cannot be checked now; the key may be good: retry", retry_after_ms=RETRY_AFTER_MS
    )
