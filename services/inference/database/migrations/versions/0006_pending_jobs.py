"""An index by which the jobs of a caller that have not ended are counted."""

from __future__ import annotations

from alembic import op

revision = "0006_pending_jobs"
down_revision = "0005_usage_by_principal"


def upgrade() -> None:
    """Makes the index."""
    op.create_index("ix_jobs_tenant_principal_state", "jobs", ["tenant", "principal", "state"])
