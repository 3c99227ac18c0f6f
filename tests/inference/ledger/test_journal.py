"""The journal: what was appended is there, whatever becomes of the process, until nobody needs it any more."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from services.inference.ledger import journal as module
from services.inference.ledger.journal import Journal, left_behind, records_of

SMALL = 4096


def make(folder: Path, name: str = "one", bytes_max: int = 10 * SMALL) -> Journal:
    return Journal(folder, name, bytes_max, SMALL)


def drain(journal: Journal, size: int = 1 << 20) -> list[bytes]:
    """Reads everything that waits, as if it were shipped."""
    read: list[bytes] = []
    while (found := journal.waiting(size)) is not None:
        segment, end, records = found
        read += records
        journal.shipped(segment, end)
    return read


@pytest.mark.parametrize("size", [64, 1 << 20], ids=["in pieces", "at once"])
def test_records_come_back_in_order(tmp_path: Path, size: int) -> None:
    """Over as many segments as it takes, and one that is larger than a segment has one of its own."""
    journal = make(tmp_path)
    records = [bytes([number % 256]) * (number * 7 % 900 + 1) for number in range(50)]
    records.insert(20, b"large" * SMALL)
    for record in records:
        journal.append(record)

    assert drain(journal, size) == records
    assert journal.waiting_bytes == 0
    assert len(journal.segments) == 1
    assert len(list(journal.folder.glob("*.segment"))) == 1


def test_a_segment_with_an_open_beginning_is_kept(tmp_path: Path) -> None:
    """Who dies meanwhile must leave the beginning behind."""
    journal = make(tmp_path)
    segment = journal.append(b"beginning")
    segment.open_count += 1
    for _ in range(10):
        journal.append(bytes(1000))
    drain(journal)
    assert segment in journal.segments

    segment.open_count -= 1
    journal.shipped(journal.segments[-1], journal.segments[-1].end)
    assert segment not in journal.segments


def test_what_a_dead_process_left_is_found(tmp_path: Path) -> None:
    """All but the record over which it died; the folder of one that lives is nobody else's."""
    dead, alive = make(tmp_path, "dead"), make(tmp_path, "alive")
    dead.append(b"first")
    segment = dead.append(b"second")
    os.pwrite(segment.file, module.HEAD.pack(100, 0) + b"torn", segment.end)
    alive.append(b"mine")
    assert list(left_behind(tmp_path, alive.folder)) == []

    assert dead._lock is not None
    os.close(dead._lock)  # as the kernel does when a process dies
    ((folder, lock),) = left_behind(tmp_path, alive.folder)

    assert [record for records in records_of(folder) for record in records] == [b"first", b"second"]
    assert list(left_behind(tmp_path, alive.folder)) == []  # whoever came first has it
    os.close(lock)


def test_it_is_full_before_it_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a segment is left for work in hand when the disk has no room for another."""
    journal = make(tmp_path)

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(module, "_allocate", no_room)
    assert not journal.is_full
    journal.append(bytes(SMALL // 2))

    assert journal.is_full
    journal.append(bytes(SMALL // 4))
    with pytest.raises(OSError, match="no space"):
        journal.append(bytes(SMALL))
    monkeypatch.undo()
    assert not journal.is_full
    assert len(drain(journal)) == 2


def test_it_is_full_when_too_much_waits(tmp_path: Path) -> None:
    """And no longer, once that is shipped."""
    journal = make(tmp_path, bytes_max=3 * SMALL)
    while not journal.is_full:
        journal.append(bytes(1000))

    assert journal.waiting_bytes > 2 * SMALL
    drain(journal)
    assert not journal.is_full


def test_nothing_stays_of_a_process_that_has_shipped_all(tmp_path: Path) -> None:
    """What it has not shipped stays."""
    done, undone = make(tmp_path, "done"), make(tmp_path, "undone")
    done.append(b"record")
    undone.append(b"record")
    drain(done)
    done.close()
    undone.close()

    assert [path.name for path in tmp_path.iterdir()] == ["undone"]


@pytest.mark.parametrize("call", ["fdatasync", "fsync"])
def test_sync_reaches_the_disk_once_for_all(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only segments that were written since; on macOS by the second call, which is all that it has."""
    synced: list[int] = []
    monkeypatch.delattr(os, "fdatasync")
    monkeypatch.setattr(os, call, synced.append, raising=False)
    journal = make(tmp_path)
    segment = journal.append(b"one")
    journal.append(b"two")
    journal.sync()
    journal.sync()

    assert synced == [segment.file]
