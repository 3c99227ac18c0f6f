"""What the cache counts, as UsageService tells it."""

from __future__ import annotations

from millrace.inference.v1 import cache_stats_pb2 as pb
from services.inference.caching.cache_port import CacheFigures, ErrorEstimate
from services.inference.translate import duration


def cache_stats(figures: CacheFigures) -> pb.CacheStats:
    """The figures of the cache as a message."""
    error = figures.semantic_error
    return pb.CacheStats(
        store=figures.store,
        store_available=figures.store_available,
        entry_count=figures.entry_count,
        size_bytes=figures.size_bytes,
        hit_count_by_kind=figures.hit_count_by_kind,
        shared_hit_count=figures.shared_hit_count,
        miss_count_by_reason=figures.miss_count_by_reason,
        false_hit_count=figures.false_hit_count,
        saved=pb.CacheSavings(
            prompt_token_count=figures.saved_prompt_token_count,
            completion_token_count=figures.saved_completion_token_count,
            cost_micro_usd=figures.saved_cost_micro_usd,
            generation_time=duration(figures.saved_generation_s),
        ),
        semantic_error=None if error is None else _estimate(error),
    )


def _estimate(error: ErrorEstimate) -> pb.CacheErrorEstimate:
    return pb.CacheErrorEstimate(
        share=error.share, share_low=error.share_low, share_high=error.share_high, sample_count=error.sample_count
    )
