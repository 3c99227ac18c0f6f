"""GET /history and /v1/usage: what the ledger has of past requests, as far as the caller may see it."""

from __future__ import annotations

from datetime import UTC
from typing import Annotated, Any, Literal

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Meta, Struct

from millrace.inference.v1 import event_pb2, usage_pb2
from millrace.inference.v1.usage_service_pb2 import GetUsageRequest, HistoryEntry, ListHistoryRequest
from services.edge import query
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import InferenceClient
from services.edge.provenance import milliseconds

Name = Annotated[str, Meta(max_length=256)]
UnixTime = Annotated[int, Meta(ge=0, le=253_402_300_799, description="Seconds since the epoch.")]
Width = Literal["1h", "1d"]
_HOURS: dict[Width, int] = {"1h": 1, "1d": 24}
# In OpenAI's words: its projects are our tenants, its users our principals.
_GROUPS = {
    "model": usage_pb2.USAGE_GROUP_MODEL,
    "api_key_id": usage_pb2.USAGE_GROUP_KEY,
    "user_id": usage_pb2.USAGE_GROUP_PRINCIPAL,
    "project_id": usage_pb2.USAGE_GROUP_TENANT,
}


class HistoryQuery(Struct, forbid_unknown_fields=True):
    """Which requests; the end is exclusive. `after` goes on where a page ended."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: Annotated[str, Meta(max_length=64)] = ""
    model: Name = ""
    key_id: Name = ""
    principal: Name = ""
    tenant: Name = ""
    start_time: UnixTime | None = None
    end_time: UnixTime | None = None


class PastAttempt(Struct):
    """One try at one target; times in milliseconds, null where nobody knows."""

    target: str
    outcome: str
    error: str | None
    latency_ms: float | None
    ttft_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    tokens_source: str | None
    cost_usd: float | None
    hedged: bool


class PastRequest(Struct, kw_only=True):
    """One past request; tokens and cost are those of all its attempts, and a cost that is not known is null."""

    id: str
    request_id: str
    created_at: str
    kind: str
    model: str
    route_reason: str
    target: str
    target_model: str
    outcome: str
    error: str | None
    finish_reason: str | None
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    tokens_source: str | None
    cost_usd: float | None
    latency_ms: float | None
    ttft_ms: float | None
    cache: str | None
    safety: str | None
    tenant: str
    principal: str
    key_id: str | None
    key_name: str | None
    trace_id: str | None
    attempts: list[PastAttempt]
    prompt: str | None
    response: str | None


class HistoryPage(Struct):
    """Past requests, newest first; `next` continues the list as `after`."""

    data: list[PastRequest]
    next: str | None = None


class UsageQuery(Struct, forbid_unknown_fields=True):
    """Which usage; spans are widened to whole hours. `group_by` is a list with commas."""

    start_time: UnixTime | None = None
    end_time: UnixTime | None = None
    bucket_width: Width = "1d"
    group_by: Annotated[str, Meta(max_length=256)] = ""
    model: Name = ""
    api_key_id: Name = ""
    user_id: Name = ""
    project_id: Name = ""


class UsageResult(Struct, kw_only=True):
    """What was used, in the words of OpenAI's usage API, and what it knows nothing of: cost and failures."""

    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"
    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    num_model_requests: int
    project_id: str | None
    user_id: str | None
    api_key_id: str | None
    api_key_name: str | None
    model: str | None
    failed_requests: int
    cache_hits: int
    cost_usd: float
    unpriced_requests: int


class UsageBucket(Struct, kw_only=True):
    """One span of time; those without requests are missing."""

    object: Literal["bucket"] = "bucket"
    start_time: int
    end_time: int
    results: list[UsageResult]


class UsagePage(Struct, kw_only=True):
    """Usage by time."""

    object: Literal["page"] = "page"
    data: list[UsageBucket]
    has_more: bool = False
    next_page: str | None = None


