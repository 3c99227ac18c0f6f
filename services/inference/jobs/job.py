"""Jobs, their items and their events, as everything but the wire and the database sees them.

What an item asks for and what came of it are bytes here: only the wire knows what they mean.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from enum import IntEnum

import msgspec

from kit.identity import Caller

ID_RANDOM_BYTES = 10


class State(IntEnum):
    """Where a job or an item stands; the numbers are the contract's."""

    QUEUED = 1
    RUNNING = 2
    COMPLETED = 3
    FAILED = 4
    CANCELLED = 5
    EXPIRED = 6

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self >= State.COMPLETED


class NewItem(msgspec.Struct, frozen=True):
    """An item as it is accepted; one with a `result` was refused by its maker and counts as failed."""

    label: str
    work: bytes
    attachment: bytes = b""
    result: bytes | None = None


class NewJob(msgspec.Struct, frozen=True):
    """A job as it is accepted, all but its items; durations in seconds."""

    request_id: str
    caller: Caller
    kind: str
    labels: dict[str, str]
    time_max_s: float
    keep_events: bool


class Job(msgspec.Struct, frozen=True):
    """A job; instants in milliseconds since the epoch."""

    job_id: str
    tenant: str
    principal: str
    kind: str
    labels: dict[str, str]
    keep_events: bool
    state: State
    item_count: int
    completed_count: int
    failed_count: int
    created_ms: int
    started_ms: int | None
    ended_ms: int | None
    deadline_ms: int
    expire_ms: int
    cancel_ms: int | None


class Item(msgspec.Struct, frozen=True):
    """An item and, once it has ended, its result."""

    index: int
    label: str
    state: State
    result: bytes | None
    attachment: bytes


class Claim(msgspec.Struct, frozen=True):
    """An item that is one worker's to do, until `lease_ms`, with what it needs to do it."""

    job_id: str
    index: int
    work: bytes
    caller: Caller
    lease_id: str
    try_count: int
    deadline_ms: int
    keep_events: bool


class Outcome(msgspec.Struct, frozen=True):
    """What came of an item; where `retry_after_s` is set, it is worth another try, and the result is the last's.

    Trying again counts as a try, but where the caller's own limits were the reason.
    """

    state: State
    result: bytes
    retry_after_s: float | None = None
    is_a_try: bool = True


class JobEvent(msgspec.Struct, frozen=True):
    """One event: a step of an item (`payload`), or the end of an item, or of the job (`index` None)."""

    sequence: int
    index: int | None
    payload: bytes | None


def now_ms(clock: Callable[[], float] = time.time) -> int:
    """Milliseconds since the epoch."""
    return int(clock() * 1000)


def new_id(created_ms: int) -> str:
    """An id that sorts by time and that nobody can guess: 32 hexadecimal digits."""
    return f"{created_ms:012x}{secrets.token_hex(ID_RANDOM_BYTES)}"
