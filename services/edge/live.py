"""GET /admin/live: how Millrace fares, once a second, for whoever operates it.

Inference sums the figures up and says who may see them. Where it has several replicas they are those of one, which is
named.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from millrace.inference.v1 import live_pb2, usage_pb2
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient
from services.edge.lifecycle import Lifecycle

Breaker = Literal["closed", "open", "half_open", "unknown"]
_BREAKERS: dict[int, Breaker] = {
    usage_pb2.BREAKER_STATE_CLOSED: "closed",
    usage_pb2.BREAKER_STATE_OPEN: "open",
    usage_pb2.BREAKER_STATE_HALF_OPEN: "half_open",
}
_encode = msgspec.json.Encoder().encode


class Percentiles(msgspec.Struct):
    """Milliseconds; null where nothing ended."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class LiveCache(msgspec.Struct):
    """What the cache did; `saved_usd` since it started."""

    hits_per_s: float
    hit_rate: float | None
    saved_usd: float | None


class LiveSafety(msgspec.Struct):
    """Requests by what safety decided, since inference started."""

    flag: int
    redact: int
    block: int


class LiveTarget(msgspec.Struct):
    """How a target fares; `kv_use` is the used part of its KV cache, 0 to 1, where it tells."""

    target: str
    breaker: Breaker
    waiting: int
    running: int
    kv_use: float | None


class LiveModel(msgspec.Struct):
    """How a model fares."""

    model: str
    requests_per_s: float
    p95_ms: float | None
    targets: list[LiveTarget]


class LiveService(msgspec.Struct):
    """Whether a service is there."""

    service: str
    status: Literal["up", "down"]


class LiveSnapshot(msgspec.Struct):
    """How Millrace fares: rates and percentiles over the last ten seconds, of the replica that is named."""

    at_ms: float
    replica: str
    requests_per_s: float
    errors_per_s: float
    latency_ms: Percentiles
    first_token_ms: Percentiles
    tokens_per_s: float
    cache: LiveCache
    safety: LiveSafety
    in_flight: int
    models: list[LiveModel]
    services: list[LiveService]


class LiveEndpoint:
    """Relays what inference tells.

    Args:
        inference: Tells.
        lifecycle: Of this process, whose end no stream holds up.
    """

    def __init__(self, inference: InferenceClient, lifecycle: Lifecycle) -> None:
        self._inference, self._lifecycle = inference, lifecycle

    async def live(self, exchange: Exchange, _: None) -> None:
        """GET /admin/live."""
        exchange.expect_stream(lambda fault: b"event: error\ndata: " + fault.body() + b"\n\n")
        async with self._inference.watch(exchange) as responses:
            async for response in responses:
                await exchange.start_stream()
                await exchange.write(b"event: snapshot\ndata: " + _encode(_shown(response.snapshot)) + b"\n\n")
                if self._lifecycle.draining:
                    break
        await exchange.start_stream()
        await exchange.end_stream(b"")


def _shown(now: live_pb2.LiveSnapshot) -> LiveSnapshot:
    cache, safety = now.cache, now.safety
    services = [LiveService("edge", "up"), LiveService("inference", "up")]
    services += [LiveService(one.name, "up" if one.available else "down") for one in now.dependencies]
    return LiveSnapshot(
        at_ms=now.snapshot_time.ToMilliseconds(),
        replica=now.replica,
        requests_per_s=round(now.requests_per_second, 3),
        errors_per_s=round(now.errors_per_second, 3),
        latency_ms=_percentiles(now, "duration"),
        first_token_ms=_percentiles(now, "ttft"),
        tokens_per_s=round(now.tokens_per_second, 1),
        cache=LiveCache(
            round(cache.hits_per_second, 3),
            round(cache.hit_ratio, 4) if cache.HasField("hit_ratio") else None,
            cache.saved_micro_usd / 1e6 if cache.HasField("saved_micro_usd") else None,
        ),
        safety=LiveSafety(safety.flag_count, safety.redact_count, safety.block_count),
        in_flight=now.running_count,
        models=[_model(model) for model in now.models],
        services=services,
    )


def _percentiles(now: live_pb2.LiveSnapshot, field: Literal["duration", "ttft"]) -> Percentiles:
    if not now.HasField(field):
        return Percentiles()
    found: live_pb2.LivePercentiles = getattr(now, field)
    return Percentiles(*(one.ToMicroseconds() / 1e3 for one in (found.p50, found.p95, found.p99)))


def _model(model: live_pb2.LiveModel) -> LiveModel:
    targets = [
        LiveTarget(
            one.target,
            _BREAKERS.get(one.breaker_state, "unknown"),
            one.waiting_count,
            one.running_count,
            round(one.kv_cache_used_ratio, 4) if one.HasField("kv_cache_used_ratio") else None,
        )
        for one in model.targets
    ]
    p95_ms = model.duration_p95.ToMicroseconds() / 1e3 if model.HasField("duration_p95") else None
    return LiveModel(model.model, round(model.requests_per_second, 3), p95_ms, targets)
