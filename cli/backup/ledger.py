"""Rows of the ledger that waited on the disk for the database when the backup was made.

They are copied before the database is read: one that is shipped in between is in both, and the database passes over
what it has. Restored, they lie where a process has left them that died, and the next start ships them.
"""

from __future__ import annotations

import os
import shutil
import zlib
from itertools import chain
from pathlib import Path
from typing import Final

from cli.backup.archive import Part, PartWriter, reading
from cli.errors import CommandError
from services.inference.ledger.journal import HEAD, SUFFIX, hold, records_of

RESTORED: Final = "restored"


def dump_journal(ledger: Path, folder: Path) -> Part:
    """Copies every whole record that any process has on this machine's disk."""
    writer = PartWriter(folder / "journal.gz")
    for process in _processes(ledger):
        while True:
            try:
                for record in chain.from_iterable(records_of(process)):
                    writer.write(_frame(record))
                    writer.count += 1
                break
            except FileNotFoundError:
                continue  # a segment was shipped and removed meanwhile; a record that is here twice does no harm
    return writer.close()


def is_running(ledger: Path) -> bool:
    """Whether a process of inference has its rows here."""
    for process in _processes(ledger):
        try:
            lock = hold(process)
        except FileNotFoundError:  # shipped and gone meanwhile
            continue
        if lock is None:
            return True
        os.close(lock)
    return False


def is_empty(ledger: Path) -> bool:
    """Whether no rows wait here."""
    return not any(records for process in _processes(ledger) for records in records_of(process))


def load_journal(ledger: Path, folder: Path, part: Part) -> None:
    """Puts a backup's waiting rows in place of those that wait here.

    Raises:
        CommandError: A process has rows here: it must be stopped.
    """
    if is_running(ledger):
        raise CommandError(f"inference is running (it holds {ledger}): stop it, then restore")
    for process in _processes(ledger):
        shutil.rmtree(process)
    if not part.count:
        return
    place = ledger / RESTORED
    place.mkdir(parents=True, mode=0o700)
    with reading(folder, part) as file:
        segment = os.open(place / f"{1:08}{SUFFIX}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(segment, "wb") as to:
            shutil.copyfileobj(file, to)


def _processes(ledger: Path) -> list[Path]:
    if not ledger.is_dir():
        return []
    return sorted(one for one in ledger.iterdir() if one.is_dir() and not one.name.startswith("."))


def _frame(record: bytes) -> bytes:
    """A record as it stands in a segment."""
    return HEAD.pack(len(record), zlib.crc32(record)) + record
