"""Writes nouns as the contract's responses. This module decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from millrace.cache.v1 import cache_service_pb2 as service_pb
from millrace.cache.v1 import entry_pb2 as entry_pb
from millrace.cache.v1 import lookup_pb2 as lookup_pb
from services.cache.entry import Entry, Savings
from services.cache.query import (
    Acceptance,
    Completed,
    Following,
    Found,
    Hit,
    Lease,
    LookupEvent,
    Miss,
    Restarted,
    Waiting,
)
from services.cache.stats import Tally
from services.cache.store import Size
from services.cache.worth import EvictionReason, Evictions

if TYPE_CHECKING:  # see cache.py
    from services.cache.semantic.estimate import Estimate

# A sum that has grown past what the contract can hold stays there.
INT64_MAX: Final = 2**63 - 1


def write_lookup(found: Found, request_id: str) -> service_pb.LookupResponse:
    """Writes what a lookup found."""
    if isinstance(found, Hit):
        return service_pb.LookupResponse(request_id=request_id, hit=_hit(found, chunks=True))
    return service_pb.LookupResponse(request_id=request_id, miss=_miss(found))


def write_event(event: LookupEvent) -> service_pb.LookupStreamResponse:
    """Writes an event of a streamed lookup."""
    match event:
        case bytes():
            return service_pb.LookupStreamResponse(chunk=event)
        case Hit():
            return service_pb.LookupStreamResponse(hit=_hit(event, chunks=False))
        case Following():
            return service_pb.LookupStreamResponse(following=service_pb.Following())
        case Waiting():
            return service_pb.LookupStreamResponse(waiting=service_pb.Waiting())
        case Restarted():
            return service_pb.LookupStreamResponse(restarted=service_pb.Restarted())
        case Miss():
            return service_pb.LookupStreamResponse(miss=_miss(event))
        case Completed():
            entry = _entry(event.entry, chunks=False)
            completed = service_pb.Completed(entry=entry, chunk_count=event.chunk_count)
            return service_pb.LookupStreamResponse(completed=completed)


def outcome(found: Found) -> str:
    """Names an outcome for a span: the kind of a hit, or `miss`."""
    return found.kind.name.lower() if isinstance(found, Hit) else "miss"


def write_time(instant_ms: int) -> Timestamp:
    """Writes an instant."""
    return Timestamp(seconds=instant_ms // 1000, nanos=instant_ms % 1000 * 1_000_000)


def write_tally(tally: Tally) -> service_pb.Stats:
    """Writes what was counted."""
    saved = entry_pb.Savings(
        prompt_token_count=min(tally.saved_prompt_token_count, INT64_MAX),
        completion_token_count=min(tally.saved_completion_token_count, INT64_MAX),
        cost_micro_usd=min(tally.saved_cost_micro_usd, INT64_MAX),
        generation_time=_duration(tally.saved_generation_ms),
    )
    return service_pb.Stats(
        lookup_count=tally.lookup_count,
        hits=[
            service_pb.HitCount(kind=f"HIT_KIND_{kind.name}", count=count) for kind, count in sorted(tally.hits.items())
        ],
        misses=[
            service_pb.MissCount(reason=f"MISS_REASON_{reason.name}", count=count)
            for reason, count in sorted(tally.misses.items())
        ],
        shared_count=tally.shared_count,
        refresh_count=tally.refresh_count,
        store_count=tally.store_count,
        false_hit_count=tally.false_hit_count,
        saved=saved,
    )


def write_size(stats: service_pb.Stats, size: Size) -> None:
    """Adds what is held to the figures."""
    stats.entry_count, stats.size_bytes = size.entry_count, size.size_bytes


def write_error(stats: service_pb.Stats, estimate: Estimate | None) -> None:
    """Adds what is known of wrong semantic hits to the figures."""
    stats.semantic_enabled = True
    if estimate is not None:
        share, count = estimate.share, estimate.sample_count
        error = service_pb.ErrorEstimate(
            share=share, share_low=estimate.low, share_high=estimate.high, sample_count=count
        )
        stats.semantic_error.CopyFrom(error)


def write_evictions(stats: service_pb.Stats, evictions: Evictions) -> None:
    """Adds what was let go to the figures."""
    stats.eviction_count = evictions[EvictionReason.ENTRIES] + evictions[EvictionReason.BYTES]
    stats.evictions.extend(
        service_pb.EvictionCount(reason=f"EVICTION_REASON_{reason.name}", count=count)
        for reason, count in sorted(evictions.items())
    )


def _hit(hit: Hit, *, chunks: bool) -> lookup_pb.Hit:
    return lookup_pb.Hit(
        kind=f"HIT_KIND_{hit.kind.name}",
        entry=_entry(hit.entry, chunks=chunks),
        age=_duration(hit.age_ms),
        refresh=None if hit.refresh is None else _lease(hit.refresh),
        acceptance=None if hit.acceptance is None else _acceptance(hit.acceptance),
    )


def _miss(miss: Miss) -> lookup_pb.Miss:
    written = lookup_pb.Miss(reason=f"MISS_REASON_{miss.reason.name}")
    if miss.lease is not None:
        written.lease.CopyFrom(_lease(miss.lease))
    if miss.shadow is not None:
        shadow = miss.shadow
        entry, acceptance = _entry(shadow.entry, chunks=True), _acceptance(shadow.acceptance)
        written.shadow.CopyFrom(lookup_pb.Shadow(shadow_id=shadow.shadow_id, entry=entry, acceptance=acceptance))
    return written


def _acceptance(acceptance: Acceptance) -> lookup_pb.Acceptance:
    return lookup_pb.Acceptance(
        similarity=min(1.0, max(0.0, acceptance.similarity)),
        fit_probability=acceptance.fit_probability,
        error_max=acceptance.error_max,
        reason=acceptance.reason,
    )


def _lease(lease: Lease) -> lookup_pb.Lease:
    return lookup_pb.Lease(lease_id=lease.lease_id, ttl=_duration(round(lease.ttl_s * 1000)))


def _entry(entry: Entry, *, chunks: bool) -> entry_pb.Entry:
    return entry_pb.Entry(
        entry_id=entry.entry_id,
        schema_tag=entry.schema_tag,
        chunks=entry.chunks if chunks else (),
        model=entry.model,
        create_time=write_time(entry.created_ms),
        expire_time=write_time(entry.expires_ms),
        tags=entry.tags,
        savings=None if entry.savings is None else _savings(entry.savings),
    )


def _savings(savings: Savings) -> entry_pb.Savings:
    timed = savings.generation_ms is not None
    return entry_pb.Savings(
        prompt_token_count=savings.prompt_token_count,
        completion_token_count=savings.completion_token_count,
        cost_micro_usd=savings.cost_micro_usd,
        generation_time=_duration(savings.generation_ms or 0) if timed else None,
    )


def _duration(ms: int) -> Duration:
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)
