"""What the two commands do, in order, and what they say meanwhile.

A restore checks everything before it changes anything: the backup's digests, that the targets are empty or may be
overwritten, and that no service has them.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, TextIO

from cli.backup import cache, database, ledger
from cli.backup.archive import (
    FORMAT,
    CachePart,
    DatabasePart,
    Manifest,
    Part,
    PartWriter,
    making,
    read_manifest,
    reading,
    write_manifest,
)
from cli.errors import CommandError
from cli.layout import Layout
from services.inference.access.pepper import write_private
from services.inference.config import InferenceSettings
from services.inference.database.database import Database

DATABASE, CACHE = "database", "cache"
EVERYTHING: Final = (DATABASE, CACHE)
TOLD_INTERVAL_S = 0.2


class Progress:
    """Shows how far the parts are: on a terminal while they grow, elsewhere when they are done."""

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._is_live = out.isatty()
        self._told_s = 0.0

    def told(self, name: str, count: int) -> None:
        """Notes how many of a part are done."""
        if self._is_live and self._clock() - self._told_s >= TOLD_INTERVAL_S:
            self._told_s = self._clock()
            print(f"\r{name:<24}{count:>14,}", end="", file=self._out, flush=True)

    def done(self, name: str, count: int, note: str = "") -> None:
        """Says that a part is whole."""
        start = "\r" if self._is_live else ""
        print(f"{start}{name:<24}{count:>14,}  {note}".rstrip(), file=self._out, flush=True)


def backup(folder: Path, only: str | None) -> int:
    """Makes a backup of what the settings name, while the services run.

    Args:
        folder: Where to; must not be there yet.
        only: `database` or `cache`; None for both.
    Raises:
        CommandError: It cannot be made; nothing is left of it.
    """
    return asyncio.run(_backup(folder, (only,) if only else EVERYTHING))


def restore(folder: Path, only: str | None, force: bool, check: bool) -> int:
    """Restores a backup to where the settings say.

    Args:
        folder: The backup.
        only: `database` or `cache`; None for what it has.
        force: Overwrite what is there.
        check: Change nothing: only say whether it could be done.
    Raises:
        CommandError: The backup is damaged, or the target is in use, or not empty and `force` was not given.
    """
    return asyncio.run(_restore(folder, (only,) if only else EVERYTHING, force, check))


async def _backup(folder: Path, wanted: tuple[str, ...]) -> int:
    layout, progress = Layout.load(), Progress(sys.stderr)
    with making(folder) as unfinished:
        held = await _dump_database(layout.inference, unfinished, progress) if DATABASE in wanted else None
        entries = None
        if CACHE in wanted:
            entries = await cache.dump_entries(layout.cache, unfinished, progress.told)
            progress.done("cache", entries.entries.count, "entries")
        made = datetime.now(UTC).isoformat(timespec="seconds")
        write_manifest(unfinished, Manifest(FORMAT, version("millrace"), made, held, entries))
    print(folder)
    return 0


async def _dump_database(settings: InferenceSettings, folder: Path, progress: Progress) -> DatabasePart:
    journal = ledger.dump_journal(settings.ledger.folder, folder)
    base = Database(settings.database)
    try:
        schema, tables = await database.dump_tables(base, folder, progress.told)
    finally:
        await base.close()
    for name, table in tables.items():
        progress.done(name, table.part.count, "rows")
    progress.done("journal", journal.count, "records of the ledger that were on the disk")
    pepper = None
    if settings.access.pepper is None and settings.access.pepper_path.exists():
        writer = PartWriter(folder / "pepper.gz")
        writer.write(settings.access.pepper_path.read_bytes())
        writer.count = 1
        pepper = writer.close()
    return DatabasePart(schema, "sqlite" if base.is_sqlite else "postgresql", tables, journal, pepper)


async def _restore(folder: Path, wanted: tuple[str, ...], force: bool, check: bool) -> int:
    layout, progress = Layout.load(), Progress(sys.stderr)
    manifest = await asyncio.to_thread(read_manifest, folder)
    held = manifest.database if DATABASE in wanted else None
    entries = manifest.cache if CACHE in wanted else None
    if held is None and entries is None:
        raise CommandError(f"{folder} has nothing of that kind")
    base = Database(layout.inference.database)
    try:
        if not force:
            await _refuse_the_full(layout, base, held, entries, folder)
        if check:
            print(f"{folder}: whole, made {manifest.made} by Millrace {manifest.millrace}; it can be restored here")
            return 0
        if held is not None:
            await _load_database(layout.inference, base, folder, held, progress)
        if entries is not None:
            expired_count = await cache.load_entries(layout.cache, folder, entries, progress.told)
            progress.done("cache", entries.entries.count - expired_count, f"entries ({expired_count:,} had expired)")
    finally:
        await base.close()
    print(f"restored what was there at {manifest.made}; start the services")
    return 0


async def _refuse_the_full(
    layout: Layout, base: Database, held: DatabasePart | None, entries: CachePart | None, folder: Path
) -> None:
    """Stops a restore that would overwrite something."""
    full = []
    if held is not None:
        if not await database.is_empty(base) or not ledger.is_empty(layout.inference.ledger.folder):
            full.append("the database")
        if _pepper_differs(layout.inference, folder, held.pepper):
            full.append(str(layout.inference.access.pepper_path))
    if entries is not None and not await cache.is_empty(layout.cache):
        full.append("the cache")
    if full:
        raise CommandError(f"{' and '.join(full)} would be overwritten: nothing was restored; --force does it")


async def _load_database(
    settings: InferenceSettings, base: Database, folder: Path, held: DatabasePart, progress: Progress
) -> None:
    if ledger.is_running(settings.ledger.folder):
        raise CommandError(f"inference is running (it holds {settings.ledger.folder}): stop it, then restore")
    await database.load_tables(base, folder, held, progress.told)
    for name, table in held.tables.items():
        progress.done(name, table.part.count, "rows")
    ledger.load_journal(settings.ledger.folder, folder, held.journal)
    progress.done("journal", held.journal.count, "records of the ledger, which the next start puts into the database")
    if _pepper_differs(settings, folder, held.pepper) or (held.pepper and not settings.access.pepper_path.exists()):
        settings.access.pepper_path.unlink(missing_ok=True)
        settings.access.pepper_path.parent.mkdir(parents=True, exist_ok=True)
        write_private(settings.access.pepper_path, _pepper(folder, held.pepper))


def _pepper_differs(settings: InferenceSettings, folder: Path, part: Part | None) -> bool:
    """Whether there is a pepper already under which the backup's keys would not open anything."""
    path = settings.access.pepper_path
    if part is None or settings.access.pepper is not None or not path.exists():
        return False
    return path.read_text().strip() != _pepper(folder, part)


def _pepper(folder: Path, part: Part | None) -> str:
    assert part is not None
    with reading(folder, part) as file:
        return file.read().decode().strip()
