"""`millrace migrate`: brings the schema of inference's database up to date, once and for all replicas."""

from __future__ import annotations

import asyncio

from kit.config import load
from kit.errors import Unavailable
from services.inference.config import InferenceSettings
from services.inference.database.database import Database
from services.inference.database.migrating import upgrade, version


def migrate() -> int:
    """Migrates the database that the settings of inference name.

    Raises:
        ConfigError: A setting is bad.
        Unavailable: The database does not answer; says where it was looked for, and why.
    """
    before, after = asyncio.run(_migrate())
    print(f"the database is at version {after}" + (" already" if before == after else f" (was: {before or 'empty'})"))
    return 0


async def _migrate() -> tuple[str | None, str | None]:
    database = Database(load(InferenceSettings).database)
    try:
        before = await version(database)
        await upgrade(database)
        return before, await version(database)
    except Unavailable as error:  # an operator may know where it is and what it said, callers of a service may not
        raise Unavailable(error.reason, f"{database.place}: {error.message} ({database.trouble})") from error
    finally:
        await database.close()
