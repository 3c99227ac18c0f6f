"""UsageService: the counters of this process and its targets. What needs the ledger says that it is not there yet."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from google.protobuf.duration_pb2 import Duration

from kit.errors import Unimplemented
from millrace.inference.v1 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from services.inference.admission import Admission
from services.inference.settlement import Settlement, Totals, percentile
from services.inference.targets import Targets, TargetState
from services.inference.translate import duration


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    """Reports what the settlement counted and what is known of the targets."""

    def __init__(self, settlement: Settlement, admission: Admission, targets: Targets) -> None:
        self._settlement, self._admission, self._targets = settlement, admission, targets

    async def GetStats(
        self, request: usage_service_pb2.GetStatsRequest, context: Any
    ) -> usage_service_pb2.GetStatsResponse:
        """Gets the counters of this process since it started."""
        counted = self._settlement
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
        )

    async def GetUsage(self, request: Any, context: Any) -> Any:
        """Not served yet."""
        raise _no_ledger()

    async def ListHistory(self, request: Any, context: Any) -> Any:
        """Not served yet."""
        raise _no_ledger()


def _no_ledger() -> Unimplemented:
    return Unimplemented("LEDGER_NOT_AVAILABLE", "there is no ledger yet; GetStats has the counters of this process")


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


def _percentile(values: deque[float], share: float) -> Duration | None:
    value = percentile(values, share)
    return None if value is None else duration(value)
