"""The schema's history: brings a database up to date, or says why it cannot be used as it is.

Migrations stand in `migrations/versions`, one line of them. They run in one transaction, guarded by a lock, so that
replicas that start together run them once. Nothing is ever migrated downwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from kit.errors import ConfigError, Unavailable
from services.inference.database.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
TIMEOUT_S = 600.0  # an index on a large table takes its time, and so does another process that migrates
LOCK = 0x6D696C6C72616365  # "millrace": of PostgreSQL's advisory locks, one that nobody else takes


async def prepare(database: Database, migrate: bool | None) -> None:
    """Sees to it that the schema is the code's: brings it up to date where that is allowed.

    Args:
        database: The database.
        migrate: Whether it may be changed; None: on SQLite, which is nobody else's.
    Raises:
        ConfigError: It is older than the code and may not be changed, or newer; or it is damaged, or no database.
        Unavailable: It does not answer.
    """
    try:
        found, known = await version(database), _known()
    except Unavailable as error:
        if error.reason != "DATABASE_DAMAGED":
            raise
        raise ConfigError(
            f"the database {database.place} cannot be read ({database.trouble}): restore it from a backup "
            "(`millrace restore`), or move it away to begin anew"
        ) from None
    if found == known[-1]:
        return
    if found is not None and found not in known:
        raise ConfigError(
            f"the database is at version {found}, which this release does not know: run the newer release on it"
        )
    if not (database.is_sqlite if migrate is None else migrate):
        raise ConfigError(
            f"the database is at version {found or 'none'} and this release needs {known[-1]}: "
            "run `millrace migrate`, or set MILLRACE_INFERENCE_DATABASE_MIGRATE=true"
        )
    await upgrade(database)


async def upgrade(database: Database) -> None:
    """Runs the migrations that are missing; waits while another process runs them.

    Raises:
        Unavailable: The database does not answer.
    """
    async with database.writing(TIMEOUT_S) as connection:
        if not database.is_sqlite:  # there, a writer is alone anyway
            await connection.execute(text("SET LOCAL statement_timeout = 0"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        await connection.run_sync(_upgrade)


async def version(database: Database) -> str | None:
    """The version of the database's schema; None where it is empty.

    Raises:
        Unavailable: It does not answer.
    """
    async with database.reading() as connection:
        return await connection.run_sync(_version)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _known() -> list[str]:
    """Every version, oldest first."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_config())
    return [one.revision for one in reversed(list(script.walk_revisions()))]


def _upgrade(connection: Connection) -> None:
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    # Imported where it is used: it takes a tenth of a second, and logging must not be set up by an ini file.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config
