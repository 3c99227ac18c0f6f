"""UsageService: what the settlement counted, over the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from kit import telemetry
from kit.config import ServeSettings
from kit.dial import dial
from kit.errors import Code, Unavailable
from kit.serve import Registration, Server
from kit.status import from_rpc_error
from millrace.inference.v1 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc
from services.inference.accounting.settlement import Settlement
from services.inference.accounting.usage_servicer import UsageServicer
from services.inference.admission import Admission
from services.inference.attempts.targets import Targets, TargetState
from services.inference.events import CacheEvent, CacheOutcome, Receipt
from services.inference.generation import Usage
from services.inference.routing.catalog import Target
from services.inference.routing.router import RouteTarget
from services.inference.routing.rules import BreakerRule, QueueRule, Rules
from services.inference.translate import duration
from tests.inference.clocks import ManualClock
from tests.inference.parts import request

USAGE = usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"]


class NoHistory:
    """A ledger whose database is away."""

    async def sums(self, *_: Any) -> list[Any]:
        raise Unavailable("DATABASE_UNAVAILABLE", "the database does not answer; retry later")

    page = sums


async def no_keys(_: object) -> int:
    return 0


@pytest.fixture
def settlement() -> Settlement:
    """Counters at 0."""
    return Settlement()


@pytest.fixture
def admission() -> Admission:
    """Ten slots."""
    return Admission(10)


async def no_cache() -> None:
    """There is none."""


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture
def targets(clock: ManualClock) -> Targets:
    """No target has been asked."""
    return Targets(clock)


@pytest.fixture
async def stub(settlement: Settlement, admission: Admission, targets: Targets) -> AsyncIterator[Any]:
    """The service over gRPC, without a ledger."""
    servicer = UsageServicer(settlement, admission, targets, NoHistory(), no_keys, no_cache)  # type: ignore[arg-type]
    add = usage_service_pb2_grpc.add_UsageServiceServicer_to_server
    server = Server("usage", ServeSettings(port=0), [Registration(USAGE.full_name, add, servicer)], telemetry.off())
    port = await server.start()
    server.set_serving("", True)
    async with dial(f"127.0.0.1:{port}") as channel:
        yield usage_service_pb2_grpc.UsageServiceStub(channel)
    await server.stop(0)


async def stats(stub: Any) -> usage_service_pb2.GetStatsResponse:
    answer: usage_service_pb2.GetStatsResponse = await stub.GetStats(usage_service_pb2.GetStatsRequest(), timeout=5)
    return answer


async def test_nothing_has_happened_yet(stub: Any) -> None:
    """Zeros, and no percentile of nothing."""
    answer = await stats(stub)

    assert answer.totals == usage_pb2.UsageTotals()
    assert not answer.totals_by_model
    assert not answer.targets
    assert answer.latency == usage_pb2.LatencySummary()
    assert answer.running_count == 0
    assert answer.HasField("uptime")


async def test_what_was_counted_is_told(stub: Any, settlement: Settlement, admission: Admission) -> None:
    """Each counter under its own name, in all and by model; money, tokens, hits, failures, latency, what runs."""
    used = Receipt("r1", "gpt", duration_s=1.5, ttft_s=0.25, usage=Usage(3, 7), cost_micro_usd=11)
    used.cache = CacheEvent(CacheOutcome.MISS)
    hit = Receipt("r2", "gpt", duration_s=0.5, engine="cache", cost_micro_usd=0, cache=CacheEvent(CacheOutcome.EXACT))
    for receipt in (used, hit):
        with settlement.settle(request(), receipt):
            pass
    with pytest.raises(Unavailable), settlement.settle(request(), Receipt("r3", "other", duration_s=0.5)):
        raise Unavailable("DOWN", "down")

    with admission.admit():
        answer = await stats(stub)

    gpt = usage_pb2.UsageTotals(
        request_count=2,
        prompt_token_count=3,
        completion_token_count=7,
        cache_hit_count=1,
        cache_miss_count=1,
        cost_micro_usd=11,
    )
    other = usage_pb2.UsageTotals(request_count=1, failed_request_count=1)
    assert dict(answer.totals_by_model) == {"gpt": gpt, "other": other}
    gpt.MergeFrom(usage_pb2.UsageTotals(request_count=3, failed_request_count=1))
    assert answer.totals == gpt
    assert answer.latency.duration_p50.ToMilliseconds() == 500
    assert answer.latency.duration_p95.ToMilliseconds() == 1500
    assert answer.latency.ttft_p50.ToMilliseconds() == answer.latency.ttft_p95.ToMilliseconds() == 250
    assert answer.running_count == 1


def asked(targets: Targets, name: str, **fields: Any) -> TargetState:
    target = Target.model_validate({"engine": "openai", "upstream": name, **fields})
    return targets.of(RouteTarget(target, "gpt"), Rules())


async def test_every_target_tells_how_it_fares(stub: Any, targets: Targets, clock: ManualClock) -> None:
    """One that is well and busy, with how fast it is; each count under its own name."""
    state = asked(targets, "well", queue=QueueRule(running_count_max=1))
    for _ in range(20):
        state.first_tokens.record(0.25)
    state.entered()
    state.entered()
    state.failure_count, state.retry_count, state.hedge_count, state.skipped_count = 3, 4, 5, 6
    await state.queue.enter(0, clock.now + 1)
    waiting = asyncio.create_task(state.queue.enter(0, clock.now + 1))
    await asyncio.sleep(0)

    (told,) = (await stats(stub)).targets

    assert told == usage_pb2.TargetStats(
        target="well:*",
        target_model="gpt",
        breaker_state=usage_pb2.BREAKER_STATE_CLOSED,
        running_count=2,
        waiting_count=1,
        call_count=2,
        failed_call_count=3,
        retry_count=4,
        hedge_count=5,
        skipped_call_count=6,
        ttft_average=duration(0.25),
        ttft_p95=duration(0.25),
    )
    state.queue.leave(0.1)
    await waiting


async def test_targets_that_are_left_alone_say_for_how_long(stub: Any, targets: Targets, clock: ManualClock) -> None:
    """A breaker that is open or half-open, and a rest that was asked for."""
    down = asked(targets, "down", breaker=BreakerRule(failures_in_a_row=1, open_s=30))
    back = asked(targets, "back", breaker=BreakerRule(failures_in_a_row=1, open_s=2))
    busy = asked(targets, "busy")
    for state in (down, back):
        permit = state.breaker.enter()
        assert permit
        permit.failed()
    busy.rest(7)
    clock.turn(2)

    told = {one.target: one for one in (await stats(stub)).targets}

    states = {name: (one.breaker_state, one.retry_delay.ToMilliseconds()) for name, one in told.items()}
    assert states == {
        "down:*": (usage_pb2.BREAKER_STATE_OPEN, 28_000),
        "back:*": (usage_pb2.BREAKER_STATE_HALF_OPEN, 0),
        "busy:*": (usage_pb2.BREAKER_STATE_CLOSED, 5_000),
    }
    assert [name for name, one in told.items() if not one.HasField("retry_delay")] == ["back:*"]


@pytest.mark.parametrize("method", ["GetUsage", "ListHistory"])
async def test_without_the_database_there_is_no_past(stub: Any, method: str) -> None:
    """It says so, and that it is worth another try; the counters of this process are there all the same."""
    request = getattr(usage_service_pb2, f"{method}Request")()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request, timeout=5)

    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == (Code.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    assert not (await stats(stub)).HasField("ledger")