class LedgerEndpoints:
    """The past."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def history(self, exchange: Exchange, _: None) -> HistoryPage:
        """GET /history."""
        asked = query.read(exchange, HistoryQuery)
        request = ListHistoryRequest(
            page_size=asked.limit,
            page_token=asked.after,
            tenant=asked.tenant,
            principal=asked.principal,
            key_id=asked.key_id,
            model=asked.model,
            start_time=_timestamp(asked.start_time),
            end_time=_timestamp(asked.end_time),
        )
        found = await self._inference.history(exchange, request)
        return HistoryPage([_past(entry) for entry in found.entries], found.next_page_token or None)

    async def usage(self, exchange: Exchange, _: None) -> UsagePage:
        """GET /v1/usage."""
        asked = query.read(exchange, UsageQuery)
        names = [name.strip() for name in asked.group_by.split(",") if name.strip()]
        if unknown := [name for name in names if name not in _GROUPS]:
            raise Fault.invalid(f"It has {unknown[0]!r}; it may have {', '.join(_GROUPS)}.", "group_by")
        request = GetUsageRequest(
            start_time=_timestamp(asked.start_time),
            end_time=_timestamp(asked.end_time),
            bucket_width=Duration(seconds=_HOURS[asked.bucket_width] * 3_600),
            group_by=[_GROUPS[name] for name in names],
            model=asked.model,
            key_id=asked.api_key_id,
            principal=asked.user_id,
            tenant=asked.project_id,
        )
        found = await self._inference.usage(exchange, request)
        buckets: dict[tuple[int, int], list[UsageResult]] = {}
        for line in found.lines:
            span = (line.start_time.seconds, line.end_time.seconds)
            buckets.setdefault(span, []).append(_result(line, names))
        return UsagePage(
            data=[UsageBucket(start_time=a, end_time=b, results=found) for (a, b), found in buckets.items()]
        )


def _past(entry: HistoryEntry) -> PastRequest:
    used = entry.totals
    return PastRequest(
        id=entry.entry_id,
        request_id=entry.request_id,
        created_at=entry.created_time.ToDatetime(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        kind=entry.kind,
        model=entry.model,
        route_reason=entry.route_reason,
        target=entry.target,
        target_model=entry.target_model,
        outcome=_word(usage_pb2.RequestOutcome, entry.outcome) or "unknown",
        error=entry.error_reason or None,
        finish_reason=_word(event_pb2.FinishReason, entry.finish_reason),
        input_tokens=used.prompt_token_count,
        output_tokens=used.completion_token_count,
        cached_tokens=used.cached_prompt_token_count,
        tokens_source=_word(event_pb2.UsageSource, entry.usage_source),
        cost_usd=_usd(entry),
        latency_ms=_ms(entry, "duration"),
        ttft_ms=_ms(entry, "ttft"),
        cache=_word(event_pb2.CacheOutcome, entry.cache_outcome),
        safety=_word(event_pb2.SafetyVerdict, entry.safety_verdict),
        tenant=entry.tenant,
        principal=entry.principal,
        key_id=entry.key_id or None,
        key_name=entry.key_name or None,
        trace_id=entry.trace_id or None,
        attempts=[_attempt(one) for one in entry.attempts],
        prompt=entry.prompt or None,
        response=entry.completion or None,
    )


def _attempt(one: event_pb2.Attempt) -> PastAttempt:
    known = one.HasField("usage")
    return PastAttempt(
        target=one.target,
        outcome=_word(event_pb2.AttemptOutcome, one.outcome) or "unknown",
        error=one.error_reason or None,
        latency_ms=_ms(one, "duration"),
        ttft_ms=_ms(one, "ttft"),
        input_tokens=one.usage.prompt_token_count if known else None,
        output_tokens=one.usage.completion_token_count if known else None,
        tokens_source=_word(event_pb2.UsageSource, one.usage_source),
        cost_usd=_usd(one),
        hedged=one.hedged,
    )


def _result(line: usage_pb2.UsageLine, names: list[str]) -> UsageResult:
    used = line.totals
    return UsageResult(
        input_tokens=used.prompt_token_count,
        output_tokens=used.completion_token_count,
        input_cached_tokens=used.cached_prompt_token_count,
        num_model_requests=used.request_count,
        project_id=line.tenant if "project_id" in names else None,
        user_id=line.principal if "user_id" in names else None,
        api_key_id=line.key_id or None,
        api_key_name=line.key_name or None,
        model=line.model if "model" in names else None,
        failed_requests=used.failed_request_count,
        cache_hits=used.cache_hit_count,
        cost_usd=used.cost_micro_usd / 1e6,
        unpriced_requests=used.unpriced_request_count,
    )


def _word(kind: Any, number: int) -> str | None:
    """A value of an enum in lower case, without the enum's name; None where it is not set."""
    first: str = kind.Name(0)
    return kind.Name(number).removeprefix(first.removesuffix("UNSPECIFIED")).lower() if number else None


def _usd(told: HistoryEntry | event_pb2.Attempt) -> float | None:
    return told.cost_micro_usd / 1e6 if told.HasField("cost_micro_usd") else None


def _ms(told: HistoryEntry | event_pb2.Attempt, field: Any) -> float | None:
    return milliseconds(getattr(told, field)) if told.HasField(field) else None


def _timestamp(time_s: int | None) -> Timestamp | None:
    return None if time_s is None else Timestamp(seconds=time_s)
