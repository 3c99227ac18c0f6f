"""LiveService: translate out. Who may call it is decided where it is for every method: it is in no caller's list."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from millrace.inference.v1 import live_pb2, live_service_pb2, live_service_pb2_grpc
from services.inference.events import Verdict
from services.inference.live.figures import ModelFigures, Percentiles, Snapshot, TargetFigures
from services.inference.live.watching import Seen, Watching
from services.inference.translate import duration, timestamp


class LiveServicer(live_service_pb2_grpc.LiveServiceServicer):
    """Tells watchers how the process fares."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching

    async def Watch(
        self, request: live_service_pb2.WatchRequest, context: Any
    ) -> AsyncIterator[live_service_pb2.WatchResponse]:
        """Tells how the process fares, once a second."""
        async with aclosing(self._watching.watch()) as seen:
            async for one in seen:
                yield live_service_pb2.WatchResponse(snapshot=_snapshot(one))


def _snapshot(seen: Seen) -> live_pb2.LiveSnapshot:
    now = seen.snapshot
    return live_pb2.LiveSnapshot(
        snapshot_time=timestamp(now.at),
        replica=now.replica,
        requests_per_second=now.requests_per_s,
        errors_per_second=now.errors_per_s,
        duration=_percentiles(now.duration),
        ttft=_percentiles(now.ttft),
        tokens_per_second=now.tokens_per_s,
        running_count=now.running_count,
        cache=live_pb2.LiveCache(
            hits_per_second=now.hits_per_s, hit_ratio=now.hit_ratio, saved_micro_usd=seen.saved_micro_usd
        ),
        safety=_safety(now),
        models=[_model(model) for model in now.models],
        dependencies=[
            live_pb2.LiveDependency(name=name, available=available) for name, available in seen.available.items()
        ],
    )


def _safety(now: Snapshot) -> live_pb2.LiveSafety:
    counts = now.verdict_counts
    return live_pb2.LiveSafety(
        flag_count=counts[Verdict.FLAG], redact_count=counts[Verdict.REDACT], block_count=counts[Verdict.BLOCK]
    )


def _percentiles(found: Percentiles | None) -> live_pb2.LivePercentiles | None:
    if found is None:
        return None
    return live_pb2.LivePercentiles(p50=duration(found.p50_s), p95=duration(found.p95_s), p99=duration(found.p99_s))


def _model(model: ModelFigures) -> live_pb2.LiveModel:
    return live_pb2.LiveModel(
        model=model.name,
        requests_per_second=model.requests_per_s,
        duration_p95=None if model.p95_s is None else duration(model.p95_s),
        targets=[_target(target) for target in model.targets],
    )


def _target(target: TargetFigures) -> live_pb2.LiveTarget:
    return live_pb2.LiveTarget(
        target=target.label,
        breaker_state=int(target.breaker or 0),  # type: ignore[arg-type]
        waiting_count=target.waiting_count,
        running_count=target.running_count,
        kv_cache_used_ratio=target.kv_cache_used,
    )
