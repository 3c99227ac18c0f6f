"""The ledger: requests, attempts and, where they are kept, texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_ledger"
down_revision = None


def upgrade() -> None:
    """Makes the ledger's tables."""
    _requests()
    _attempts()
    _usage()
    _texts()


def _requests() -> None:
    op.create_table(
        "ledger_requests",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("key_name", sa.String(256), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("route_reason", sa.String(256), nullable=False),
        *_measures(),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("finish_reason", sa.String(16), nullable=False),
        sa.Column("cache_outcome", sa.String(16), nullable=False),
        sa.Column("safety_verdict", sa.String(16), nullable=False),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_requests"),
    )
    op.create_index("ix_ledger_requests_tenant_id", "ledger_requests", ["tenant", "id"])
    op.create_index("ix_ledger_requests_tenant_principal_id", "ledger_requests", ["tenant", "principal", "id"])
    op.create_index("ix_ledger_requests_key_id_id", "ledger_requests", ["key_id", "id"])


def _attempts() -> None:
    op.create_table(
        "ledger_attempts",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        *_measures(),
        sa.Column("queue_ms", sa.Double()),
        sa.Column("hedged", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", "number", name="pk_ledger_attempts"),
    )


def _usage() -> None:
    op.create_table(
        "ledger_usage",
        sa.Column("hour_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("key_name", sa.String(256), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("request_count", sa.BigInteger(), nullable=False),
        sa.Column("failed_request_count", sa.BigInteger(), nullable=False),
        sa.Column("prompt_token_count", sa.BigInteger(), nullable=False),
        sa.Column("completion_token_count", sa.BigInteger(), nullable=False),
        sa.Column("cached_prompt_token_count", sa.BigInteger(), nullable=False),
        sa.Column("cache_hit_count", sa.BigInteger(), nullable=False),
        sa.Column("cache_miss_count", sa.BigInteger(), nullable=False),
        sa.Column("blocked_count", sa.BigInteger(), nullable=False),
        sa.Column("cost_micro_usd", sa.BigInteger(), nullable=False),
        sa.Column("unpriced_request_count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "hour_time_ms", "tenant", "principal", "key_id", "key_name", "model", name="pk_ledger_usage"
        ),
    )
    op.create_index("ix_ledger_usage_tenant_hour_time_ms", "ledger_usage", ["tenant", "hour_time_ms"])


def _texts() -> None:
    op.create_table(
        "ledger_texts",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("completion", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_ledger_texts"),
    )


def _measures() -> list[sa.Column[object]]:
    return [
        sa.Column("engine", sa.String(16), nullable=False),
        sa.Column("target", sa.String(256), nullable=False),
        sa.Column("target_model", sa.String(256), nullable=False),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("duration_ms", sa.Double()),
        sa.Column("ttft_ms", sa.Double()),
        sa.Column("prompt_token_count", sa.BigInteger()),
        sa.Column("completion_token_count", sa.BigInteger()),
        sa.Column("cached_prompt_token_count", sa.BigInteger()),
        sa.Column("reasoning_token_count", sa.BigInteger()),
        sa.Column("usage_source", sa.String(16), nullable=False),
        sa.Column("cost_micro_usd", sa.BigInteger()),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("error_reason", sa.String(128), nullable=False),
    ]
