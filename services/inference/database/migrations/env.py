"""Alembic's entry: runs migrations on the connection that `migrating` holds, within its transaction."""

from __future__ import annotations

from alembic import context

from services.inference.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
