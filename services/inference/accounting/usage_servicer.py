"""UsageService: the counters of this process and its targets, and what the ledger tells. It decides nothing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from kit import identity
from kit.errors import Unavailable
from kit.identity import Caller
from millrace.inference.v1 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from services.inference.accounting import usage_wire
from services.inference.accounting.settlement import Settlement, Totals, percentile
from services.inference.admission import Admission
from services.inference.attempts.targets import Targets, TargetState
from services.inference.caching.cache_port import CacheFigures
from services.inference.caching.cache_stats_wire import cache_stats
from services.inference.ledger.history import History, Scope
from services.inference.ledger.sight import visible
from services.inference.translate import duration, limit


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    """Reports what the settlement counted, what is known of the targets, and what the ledger has.

    Args:
        settlement: Counted in this process.
        admission: Knows what runs.
        targets: Know how they fare.
        history: Reads the ledger.
        count_keys: Counts the API keys in force, of one principal or in all.
        cache_figures: Tells what the cache counts.
    """

    def __init__(
        self,
        settlement: Settlement,
        admission: Admission,
        targets: Targets,
        history: History,
        count_keys: Callable[[Caller | None], Awaitable[int]],
        cache_figures: Callable[[], Awaitable[CacheFigures | None]],
    ) -> None:
        self._settlement, self._admission, self._targets = settlement, admission, targets
        self._history, self._count_keys, self._cache_figures = history, count_keys, cache_figures

    async def GetStats(
        self, request: usage_service_pb2.GetStatsRequest, context: Any
    ) -> usage_service_pb2.GetStatsResponse:
        """Gets the counters of this process since it started, and of all replicas where the database answers."""
        if identity.current().caller.role in ("user", "guest"):  # of the process and its tenants they see nothing
            return usage_service_pb2.GetStatsResponse(
                uptime=duration(time.monotonic() - self._settlement.start_time), ledger=await self._ledger_stats()
            )
        counted, cache = self._settlement, await self._cache_figures()
        return usage_service_pb2.GetStatsResponse(
            totals=_totals(counted.totals),
            totals_by_model={name: _totals(totals) for name, totals in counted.totals_by_model.items()},
            latency=usage_pb2.LatencySummary(
                duration_p50=_percentile(counted.durations_s, 0.5),
                duration_p95=_percentile(counted.durations_s, 0.95),
                ttft_p50=_percentile(counted.ttfts_s, 0.5),
                ttft_p95=_percentile(counted.ttfts_s, 0.95),
            ),
            uptime=duration(time.monotonic() - counted.start_time),
            running_count=self._admission.running_count,
            targets=[_target(state) for state in self._targets.snapshot()],
            ledger=await self._ledger_stats(),
            cache=None if cache is None else cache_stats(cache),
        )

    async def GetUsage(
        self, request: usage_service_pb2.GetUsageRequest, context: Any
    ) -> usage_service_pb2.GetUsageResponse:
        """Gets the usage of a span of time from the ledger."""
        scope, width = visible(identity.current().caller, usage_wire.scope(request)), usage_wire.width_ms(request)
        by = usage_wire.groups(request)
        lines = await self._history.sums(scope, width, by) if width or by else []
        by_model = await self._history.sums(scope, None, ["model"])
        return usage_service_pb2.GetUsageResponse(
            totals=usage_wire.totals(by_model),
            totals_by_model={row["model"]: usage_wire.totals([row]) for row in by_model},
            lines=[usage_wire.line(row, width) for row in lines],
        )

    async def ListHistory(
        self, request: usage_service_pb2.ListHistoryRequest, context: Any
    ) -> usage_service_pb2.ListHistoryResponse:
        """Lists past requests from the ledger, newest first."""
        scope, (size, before) = visible(identity.current().caller, usage_wire.scope(request)), usage_wire.page(request)
        rows = await self._history.page(scope, size + 1, before)
        return usage_service_pb2.ListHistoryResponse(
            entries=[usage_wire.entry(row) for row in rows[:size]],
            next_page_token=rows[size - 1]["id"] if len(rows) > size else "",
        )

    async def ListLimits(
        self, request: usage_service_pb2.ListLimitsRequest, context: Any
    ) -> usage_service_pb2.ListLimitsResponse:
        """Lists the limits of the caller and where they stand now."""
        states = await self._admission.quotas.standing(identity.current().caller)
        return usage_service_pb2.ListLimitsResponse(limits=[limit(one) for one in states])

    async def _ledger_stats(self) -> usage_pb2.LedgerStats | None:
        """What the ledger knows, as far as the caller may see it; None while the database is away."""
        caller = identity.current().caller
        scope, sees_all = visible(caller, Scope()), caller.role not in ("user", "guest")
        try:
            by_key = await self._history.sums(scope, None, ["key_name"])
            durations_ms, ttfts_ms = await self._history.recent(scope)
            key_count = await self._count_keys(None if sees_all else caller)
        except Unavailable:
            return None
        return usage_pb2.LedgerStats(
            totals=usage_wire.totals(by_key),
            request_count_by_key={row["key_name"]: int(row["request_count"]) for row in by_key if row["key_name"]},
            api_key_count=key_count,
            latency=usage_pb2.LatencySummary(
                duration_p50=_percentile(durations_ms, 0.5, 1000),
                duration_p95=_percentile(durations_ms, 0.95, 1000),
                ttft_p50=_percentile(ttfts_ms, 0.5, 1000),
                ttft_p95=_percentile(ttfts_ms, 0.95, 1000),
            ),
        )


def _totals(totals: Totals) -> usage_pb2.UsageTotals:
    return usage_pb2.UsageTotals(**{field: getattr(totals, field) for field in totals.__struct_fields__})


def _target(state: TargetState) -> usage_pb2.TargetStats:
    retry_after_s, average_s, p95_s = state.retry_after_s(), state.first_tokens.ewma_s, state.first_tokens.p95_s()
    return usage_pb2.TargetStats(
        target=state.label,
        target_model=state.target_model,
        breaker_state=int(state.breaker.state),  # type: ignore[arg-type]
        retry_delay=duration(retry_after_s) if retry_after_s else None,
        running_count=state.running_count,
        waiting_count=state.queue.waiting_count,
        call_count=state.call_count,
        failed_call_count=state.failure_count,
        retry_count=state.retry_count,
        hedge_count=state.hedge_count,
        skipped_call_count=state.skipped_count,
        ttft_average=None if average_s is None else duration(average_s),
        ttft_p95=None if p95_s is None else duration(p95_s),
    )


def _percentile(values: Iterable[float], share: float, per_s: float = 1.0) -> Duration | None:
    value = percentile(values, share)
    return None if value is None else duration(value / per_s)
