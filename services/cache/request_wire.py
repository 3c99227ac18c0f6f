"""Reads the contract's requests into nouns, and holds them to the limits that the contract states.

Every refusal names the field as the caller wrote it. This module decides nothing else.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.duration_pb2 import Duration

from kit.errors import InvalidArgument
from kit.identity import current
from millrace.cache.v1 import cache_service_pb2 as service_pb
from millrace.cache.v1 import entry_pb2 as entry_pb
from millrace.cache.v1 import lookup_pb2 as lookup_pb
from services.cache.entry import EntryDraft, Savings, parse_entry_id
from services.cache.key import EntryKey, KeySpace, Namespace
from services.cache.query import LeaseQuery, Query, SemanticQuery, ShadowVerdict
from services.cache.store import Selector

DIGEST_BYTES: Final = 32
REQUEST_ID_MAX: Final = 128
NAME_MAX: Final = 256
LABEL_MAX: Final = 128
TAGS_MAX: Final = 16
CHUNKS_MAX: Final = 65_536
COMPARE_TEXT_MAX: Final = 32_768
DAYS_30_MS: Final = 30 * 86_400_000
LEASE_MS: Final = (100, 600_000)
COUNT_MAX: Final = 2**31 - 1
COST_MAX: Final = 10**12
# The longest Duration that protobuf calls valid, some 10,000 years.
DURATION_MAX_MS: Final = 315_576_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that are settings: of an answer, and of a lease where the caller does not say."""

    entry_bytes_max: int
    lease_ttl_s: float


def read_request_id(value: str) -> str:
    """The request's id: as given, or that of the call."""
    return _text("request_id", value, 0, REQUEST_ID_MAX) or current().request_id


def read_query(query: lookup_pb.Query, limits: Limits) -> Query:
    """Reads what a lookup asks for."""
    return Query(
        key=_key("query.key", query.key),
        schema_tag=_text("query.schema_tag", query.schema_tag, 1, LABEL_MAX),
        age_max_ms=_ms("query.age_max", query.age_max, 0, DURATION_MAX_MS) if query.HasField("age_max") else None,
        allow_stale=query.allow_stale,
        lease=_lease(query.lease, limits) if query.HasField("lease") else None,
        semantic=_semantic(query.semantic) if query.HasField("semantic") else None,
    )


def read_draft(field: str, draft: entry_pb.EntryDraft) -> EntryDraft:
    """Reads what is said of an answer."""
    if len(draft.tags) > TAGS_MAX:
        raise InvalidArgument(f"{field}.tags", f"must be at most {TAGS_MAX}, not {len(draft.tags)}")
    compare_text = draft.compare_text if draft.HasField("compare_text") else None
    stale_for = draft.HasField("stale_for")
    return EntryDraft(
        key=_key(f"{field}.key", draft.key),
        schema_tag=_text(f"{field}.schema_tag", draft.schema_tag, 1, LABEL_MAX),
        compare_text=compare_text and _text(f"{field}.compare_text", compare_text, 0, COMPARE_TEXT_MAX),
        ttl_ms=_ms(f"{field}.ttl", draft.ttl, 1000, DAYS_30_MS) if draft.HasField("ttl") else None,
        stale_for_ms=_ms(f"{field}.stale_for", draft.stale_for, 0, DAYS_30_MS) if stale_for else None,
        tags=tuple(_text(f"{field}.tags[{i}]", tag, 1, LABEL_MAX) for i, tag in enumerate(draft.tags)),
    )


def read_chunks(field: str, chunks: Iterable[bytes], limits: Limits) -> list[bytes]:
    """Reads a whole answer."""
    meter, kept = ChunkMeter(field, limits), []
    for chunk in chunks:
        meter.add(chunk)
        kept.append(chunk)
    meter.finish()
    return kept


class ChunkMeter:
    """Holds the chunks of one answer to their limits, one by one."""

    def __init__(self, field: str, limits: Limits) -> None:
        self._field, self._bytes_max = field, limits.entry_bytes_max
        self._count = self._size_bytes = 0

    def add(self, chunk: bytes) -> None:
        """Counts a chunk."""
        self._count += 1
        self._size_bytes += len(chunk)
        if not chunk:
            raise InvalidArgument(self._field, "must not be empty")
        if self._count > CHUNKS_MAX:
            raise InvalidArgument(self._field, f"must be at most {CHUNKS_MAX} chunks")
        if self._size_bytes > self._bytes_max:
            raise InvalidArgument(self._field, f"must be at most {self._bytes_max} bytes together")

    def finish(self) -> None:
        """Ends the answer."""
        if not self._count:
            raise InvalidArgument(self._field, "must hold the answer, not nothing")


def read_savings(field: str, message: service_pb.StoreRequest | service_pb.StoreFinish) -> Savings | None:
    """Reads what a hit will save, if the message says."""
    if not message.HasField("savings"):
        return None
    savings = message.savings
    cost = savings.cost_micro_usd if savings.HasField("cost_micro_usd") else None
    for name, value, high in (
        ("prompt_token_count", savings.prompt_token_count, COUNT_MAX),
        ("completion_token_count", savings.completion_token_count, COUNT_MAX),
        ("cost_micro_usd", cost or 0, COST_MAX),
    ):
        if not 0 <= value <= high:
            raise InvalidArgument(f"{field}.{name}", f"must be 0 to {high}, not {value}")
    timed = savings.HasField("generation_time")
    return Savings(
        savings.prompt_token_count,
        savings.completion_token_count,
        cost,
        _ms(f"{field}.generation_time", savings.generation_time, 0, DAYS_30_MS) if timed else None,
    )


