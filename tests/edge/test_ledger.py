"""GET /history, /v1/usage and /stats as they are asked for and told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from millrace.inference.v1 import event_pb2, usage_pb2
from millrace.inference.v1 import usage_service_pb2 as pb
from tests.edge.conftest import RunningEdge, serving
from tests.fakes.inference import FakeInference

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOTALS = usage_pb2.UsageTotals(
    request_count=3, prompt_token_count=30, completion_token_count=70, cost_micro_usd=1_500, cache_hit_count=1
)
ENTRY = pb.HistoryEntry(
    request_id="r1",
    entry_id="01",
    created_time=Timestamp(seconds=1_700_000_000, nanos=5_000_000),
    model="gpt",
    totals=usage_pb2.UsageTotals(prompt_token_count=3, completion_token_count=7),
    outcome=usage_pb2.REQUEST_OUTCOME_OK,
    finish_reason=event_pb2.FINISH_REASON_STOP,
    cache_outcome=event_pb2.CACHE_OUTCOME_MISS,
    usage_source=event_pb2.USAGE_SOURCE_REPORTED,
    duration=Duration(seconds=1),
    cost_micro_usd=0,
    key_name="alice's",
    attempts=[
        event_pb2.Attempt(target="up:gpt", outcome=event_pb2.ATTEMPT_OUTCOME_LOST, error_reason="PROCESS_LOST"),
    ],
)


class Ledger(FakeInference):
    """Inference with a past."""

    asked: Any = None

    async def ListHistory(self, request: pb.ListHistoryRequest, context: Any) -> pb.ListHistoryResponse:
        self.asked = request
        return pb.ListHistoryResponse(entries=[ENTRY], next_page_token="02")

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        self.asked = request
        day = {"start_time": Timestamp(seconds=86_400), "end_time": Timestamp(seconds=172_800)}
        lines = [usage_pb2.UsageLine(**day, model=name, totals=TOTALS) for name in ("gpt", "other")]
        return pb.GetUsageResponse(lines=lines)

    async def ListLimits(self, request: pb.ListLimitsRequest, context: Any) -> pb.ListLimitsResponse:
        minute = event_pb2.LimitState(
            name="user_requests_per_minute", unit=event_pb2.LIMIT_UNIT_REQUESTS,
            window=event_pb2.LIMIT_WINDOW_MINUTE, limit=20, remaining=19, reset=Duration(seconds=1, nanos=500_000_000),
        )  # fmt: skip
        month = event_pb2.LimitState(
            name="tenant_usd_per_month", unit=event_pb2.LIMIT_UNIT_MICRO_USD,
            window=event_pb2.LIMIT_WINDOW_MONTH, limit=2_500_000, remaining=1_250_000,
        )  # fmt: skip
        return pb.ListLimitsResponse(limits=[minute, month])

    async def GetStats(self, request: Any, context: Any) -> pb.GetStatsResponse:
        answer = await super().GetStats(request, context)
        answer.ledger.totals.CopyFrom(TOTALS)
        answer.ledger.request_count_by_key["alice's"] = 2
        answer.ledger.api_key_count = 4
        answer.ledger.latency.duration_p95.CopyFrom(Duration(nanos=9_000_000))
        return answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[tuple[Ledger, RunningEdge]]:
    """Inference with a past, and an edge before it."""
    fake = Ledger()
    async with serving(await fake.start()) as edge:
        yield fake, edge
    await fake.stop()


@pytest.fixture
def ledger(pair: tuple[Ledger, RunningEdge]) -> Ledger:
    """Inference with a past."""
    return pair[0]


@pytest.fixture
def edge(pair: tuple[Ledger, RunningEdge]) -> RunningEdge:
    """An edge before it."""
    return pair[1]


async def test_history_tells_what_is_known(edge: RunningEdge, ledger: Ledger) -> None:
    """Words in lower case, money in dollars, and null for what nobody knows: a cost of zero is one."""
    answer = await edge.get("/history?limit=5&after=x&model=gpt&start_time=10&end_time=20&tenant=acme")
    page = answer.json()
    (entry,) = page["data"]

    assert page["next"] == "02"
    assert (ledger.asked.page_size, ledger.asked.page_token, ledger.asked.model) == (5, "x", "gpt")
    assert (ledger.asked.start_time.seconds, ledger.asked.end_time.seconds, ledger.asked.tenant) == (10, 20, "acme")
    assert entry["created_at"] == "2023-11-14T22:13:20.005Z"
    assert [entry[name] for name in ("outcome", "finish_reason", "cache", "tokens_source")] == [
        "ok", "stop", "miss", "reported",
    ]  # fmt: skip
    assert (entry["input_tokens"], entry["output_tokens"], entry["cost_usd"], entry["latency_ms"]) == (3, 7, 0, 1000)
    assert (entry["ttft_ms"], entry["error"], entry["key_id"], entry["prompt"]) == (None, None, None, None)
    (tried,) = entry["attempts"]
    assert (tried["outcome"], tried["input_tokens"], tried["cost_usd"]) == ("lost", None, None)


async def test_usage_speaks_as_openai_does(edge: RunningEdge, ledger: Ledger) -> None:
    """Buckets of a day with a result per model; groups that were not asked for are null."""
    page = (await edge.get("/v1/usage?start_time=5&bucket_width=1d&group_by=model,%20api_key_id&user_id=alice")).json()
    (bucket,) = page["data"]

    assert (page["object"], page["has_more"], bucket["object"]) == ("page", False, "bucket")
    assert (bucket["start_time"], bucket["end_time"]) == (86_400, 172_800)
    assert [one["model"] for one in bucket["results"]] == ["gpt", "other"]
    first = bucket["results"][0]
    assert (first["input_tokens"], first["output_tokens"], first["num_model_requests"]) == (30, 70, 3)
    assert (first["cost_usd"], first["user_id"]) == (0.0015, None)
    assert list(ledger.asked.group_by) == [usage_pb2.USAGE_GROUP_MODEL, usage_pb2.USAGE_GROUP_KEY]
    assert (ledger.asked.bucket_width.seconds, ledger.asked.principal) == (86_400, "alice")


async def test_limits_are_told_in_their_units(edge: RunningEdge) -> None:
    """Each limit with what is left of it: requests as they are, money in dollars, time in seconds."""
    minute, month = (await edge.get("/v1/limits")).json()["data"]

    assert minute == {
        "name": "user_requests_per_minute", "unit": "requests", "window": "minute",
        "limit": 20, "remaining": 19, "reset_s": 1.5,
    }  # fmt: skip
    assert (month["unit"], month["window"], month["limit"], month["remaining"]) == ("usd", "month", 2.5, 1.25)


@pytest.mark.parametrize(
    "path",
    ["/history?limit=0", "/history?limit=101", "/history?colour=red", "/v1/usage?group_by=colour",
     "/v1/usage?bucket_width=1m", "/v1/usage?start_time=-1"],
)  # fmt: skip
async def test_what_cannot_be_asked_is_refused(edge: RunningEdge, path: str) -> None:
    """With 400 and the parameter's name."""
    answer = await edge.get(path)

    assert answer.status_code == 400
    assert path.partition("?")[2].partition("=")[0] in answer.text


async def test_stats_are_the_ledgers_where_it_answers(edge: RunningEdge) -> None:
    """Totals, keys by name and percentiles over every replica."""
    body = (await edge.get("/stats")).json()

    assert (body["source"], body["total_requests"], body["total_api_keys"]) == ("ledger", 3, 4)
    assert body["requests_by_key"] == {"alice's": 2}
    assert (body["tokens"]["total"], body["cost_usd"], body["latency_ms"]["p95"]) == (100, 0.0015, 9.0)
    assert (body["cache_hits"], body["uptime_s"]) == (1, 60.0)
