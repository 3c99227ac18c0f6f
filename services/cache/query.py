"""What a lookup asks for, what it may answer, and the rule that tells one from the other.

The rule looks at an entry and a query only; it never touches a store or waits.
"""

from dataclasses import dataclass
from enum import IntEnum

from services.cache.entry import Entry
from services.cache.key import EntryKey


class HitKind(IntEnum):
    """How an answer was found, numbered as in the contract."""

    EXACT = 1
    SEMANTIC = 2
    STALE = 3


class MissReason(IntEnum):
    """Why no answer was found, numbered as in the contract."""

    NOT_FOUND = 1
    EXPIRED = 2
    TOO_OLD = 3
    SCHEMA_MISMATCH = 4
    LEASED = 5
    STORE_UNAVAILABLE = 6
    UNSURE = 7
    SHADOW = 8


@dataclass(frozen=True, slots=True)
class LeaseQuery:
    """What to do on a miss: lead for `ttl_s`, or wait up to `wait_s` for who leads already.

    With `refresh` a hit may give a lease as well, to produce the answer anew before it expires.
    """

    ttl_s: float
    wait_s: float = 0.0
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class SemanticQuery:
    """Asks for answers to similar texts, within bounds that may be stricter than the operator's."""

    compare_text: str
    similarity_min: float = 0.0
    error_max: float = 1.0


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for. `age_max_ms` of 0 finds only what is stored while the lookup waits; None finds any age."""

    key: EntryKey
    schema_tag: str
    age_max_ms: int | None = None
    allow_stale: bool = False
    lease: LeaseQuery | None = None
    semantic: SemanticQuery | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to produce the answer that others wait for."""

    lease_id: str
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Why a similar entry was accepted, or would have been; `fit_probability` is None where none was calculated."""

    similarity: float
    fit_probability: float | None
    error_max: float
    reason: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A similar entry that is to be compared with the fresh answer."""

    shadow_id: str
    entry: Entry
    acceptance: Acceptance


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """What a comparison came to: whether the entry says the same as the fresh answer."""

    shadow_id: str
    fits: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer was found; with a lease to `refresh` it, if that is asked of the caller.

    It is `shared` if it was in the making when the lookup came.
    """

    kind: HitKind
    entry: Entry
    age_ms: int
    refresh: Lease | None = None
    shared: bool = False
    acceptance: Acceptance | None = None


@dataclass(frozen=True, slots=True)
class Miss:
    """No answer was found."""

    reason: MissReason
    lease: Lease | None = None
    shadow: Shadow | None = None


@dataclass(frozen=True, slots=True)
class Following:
    """Another caller produces the answer; its chunks follow."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """The caller that was followed has failed; its chunks belong to no answer."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """There is nothing new of the answer that is followed."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The answer that was followed, or replayed, is complete."""

    entry: Entry
    chunk_count: int


Found = Hit | Miss
# What a streamed lookup tells of: bytes are a chunk.
LookupEvent = Hit | Following | bytes | Waiting | Restarted | Miss | Completed


def judge(entry: Entry | None, query: Query, arrived_ms: int) -> Found:
    """Decides whether an entry answers a query that arrived at an instant."""
    if entry is None:
        return Miss(MissReason.NOT_FOUND)
    if entry.schema_tag != query.schema_tag:
        return Miss(MissReason.SCHEMA_MISMATCH)
    stale = entry.expires_ms <= arrived_ms
    if stale and not query.allow_stale:
        return Miss(MissReason.EXPIRED)
    age_ms = max(0, arrived_ms - entry.created_ms)
    if query.age_max_ms is not None and entry.created_ms <= arrived_ms - query.age_max_ms:
        return Miss(MissReason.TOO_OLD)
    return Hit(HitKind.STALE if stale else HitKind.EXACT, entry, age_ms)
