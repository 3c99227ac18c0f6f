"""Between the wire of the cache service and the nouns of `cache_port`; it decides nothing and calls nobody."""

from __future__ import annotations

from millrace.cache.v1 import cache_service_pb2, entry_pb2, lookup_pb2
from services.inference.caching.cache_port import (
    CacheDraft,
    CacheFigures,
    CacheFound,
    CacheKey,
    CacheMiss,
    CacheQuery,
    Comparison,
    ErrorEstimate,
    Shadow,
)
from services.inference.caching.canonical import CANONICALISATION_VERSION, SCHEMA_TAG
from services.inference.events import CacheOutcome, Receipt
from services.inference.translate import duration, seconds

OUTCOMES = {
    lookup_pb2.HIT_KIND_EXACT: CacheOutcome.EXACT,
    lookup_pb2.HIT_KIND_SEMANTIC: CacheOutcome.SEMANTIC,
    lookup_pb2.HIT_KIND_STALE: CacheOutcome.STALE,
}


def namespace(key: CacheKey) -> entry_pb2.Namespace:
    """Who may share what is kept under a key."""
    return entry_pb2.Namespace(tenant=key.tenant, user=key.user or None)


def query(asked: CacheQuery, wait_s: float = 0.0) -> lookup_pb2.Query:
    """What is looked for."""
    made = lookup_pb2.Query(key=_key(asked.key), schema_tag=SCHEMA_TAG, allow_stale=asked.allow_stale)
    if asked.age_max_s is not None:
        made.age_max.CopyFrom(duration(asked.age_max_s))
    if asked.semantic is not None:
        made.semantic.compare_text = asked.semantic.text
        if asked.semantic.similarity_min is not None:
            made.semantic.similarity_min = asked.semantic.similarity_min
        if asked.semantic.error_max is not None:
            made.semantic.error_max = asked.semantic.error_max
    if asked.lease_s is not None:
        made.lease.ttl.CopyFrom(duration(asked.lease_s))
        if wait_s:
            made.lease.wait.CopyFrom(duration(wait_s))
        made.lease.refresh = asked.refresh
    return made


def found(hit: lookup_pb2.Hit, chunks: tuple[bytes, ...]) -> CacheFound:
    """An entry; its chunks may have travelled in messages of their own."""
    return CacheFound(
        OUTCOMES[hit.kind],
        chunks,
        hit.entry.entry_id,
        seconds(hit.age),
        hit.acceptance.similarity if hit.HasField("acceptance") else None,
        hit.acceptance.reason,
        hit.refresh.lease_id,
    )


def missed(miss: lookup_pb2.Miss) -> CacheMiss:
    """No entry; that nothing is stored is not worth a word."""
    is_usual = miss.reason in (lookup_pb2.MISS_REASON_UNSPECIFIED, lookup_pb2.MISS_REASON_NOT_FOUND)
    shadow = Shadow(miss.shadow.shadow_id, tuple(miss.shadow.entry.chunks)) if miss.HasField("shadow") else None
    return CacheMiss(
        "" if is_usual else lookup_pb2.MissReason.Name(miss.reason).removeprefix("MISS_REASON_"),
        miss.lease.lease_id,
        miss.reason == lookup_pb2.MISS_REASON_LEASED,
        shadow,
    )


def draft(said: CacheDraft) -> entry_pb2.EntryDraft:
    """What is said of an answer that is to be kept."""
    made = entry_pb2.EntryDraft(
        key=_key(said.key),
        schema_tag=SCHEMA_TAG,
        ttl=duration(said.ttl_s),
        tags=said.tags,
        compare_text=said.compare_text,
    )
    if said.stale_for_s is not None:
        made.stale_for.CopyFrom(duration(said.stale_for_s))
    return made


def savings(receipt: Receipt) -> entry_pb2.Savings:
    """What a hit will save."""
    return entry_pb2.Savings(
        prompt_token_count=receipt.usage.prompt_token_count,
        completion_token_count=receipt.usage.completion_token_count,
        cost_micro_usd=receipt.cost_micro_usd,
        generation_time=duration(receipt.duration_s),
    )


def verdict(comparison: Comparison | None) -> lookup_pb2.ShadowVerdict | None:
    """What came of a comparison, where one was made."""
    if comparison is None:
        return None
    return lookup_pb2.ShadowVerdict(shadow_id=comparison.shadow_id, fits=comparison.fits)


def start(said: CacheDraft, lease_id: str) -> cache_service_pb2.StoreStreamRequest:
    """The first message of a stream to the store."""
    return cache_service_pb2.StoreStreamRequest(
        start=cache_service_pb2.StoreStart(lease_id=lease_id, draft=draft(said))
    )


def finish(receipt: Receipt, comparison: Comparison | None) -> cache_service_pb2.StoreStreamRequest:
    """The last message of a stream to the store."""
    last = cache_service_pb2.StoreFinish(savings=savings(receipt), shadow_verdict=verdict(comparison))
    return cache_service_pb2.StoreStreamRequest(finish=last)


def figures(stats: cache_service_pb2.Stats) -> CacheFigures:
    """What the cache counts."""
    return CacheFigures(
        store=stats.store,
        store_available=stats.store_available,
        entry_count=stats.entry_count if stats.HasField("entry_count") else None,
        size_bytes=stats.size_bytes if stats.HasField("size_bytes") else None,
        hit_count_by_kind={_word(lookup_pb2.HitKind.Name(one.kind)): one.count for one in stats.hits},
        shared_hit_count=stats.shared_count,
        miss_count_by_reason={_word(lookup_pb2.MissReason.Name(one.reason)): one.count for one in stats.misses},
        false_hit_count=stats.false_hit_count,
        saved_prompt_token_count=stats.saved.prompt_token_count,
        saved_completion_token_count=stats.saved.completion_token_count,
        saved_cost_micro_usd=stats.saved.cost_micro_usd,
        saved_generation_s=seconds(stats.saved.generation_time),
        semantic_error=_estimate(stats.semantic_error) if stats.HasField("semantic_error") else None,
    )


def _word(name: str) -> str:
    """The name of a kind of hit or a reason to miss, without the prefix of its enum."""
    return name.removeprefix("HIT_KIND_").removeprefix("MISS_REASON_").lower()


def _estimate(told: cache_service_pb2.ErrorEstimate) -> ErrorEstimate:
    return ErrorEstimate(told.share, told.share_low, told.share_high, told.sample_count)


def _key(key: CacheKey) -> entry_pb2.EntryKey:
    return entry_pb2.EntryKey(
        namespace=namespace(key),
        model=key.model,
        request_digest=key.digest,
        canonical_version=CANONICALISATION_VERSION,
        context_digest=key.context,
    )
