"""Keys, users and their refresh tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002_keys"
down_revision = "0001_ledger"


def upgrade() -> None:
    """Makes the tables of access."""
    state = op.create_table(
        "access_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("pepper_check", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_access_state"),
    )
    op.bulk_insert(state, [{"id": 1, "version": 0, "pepper_check": ""}])
    _create_keys()
    op.create_table(
        "access_users",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("password_hash", sa.String(256), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("disable_time_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("name", name="pk_access_users"),
    )
    op.create_table(
        "access_refresh_tokens",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("login_id", sa.String(64), nullable=False),
        sa.Column("user_name", sa.String(64), nullable=False),
        sa.Column("expire_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("use_time_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("digest", name="pk_access_refresh_tokens"),
    )
    for column in ("login_id", "user_name", "expire_time_ms"):
        op.create_index(f"ix_access_refresh_tokens_{column}", "access_refresh_tokens", [column])


def _create_keys() -> None:
    op.create_table(
        "access_keys",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("tenant", sa.String(256), nullable=False),
        sa.Column("principal", sa.String(256), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("tier", sa.String(64), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("endpoints", sa.Text(), nullable=False),
        sa.Column("safety_profiles", sa.Text(), nullable=False),
        sa.Column("created_time_ms", sa.BigInteger(), nullable=False),
        sa.Column("expire_time_ms", sa.BigInteger()),
        sa.Column("revoke_time_ms", sa.BigInteger()),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_access_keys"),
    )
    op.create_index("ix_access_keys_version", "access_keys", ["version"])
    op.create_index("ix_access_keys_created_time_ms_key_id", "access_keys", ["created_time_ms", "key_id"])
    op.create_table(
        "access_secrets",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("expire_time_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("digest", name="pk_access_secrets"),
    )
    op.create_index("ix_access_secrets_key_id", "access_secrets", ["key_id"])
