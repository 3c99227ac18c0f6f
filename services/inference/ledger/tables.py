"""The ledger's tables: one row per request, one per attempt, sums by the hour, and texts only where they are kept.

A row's id is a UUID of version 7, so its order is the order of time: pages and retention go by it, and inserts go to
the end of every index. Names are kept as they were when the request was made. The sums are added up by whoever inserts
a row, in the same transaction, so that reports stay quick and stay right when old rows are deleted.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, String, Table, Text, Uuid

from services.inference.database.schema import metadata


def _measures() -> list[Column[object]]:
    """What was used and how it went, of a request and of an attempt alike; NULL is unknown, never zero."""
    return [
        Column("engine", String(16), nullable=False),
        Column("target", String(256), nullable=False),
        Column("target_model", String(256), nullable=False),
        Column("created_time_ms", BigInteger, nullable=False),
        Column("duration_ms", Double),
        Column("ttft_ms", Double),
        Column("prompt_token_count", BigInteger),
        Column("completion_token_count", BigInteger),
        Column("cached_prompt_token_count", BigInteger),
        Column("reasoning_token_count", BigInteger),
        Column("usage_source", String(16), nullable=False),  # reported, counted, estimated; empty where unknown
        Column("cost_micro_usd", BigInteger),  # millionths of a US dollar
        Column("outcome", String(16), nullable=False),  # ok, failed, blocked, cancelled, lost
        Column("error_reason", String(128), nullable=False),
    ]


requests = Table(
    "ledger_requests",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("request_id", String(128), nullable=False),
    Column("kind", String(16), nullable=False),  # generation, embedding
    Column("tenant", String(256), nullable=False),
    Column("principal", String(256), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("key_name", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("route_reason", String(256), nullable=False),
    *_measures(),
    Column("attempt_count", Integer, nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("cache_outcome", String(16), nullable=False),
    Column("safety_verdict", String(16), nullable=False),
    Column("trace_id", String(32), nullable=False),
    Index(None, "tenant", "id"),
    Index(None, "tenant", "principal", "id"),
    Index(None, "key_id", "id"),
)

attempts = Table(
    "ledger_attempts",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),  # of its request
    Column("number", Integer, primary_key=True),
    *_measures(),
    Column("queue_ms", Double),
    Column("hedged", Boolean, nullable=False),
)

usage = Table(
    "ledger_usage",
    metadata,
    Column("hour_time_ms", BigInteger, primary_key=True),  # when the hour began
    Column("tenant", String(256), primary_key=True),
    Column("principal", String(256), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("key_name", String(256), primary_key=True),
    Column("model", String(256), primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            "request_count",
            "failed_request_count",
            "prompt_token_count",
            "completion_token_count",
            "cached_prompt_token_count",
            "cache_hit_count",
            "cache_miss_count",
            "blocked_count",
            "cost_micro_usd",
            "unpriced_request_count",
        )
    ),
    Index(None, "tenant", "hour_time_ms"),
    Index(None, "tenant", "principal", "hour_time_ms"),
)

texts = Table(
    "ledger_texts",
    metadata,
    Column("id", Uuid(as_uuid=False), primary_key=True),  # of its request
    Column("prompt", Text, nullable=False),
    Column("completion", Text, nullable=False),
)
