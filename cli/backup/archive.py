"""A backup: a folder of compressed parts, and a manifest that says what they are.

The manifest is written last and the folder renamed into its place, so that a backup is whole or not there. Its digests
are checked before anything is restored. Nobody but its owner may read it: it holds secrets and people's texts.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from cli.errors import CommandError

# Raise it when older releases could not read what is written.
FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CHUNK_BYTES: Final = 1 << 20


class Part(msgspec.Struct, frozen=True):
    """One file of a backup: rows, entries or records, and the SHA-256 of the file in hex."""

    file: str
    count: int
    sha256: str


class TablePart(msgspec.Struct, frozen=True):
    """A table: a JSON array per row, in the order of the columns; bytes are base64."""

    columns: list[str]
    part: Part


class DatabasePart(msgspec.Struct, frozen=True):
    """The database: its schema's version, its tables, and the rows that waited for it on the disk."""

    schema: str
    kind: str
    tables: dict[str, TablePart]
    journal: Part
    pepper: Part | None


class CachePart(msgspec.Struct, frozen=True):
    """The cache's entries. Keyed: their addresses are digests under MILLRACE_CACHE_KEY_SECRET."""

    store: str
    is_keyed: bool
    entries: Part


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds; `made` is ISO 8601 in UTC."""

    format: int
    millrace: str
    made: str
    database: DatabasePart | None = None
    cache: CachePart | None = None

    @property
    def parts(self) -> Iterator[Part]:
        """Every file but the manifest."""
        if self.database is not None:
            yield from (table.part for table in self.database.tables.values())
            yield self.database.journal
            if self.database.pepper is not None:
                yield self.database.pepper
        if self.cache is not None:
            yield self.cache.entries


class PartWriter:
    """Writes one part; `count` is for its writer to raise."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Without a name and a time in its header, equal contents are equal files.
        self._raw = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._file = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._raw, mtime=0)
        self.count = 0

    def write(self, data: bytes) -> None:
        """Appends some bytes."""
        self._file.write(data)

    def close(self) -> Part:
        """Brings the part to the disk."""
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        return Part(self._path.name, self.count, _sha256(self._path))


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yields the folder to write to, which takes its name at the end; it is removed where the block raises.

    Raises:
        CommandError: There is one of that name already, or it cannot be made.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    if folder.exists():
        raise CommandError(f"{folder} is there already: name a new folder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
    except OSError as error:
        raise CommandError(f"{folder} cannot be made: {error.strerror}") from error
    try:
        yield unfinished
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest, which makes the folder a backup."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    with os.fdopen(os.open(folder / MANIFEST, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest and checks every part against it.

    Raises:
        CommandError: This is no backup, one of a newer release, or one that is damaged.
    """
    try:
        data = (folder / MANIFEST).read_bytes()
        found = msgspec.json.decode(data).get("format")
        if found != FORMAT:
            raise CommandError(f"{folder} has format {found}; this release reads {FORMAT}: use the one that made it")
        manifest = msgspec.json.decode(data, type=Manifest)
        damaged = [part.file for part in manifest.parts if _sha256(folder / Path(part.file).name) != part.sha256]
    except FileNotFoundError as error:
        raise CommandError(f"{folder} is no whole backup: {Path(error.filename).name} is missing") from error
    except (msgspec.MsgspecError, AttributeError, OSError) as error:
        raise CommandError(f"{folder} cannot be read: {error}") from error
    if damaged:
        raise CommandError(f"{folder} is damaged ({', '.join(damaged)}): nothing was restored")
    return manifest


@contextmanager
def reading(folder: Path, part: Part) -> Iterator[BinaryIO]:
    """Opens a part of a backup that was checked."""
    with gzip.open(folder / Path(part.file).name, "rb") as file:
        yield file  # type: ignore[misc]  # a GzipFile reads like any other file


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
