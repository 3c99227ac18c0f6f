"""The tables of jobs and files.

Ids sort by time, so that pages go by them. A job counts its items' ends itself: nobody counts 50,000 rows to show
progress.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, SmallInteger, String, Table, Text

from services.inference.database.schema import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("tenant", String(256), nullable=False),
    Column("principal", String(256), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("caller", Text, nullable=False),  # JSON; never a credential
    Column("kind", String(64), nullable=False),
    Column("labels", Text, nullable=False),  # JSON
    Column("keep_events", Boolean, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("item_count", Integer, nullable=False),
    Column("completed_count", Integer, nullable=False),
    Column("failed_count", Integer, nullable=False),  # expired and cancelled ones included
    Column("expired_count", Integer, nullable=False),
    Column("event_count", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("started_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("expire_ms", BigInteger, nullable=False),
    Column("cancel_ms", BigInteger),
    Column("served_ms", BigInteger, nullable=False),  # when an item of it was last begun: jobs take turns by it
    Index("uq_jobs_tenant_principal_request_id", "tenant", "principal", "request_id", unique=True),
    Index(None, "tenant", "principal", "job_id"),
    Index(None, "tenant", "principal", "state"),
    Index(None, "state", "served_ms"),
    Index(None, "expire_ms"),
)

items = Table(
    "job_items",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("label", String(512), nullable=False),
    Column("work", LargeBinary, nullable=False),
    Column("attachment", LargeBinary, nullable=False),
    Column("state", SmallInteger, nullable=False),
    Column("result", LargeBinary),
    Column("try_count", Integer, nullable=False),
    Column("ready_ms", BigInteger, nullable=False),  # not before, where it is queued
    Column("lease_id", String(32), nullable=False),
    Column("lease_ms", BigInteger, nullable=False),  # until, where it runs
    Index("ix_job_items_job_id_state_ready_ms", "job_id", "state", "ready_ms"),
    Index("ix_job_items_state_lease_ms", "state", "lease_ms"),
)

events = Table(
    "job_events",
    metadata,
    Column("job_id", String(32), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("idx", Integer),  # NULL: the job itself
    Column("payload", LargeBinary),  # NULL: an end
)

files = Table(
    "files",
    metadata,
    Column("file_id", String(32), primary_key=True),
    Column("tenant", String(256), nullable=False),
    Column("principal", String(256), nullable=False),
    Column("filename", String(255), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("expire_ms", BigInteger, nullable=False),
    Column("is_whole", Boolean, nullable=False),
    Index(None, "tenant", "principal", "file_id"),
    Index(None, "expire_ms"),
)

chunks = Table(
    "file_chunks",
    metadata,
    Column("file_id", String(32), primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
