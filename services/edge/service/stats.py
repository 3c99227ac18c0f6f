"""GET /stats: what the ledger has of every replica, and what the inference that answers knows of itself."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from millrace.inference.v1 import cache_stats_pb2, usage_pb2
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient
from services.edge.provenance import milliseconds
from services.edge.service.bodies import (
    CacheError,
    CacheFigures,
    CacheSavings,
    Figures,
    Latency,
    Stats,
    TargetFigures,
    TokenFigures,
)

_BREAKERS: dict[int, Literal["closed", "open", "half_open"]] = {
    usage_pb2.BREAKER_STATE_CLOSED: "closed",
    usage_pb2.BREAKER_STATE_OPEN: "open",
    usage_pb2.BREAKER_STATE_HALF_OPEN: "half_open",
}


class StatsEndpoint:
    """The suite's counters."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def stats(self, exchange: Exchange, _: None) -> Stats:
        """GET /stats."""
        counted = await self._inference.stats(exchange)
        whole = counted.ledger if counted.HasField("ledger") else None
        recent = whole.latency if whole else counted.latency
        return Stats(
            **_figures(whole.totals if whole else counted.totals),
            source="ledger" if whole else "process",
            total_api_keys=whole.api_key_count if whole else UNSET,
            requests_by_key=dict(sorted(whole.request_count_by_key.items())) if whole else UNSET,
            latency_ms=Latency(
                p50=milliseconds(recent.duration_p50),
                p95=milliseconds(recent.duration_p95),
                ttft_p50=milliseconds(recent.ttft_p50),
                ttft_p95=milliseconds(recent.ttft_p95),
            ),
            uptime_s=round(milliseconds(counted.uptime) / 1000, 3),
            running=counted.running_count,
            models={name: Figures(**_figures(totals)) for name, totals in sorted(counted.totals_by_model.items())},
            targets=[_target(one) for one in counted.targets],
            cache=_cache(counted.cache) if counted.HasField("cache") else UNSET,
        )


def _figures(totals: usage_pb2.UsageTotals) -> dict[str, Any]:
    """The fields of Figures."""
    asked = totals.cache_hit_count + totals.cache_miss_count
    prompt, completion = totals.prompt_token_count, totals.completion_token_count
    return {
        "total_requests": totals.request_count,
        "failed_requests": totals.failed_request_count,
        "cache_hits": totals.cache_hit_count,
        "cache_misses": totals.cache_miss_count,
        "cache_hit_rate": round(totals.cache_hit_count / asked, 4) if asked else 0.0,
        "blocked": totals.blocked_count,
        "tokens": TokenFigures(prompt, completion, prompt + completion),
        "cost_usd": totals.cost_micro_usd / 1e6,
        "unpriced_requests": totals.unpriced_request_count,
    }


def _cache(counted: cache_stats_pb2.CacheStats) -> CacheFigures:
    saved, error = counted.saved, counted.semantic_error
    prompt, completion = saved.prompt_token_count, saved.completion_token_count
    return CacheFigures(
        store=counted.store,
        available=counted.store_available,
        entries=counted.entry_count if counted.HasField("entry_count") else UNSET,
        size_bytes=counted.size_bytes if counted.HasField("size_bytes") else UNSET,
        hits=dict(sorted(counted.hit_count_by_kind.items())),
        shared=counted.shared_hit_count,
        misses=dict(sorted(counted.miss_count_by_reason.items())),
        false_hits=counted.false_hit_count,
        saved=CacheSavings(
            TokenFigures(prompt, completion, prompt + completion),
            saved.cost_micro_usd / 1e6,
            round(milliseconds(saved.generation_time) / 1000, 3),
        ),
        semantic_error=CacheError(error.share, error.share_low, error.share_high, error.sample_count)
        if counted.HasField("semantic_error")
        else UNSET,
    )


def _target(known: usage_pb2.TargetStats) -> TargetFigures:
    def ms(name: str) -> float | UnsetType:
        return milliseconds(getattr(known, name)) if known.HasField(name) else UNSET

    return TargetFigures(
        target=known.target,
        model=known.target_model,
        breaker=_BREAKERS[known.breaker_state],
        running=known.running_count,
        waiting=known.waiting_count,
        calls=known.call_count,
        failures=known.failed_call_count,
        retries=known.retry_count,
        hedges=known.hedge_count,
        skipped=known.skipped_call_count,
        retry_after_ms=ms("retry_delay"),
        ttft_ms=ms("ttft_average"),
        ttft_p95_ms=ms("ttft_p95"),
    )
