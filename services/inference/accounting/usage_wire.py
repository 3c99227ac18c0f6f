"""The ledger on the wire: what is asked for, and its rows as messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from kit.errors import InvalidArgument
from millrace.inference.v1 import event_pb2, usage_pb2
from millrace.inference.v1.usage_service_pb2 import GetUsageRequest, HistoryEntry, ListHistoryRequest
from services.inference.events import CacheOutcome, Verdict
from services.inference.generation import FinishReason
from services.inference.ledger.history import Scope
from services.inference.ledger.store import COUNTS, HOUR_MS
from services.inference.translate import USAGE_SOURCES, duration, timestamp

PAGE_SIZE, PAGE_SIZE_MAX = 20, 100
WIDTH_HOURS_MAX = 366 * 24
GROUPS = {
    usage_pb2.USAGE_GROUP_MODEL: ("model",),
    usage_pb2.USAGE_GROUP_KEY: ("key_id", "key_name"),
    usage_pb2.USAGE_GROUP_PRINCIPAL: ("principal",),
    usage_pb2.USAGE_GROUP_TENANT: ("tenant",),
}

Row = Mapping[str, Any]


def scope(asked: GetUsageRequest | ListHistoryRequest) -> Scope:
    """Whose rows are asked for."""
    return Scope(
        asked.tenant or None,
        asked.principal or None,
        asked.key_id or None,
        asked.model or None,
        _instant_ms(asked, "start_time"),
        _instant_ms(asked, "end_time"),
    )


def page(asked: ListHistoryRequest) -> tuple[int, str | None]:
    """How many entries are asked for, and where to go on.

    Raises:
        InvalidArgument: The size is out of range, or the token none of ours.
    """
    if not 0 <= asked.page_size <= PAGE_SIZE_MAX:
        raise InvalidArgument("page_size", f"must be 0 to {PAGE_SIZE_MAX}")
    if not asked.page_token:
        return asked.page_size or PAGE_SIZE, None
    try:
        return asked.page_size or PAGE_SIZE, str(UUID(asked.page_token))
    except ValueError:
        raise InvalidArgument("page_token", "must be one that the list before gave") from None


def width_ms(asked: GetUsageRequest) -> int | None:
    """Length of the spans that are told apart.

    Raises:
        InvalidArgument: It is no whole number of hours, or out of range.
    """
    if not asked.HasField("bucket_width"):
        return None
    hours, rest = divmod(asked.bucket_width.seconds, 3_600)
    if rest or asked.bucket_width.nanos or not 1 <= hours <= WIDTH_HOURS_MAX:
        raise InvalidArgument("bucket_width", f"must be 1 to {WIDTH_HOURS_MAX} whole hours")
    return hours * HOUR_MS


def groups(asked: GetUsageRequest) -> list[str]:
    """The columns by which usage is told apart.

    Raises:
        InvalidArgument: A group is not known.
    """
    unknown = [group for group in asked.group_by if group not in GROUPS]
    if unknown:
        raise InvalidArgument("group_by", f"has an unknown group: {unknown[0]}")
    return [name for group in dict.fromkeys(asked.group_by) for name in GROUPS[group]]


def totals(lines: Iterable[Row]) -> usage_pb2.UsageTotals:
    """Lines of sums, added up."""
    found = list(lines)
    return usage_pb2.UsageTotals(**{name: sum(int(line[name]) for line in found) for name in COUNTS})


def line(row: Row, width: int | None) -> usage_pb2.UsageLine:
    """One line of a report."""
    start_ms = int(row["start_time_ms"])
    return usage_pb2.UsageLine(
        start_time=timestamp(start_ms / 1000) if width else None,
        end_time=timestamp((start_ms + width) / 1000) if width else None,
        **{name: row[name] for names in GROUPS.values() for name in names if name in row},
        totals=totals([row]),
    )


def entry(row: Row) -> HistoryEntry:
    """One past request."""
    outcome = str(row["outcome"]).upper()
    verdict, finish, cache = row["safety_verdict"].upper(), row["finish_reason"].upper(), row["cache_outcome"].upper()
    return HistoryEntry(
        **{name: row[name] for name in _SAME},
        entry_id=row["id"],
        created_time=timestamp(row["created_time_ms"] / 1000),
        totals=_own_totals(row),
        outcome=f"REQUEST_OUTCOME_{outcome}",
        finish_reason=int(FinishReason[finish]) if finish else 0,  # type: ignore[arg-type]
        cache_outcome=int(CacheOutcome[cache]) if cache else 0,  # type: ignore[arg-type]
        safety_verdict=int(Verdict[verdict]) if verdict else 0,  # type: ignore[arg-type]
        duration=_span(row["duration_ms"]),
        ttft=_span(row["ttft_ms"]),
        usage_source=USAGE_SOURCES[row["usage_source"]],
        attempts=[attempt(one) for one in row["attempts"]],
    )


def attempt(row: Row) -> event_pb2.Attempt:
    """One try of a past request."""
    return event_pb2.Attempt(
        **{name: row[name] for name in ("number", "engine", "target", "error_reason", "hedged", "cost_micro_usd")},
        outcome=f"ATTEMPT_OUTCOME_{row['outcome'].upper()}",
        duration=_span(row["duration_ms"]),
        ttft=_span(row["ttft_ms"]),
        queue_time=_span(row["queue_ms"]),
        usage=None if row["prompt_token_count"] is None else _usage(row),
        usage_source=USAGE_SOURCES[row["usage_source"]],
    )


_SAME = (
    "request_id", "kind", "tenant", "principal", "key_id", "key_name", "model", "route_reason", "engine", "target",
    "target_model", "error_reason", "trace_id", "cost_micro_usd", "prompt", "completion",
)  # fmt: skip


def _own_totals(row: Row) -> usage_pb2.UsageTotals:
    return usage_pb2.UsageTotals(
        request_count=1,
        failed_request_count=int(row["outcome"] in ("failed", "lost")),
        prompt_token_count=row["prompt_token_count"],
        completion_token_count=row["completion_token_count"],
        cached_prompt_token_count=row["cached_prompt_token_count"],
        cost_micro_usd=row["cost_micro_usd"],
        unpriced_request_count=int(row["cost_micro_usd"] is None),
    )


def _usage(row: Row) -> event_pb2.Usage:
    names = ("prompt_token_count", "completion_token_count", "cached_prompt_token_count", "reasoning_token_count")
    return event_pb2.Usage(**{name: row[name] for name in names}, estimated=row["usage_source"] != "reported")


def _span(time_ms: float | None) -> Duration | None:
    return None if time_ms is None else duration(time_ms / 1000)


def _instant_ms(asked: GetUsageRequest | ListHistoryRequest, field: str) -> int | None:
    if not asked.HasField(field):
        return None
    instant: Timestamp = getattr(asked, field)
    return max(0, instant.seconds * 1000 + instant.nanos // 1_000_000)
