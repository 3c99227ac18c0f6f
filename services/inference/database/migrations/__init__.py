"""What Alembic runs; see `services.inference.database.migrating`."""
