"""Jobs, their items and events, and files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004_jobs"
down_revision = "0002_keys"


def upgrade() -> None:
    """Makes the tables of jobs and files."""
    _jobs()
    _items()
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("idx", sa.Integer()),
        sa.Column("payload", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("job_id", "sequence", name="pk_job_events"),
    )
    _files()


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("keep_events", sa.Boolean(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("item_count", sa.Integer(), nullable=False),
        sa.Column("completed_count", sa.Integer(), nullable=False),
        sa.Column("failed_count", sa.Integer(), nullable=False),
        sa.Column("expired_count", sa.Integer(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("started_ms", sa.BigInteger()),
        sa.Column("ended_ms", sa.BigInteger()),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("cancel_ms", sa.BigInteger()),
        sa.Column("served_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
    )
    unique = ["tenant", "principal", "request_id"]
    op.create_index("uq_jobs_tenant_principal_request_id", "jobs", unique, unique=True)
    op.create_index("ix_jobs_tenant_principal_job_id", "jobs", ["tenant", "principal", "job_id"])
    op.create_index("ix_jobs_state_served_ms", "jobs", ["state", "served_ms"])
    op.create_index("ix_jobs_expire_ms", "jobs", ["expire_ms"])


def _items() -> None:
    op.create_table(
        "job_items",
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(512), nullable=False),
        sa.Column("work", sa.LargeBinary(), nullable=False),
        sa.Column("attachment", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.Column("try_count", sa.Integer(), nullable=False),
        sa.Column("ready_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(32), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "idx", name="pk_job_items"),
    )
    op.create_index("ix_job_items_job_id_state_ready_ms", "job_items", ["job_id", "state", "ready_ms"])
    op.create_index("ix_job_items_state_lease_ms", "job_items", ["state", "lease_ms"])


def _files() -> None:
    op.create_table(
        "files",
        sa.Column("file_id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("filename", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_whole", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", name="pk_files"),
    )
    op.create_index("ix_files_tenant_principal_file_id", "files", ["tenant", "principal", "file_id"])
    op.create_index("ix_files_expire_ms", "files", ["expire_ms"])
    op.create_table(
        "file_chunks",
        sa.Column("file_id", sa.String(32), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "idx", name="pk_file_chunks"),
    )
