"""The journal: records on this machine's disk until the database has them.

A folder per process, held by a lock for as long as the process lives, with segments in it that are filled one after
the other. A record is there as soon as `append` returns: the kernel has it, so that no kill of the process loses it;
`sync` has the disk have it. Space is taken a segment ahead: a full disk is known before there is work that could not
be recorded. It knows frames of bytes, never what they mean, and it never waits.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

SEGMENT_BYTES = 4 * 1024 * 1024  # some six thousand requests
HEAD = struct.Struct("<II")  # length and CRC-32 of a record
LOCK, SUFFIX = "lock", ".segment"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class Segment:
    """A file of records.

    Attributes:
        end: Bytes written.
        read: Bytes that the database has.
        open_count: Beginnings in it whose end is still to come; it is kept until there is none.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.end = self.read = self.open_count = 0
        self.is_dirty = False
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _allocate(self.file, size)
        except OSError:
            self.remove()
            raise

    def remove(self) -> None:
        """Closes and deletes the file."""
        os.close(self.file)
        self.path.unlink(missing_ok=True)


class Journal:
    """The journal of this process.

    Args:
        folder: Where every process has its own.
        name: This process's, unlike any other's.
        bytes_max: Most bytes that may wait.

    Raises:
        OSError: The folder cannot be used.
    """

    def __init__(self, folder: Path, name: str, bytes_max: int, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._bytes_max, self._segment_bytes = bytes_max, segment_bytes
        self._count = 0
        self.folder = folder / name
        made = folder / f".{name}"  # unseen by those who look for the dead, until the lock is held
        made.mkdir(parents=True, mode=0o700)
        self._lock = hold(made)
        made.rename(self.folder)
        self._spare: Segment | None = None
        self.segments = [self._make(segment_bytes)]

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the database does not have yet."""
        return sum(one.end - one.read for one in self.segments)

    @property
    def is_full(self) -> bool:
        """Whether no new work should be taken on."""
        return self.is_disk_full or self.is_behind

    @property
    def is_behind(self) -> bool:
        """Whether too much waits for the database."""
        return len(self.segments) * self._segment_bytes > self._bytes_max

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk has no room for the segment that is needed next."""
        last = self.segments[-1]
        if last.end > last.size // 2 and self._spare is None:
            try:
                self._spare = self._make(self._segment_bytes)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                return True
        return False

    def append(self, record: bytes) -> Segment:
        """Writes a record and returns where it is.

        Raises:
            OSError: The disk does not take it.
        """
        segment = self.segments[-1]
        size = HEAD.size + len(record)
        if segment.end + size > segment.size:
            segment = self._next(size)
        data = HEAD.pack(len(record), zlib.crc32(record)) + record
        if os.pwrite(segment.file, data, segment.end) != size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what is there of it fails its check
        segment.end += size
        segment.is_dirty = True
        return segment

    def sync(self) -> None:
        """Has the disk have what was appended; blocks, so call it in a thread."""
        for segment in tuple(self.segments):
            if segment.is_dirty:
                segment.is_dirty = False
                try:
                    _sync(segment.file)
                except OSError:
                    if segment in self.segments:  # else the database has it by now, and the file is gone
                        raise

    def waiting(self, size_max: int) -> tuple[Segment, int, list[bytes]] | None:
        """Some records that the database does not have, where they are and where they end there; None of none."""
        for segment in self.segments:
            if segment.read < segment.end:
                data = os.pread(segment.file, min(size_max, segment.end - segment.read), segment.read)
                found = list(_records(data))
                if not found:  # one that is larger than what was read
                    (length, _) = HEAD.unpack_from(data)
                    found = list(_records(os.pread(segment.file, HEAD.size + length, segment.read)))
                return segment, segment.read + sum(HEAD.size + len(one) for one in found), found
        return None

    def shipped(self, segment: Segment, read: int) -> None:
        """Notes that the database has a segment up to here, and forgets segments that nobody needs."""
        segment.read = read
        for one in self.segments[:-1]:
            if one.read == one.end and not one.open_count:
                self.segments.remove(one)
                one.remove()

    def close(self) -> None:
        """Lets go of the folder; deletes it where the database has all of it."""
        is_shipped = all(one.read == one.end for one in self.segments)
        for segment in (*self.segments, *([self._spare] if self._spare else [])):
            os.close(segment.file)
        if is_shipped:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:  # it was free: nobody else knew the folder
            os.close(self._lock)

    def _next(self, size: int) -> Segment:
        if self._spare is not None and size <= self._spare.size:
            segment, self._spare = self._spare, None
        else:
            segment = self._make(max(size, self._segment_bytes))
        self.segments.append(segment)
        return segment

    def _make(self, size: int) -> Segment:
        self._count += 1
        return Segment(self.folder / f"{self._count:08}{SUFFIX}", size)


def hold(folder: Path) -> int | None:
    """Takes the lock of a process's folder and returns its file; None where that process lives."""
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


def left_behind(folder: Path, own: Path) -> Iterator[tuple[Path, int]]:
    """Yields the folders of processes that have died, each with its lock, which the caller then holds."""
    for one in sorted(folder.iterdir()):
        if one.is_dir() and one != own and not one.name.startswith("."):
            try:
                lock = hold(one)
            except FileNotFoundError:  # another has dealt with it meanwhile
                continue
            if lock is not None:
                yield one, lock


def records_of(folder: Path) -> Iterator[list[bytes]]:
    """Yields what a process has left, a segment at a time; a record that it was killed over is not there."""
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        yield list(_records(path.read_bytes()))


def _records(data: bytes) -> Iterator[bytes]:
    """Yields whole records up to the first that is none."""
    at = 0
    while at + HEAD.size <= len(data):
        length, check = HEAD.unpack_from(data, at)
        record = data[at + HEAD.size : at + HEAD.size + length]
        if not length or len(record) < length or zlib.crc32(record) != check:
            return
        yield record
        at += HEAD.size + length


def _sync(file: int) -> None:
    getattr(os, "fdatasync", os.fsync)(file)  # macOS has the second only


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:  # macOS: room is not promised there
        os.ftruncate(file, size)
