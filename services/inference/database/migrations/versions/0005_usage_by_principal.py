"""An index by which the sums of one principal are found among those of a large tenant."""

from __future__ import annotations

from alembic import op

revision = "0005_usage_by_principal"
down_revision = "0004_jobs"


def upgrade() -> None:
    """Makes the index."""
    columns = ["tenant", "principal", "hour_time_ms"]
    op.create_index("ix_ledger_usage_tenant_principal_hour_time_ms", "ledger_usage", columns)