def read_lease_id(value: str, *, required: bool = False) -> str:
    """Reads a lease's name."""
    return _text("lease_id", value, 1 if required else 0, NAME_MAX)


def read_shadow_verdict(field: str, message: service_pb.StoreRequest | service_pb.StoreFinish) -> ShadowVerdict | None:
    """Reads what a comparison came to, if one was made."""
    verdict = message.shadow_verdict
    shadow_id = _text(f"{field}.shadow_id", verdict.shadow_id, 0, NAME_MAX)
    return ShadowVerdict(shadow_id, verdict.fits) if shadow_id else None


def read_namespace(field: str, namespace: entry_pb.Namespace) -> Namespace:
    """Reads who may share an entry."""
    tenant = _text(f"{field}.tenant", namespace.tenant, 1, NAME_MAX)
    user = _text(f"{field}.user", namespace.user, 1, NAME_MAX) if namespace.HasField("user") else None
    return Namespace(tenant, user)


def read_entry_id(value: str) -> str:
    """Reads an entry's name."""
    return _text("entry_id", value, 1, NAME_MAX)


def read_compare_text(value: str) -> str:
    """Reads a text to compare."""
    return _text("compare_text", value, 0, COMPARE_TEXT_MAX)


def read_tenant(value: str) -> str:
    """Reads a tenant's name."""
    return _text("tenant", value, 1, NAME_MAX)


def read_selection(request: service_pb.DeleteRequest, keys: KeySpace) -> Selector | None:
    """Reads what to delete; None means an entry that cannot be."""
    namespace = read_namespace("namespace", request.namespace)
    if request.include_users and namespace.user is not None:
        raise InvalidArgument("include_users", "must be false where the namespace names a user")
    chosen = request.WhichOneof("selector")
    if chosen is None:
        raise InvalidArgument("selector", "must name what to delete: entry_id, tag or everything")
    if chosen == "everything" and not request.everything:
        raise InvalidArgument("everything", "must be true where it is set")
    if chosen == "entry_id" and request.include_users:
        raise InvalidArgument("include_users", "must be false where one entry is meant")
    selector = Selector(keys.tenant(namespace.tenant), None if request.include_users else keys.namespace(namespace))
    if chosen == "tag":
        return replace(selector, tag=_text("tag", request.tag, 1, LABEL_MAX))
    if chosen == "entry_id":
        entry = parse_entry_id(read_entry_id(request.entry_id))
        return entry and replace(selector, entry=entry)
    return selector


def _key(field: str, key: entry_pb.EntryKey) -> EntryKey:
    for name, digest, optional in (
        ("request_digest", key.request_digest, False),
        ("context_digest", key.context_digest, True),
    ):
        if len(digest) != DIGEST_BYTES and (digest or not optional):
            raise InvalidArgument(f"{field}.{name}", f"must be {DIGEST_BYTES} bytes, not {len(digest)}")
    if key.canonical_version < 1:
        raise InvalidArgument(f"{field}.canonical_version", f"must be 1 or more, not {key.canonical_version}")
    return EntryKey(
        read_namespace(f"{field}.namespace", key.namespace),
        _text(f"{field}.model", key.model, 1, NAME_MAX),
        key.request_digest,
        key.canonical_version,
        key.context_digest,
    )


def _lease(lease: lookup_pb.LeaseQuery, limits: Limits) -> LeaseQuery:
    low_ms, high_ms = LEASE_MS
    ttl_s = _ms("query.lease.ttl", lease.ttl, low_ms, high_ms) / 1000 if lease.HasField("ttl") else limits.lease_ttl_s
    return LeaseQuery(ttl_s, _ms("query.lease.wait", lease.wait, 0, high_ms) / 1000, lease.refresh)


def _semantic(semantic: lookup_pb.SemanticQuery) -> SemanticQuery:
    if semantic.HasField("similarity_min") and not 0 <= semantic.similarity_min <= 1:
        raise InvalidArgument("query.semantic.similarity_min", "must be between 0 and 1")
    if semantic.HasField("error_max") and not 0 < semantic.error_max <= 1:
        raise InvalidArgument("query.semantic.error_max", "must be above 0 and at most 1")
    return SemanticQuery(
        _text("query.semantic.compare_text", semantic.compare_text, 1, COMPARE_TEXT_MAX),
        semantic.similarity_min,
        semantic.error_max if semantic.HasField("error_max") else 1.0,
    )


def _text(field: str, value: str, low: int, high: int) -> str:
    if not low <= len(value) <= high:
        raise InvalidArgument(field, f"must be {low} to {high} characters, not {len(value)}")
    return value


def _ms(field: str, value: Duration, low_ms: int, high_ms: int) -> int:
    ms = value.seconds * 1000 + value.nanos // 1_000_000
    if value.seconds < 0 or not 0 <= value.nanos < 1_000_000_000 or not low_ms <= ms <= high_ms:
        raise InvalidArgument(field, f"must be {low_ms / 1000:,} to {high_ms / 1000:,} s")
    return ms
