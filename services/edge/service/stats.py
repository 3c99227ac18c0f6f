"""GET /stats: what inference has counted since it started."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from millrace.inference.v1 import usage_pb2
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient
from services.edge.service.bodies import Figures, Latency, Stats, TokenFigures


class StatsEndpoint:
    """The suite's counters."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def stats(self, exchange: Exchange, _: None) -> Stats:
        """GET /stats."""
        counted = await self._inference.stats(exchange)
        recent = counted.latency
        return Stats(
            **_figures(counted.totals),
            latency_ms=Latency(
                p50=_ms(recent.duration_p50),
                p95=_ms(recent.duration_p95),
                ttft_p50=_ms(recent.ttft_p50),
                ttft_p95=_ms(recent.ttft_p95),
            ),
            uptime_s=round(_ms(counted.uptime) / 1000, 3),
            running=counted.running_count,
            models={name: Figures(**_figures(totals)) for name, totals in sorted(counted.totals_by_model.items())},
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


def _ms(duration: Duration) -> float:
    return round(duration.seconds * 1000 + duration.nanos / 1e6, 3)
