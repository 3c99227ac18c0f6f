import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from kit.errors import ConfigError
from services.cache.entry import Entry
from services.cache.key import Address
from services.cache.sqlite_store import FULL_RETRY_AFTER_MS
from services.cache.store import Selector, Size, StoreUnavailable
from tests.cache.conftest import ManualClock, address_of, make_entry, make_key, sqlite_store

ROOT = Path(__file__).resolve().parents[2]
KILLS = 5


async def test_entries_survive_a_restart(tmp_path: Path, clock: ManualClock):
    """A store that is opened again holds what was kept, tags and counts included."""
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    entry = make_entry(make_key(), clock, tags=("kb",))
    await store.put(entry)
    size = await store.size(None)
    await store.close()

    again = sqlite_store(tmp_path / "entries", clock)
    await again.open()
    try:
        assert await again.get(entry.address) == entry
        assert await again.size(None) == size
        assert await again.delete(Selector(entry.address.tenant, tag="kb")) == 1
    finally:
        await again.close()


# Puts entries as fast as it can, and prints each id once its put was acknowledged.
WRITER = """
import asyncio, sys
from pathlib import Path
from tests.cache.conftest import ManualClock, make_entry, make_key, sqlite_store

async def write(store, clock, worker, start):
    for number in range(start, start + 1_000_000):
        key = make_key(request=b"%d.%d" % (worker, number))
        await store.put(make_entry(key, clock, chunks=(b"%d.%d;" % (worker, number) * 200,) * 3))
        print(worker, number, flush=True)

async def main():
    clock = ManualClock()
    store = sqlite_store(Path(sys.argv[1]), clock, entries_max=1_000_000)
    await store.open()
    await asyncio.gather(*(write(store, clock, worker, int(sys.argv[2])) for worker in range(4)))

asyncio.run(main())
"""


async def test_no_acknowledged_entry_is_lost_to_a_kill(tmp_path: Path, clock: ManualClock):
    """A process that is killed while it writes loses nothing that it acknowledged, and leaves no torn entry."""
    path, acknowledged = tmp_path / "entries", set[tuple[int, int]]()
    for kill in range(KILLS):
        command = [sys.executable, "-c", WRITER, str(path), str(kill * 1_000_000)]
        writer = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        lines = [await writer.stdout.readline() for _ in range(100 + 37 * kill)]
        writer.kill()
        # What reached the pipe was acknowledged too; a line that was cut off by the kill was not wholly said.
        lines += [line for line in (await writer.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")]
        for worker, number in (line.split() for line in lines):
            acknowledged.add((int(worker), int(number)))
        await writer.wait()

    store = sqlite_store(path, clock, entries_max=1_000_000)
    await store.open()
    try:
        for worker, number in acknowledged:
            name = b"%d.%d" % (worker, number)
            entry = await store.get(address_of(make_key(request=name)))
            assert entry is not None
            assert entry.chunks == ((name + b";") * 200,) * 3
        assert (await store.size(None)).entry_count >= len(acknowledged)
    finally:
        await store.close()


async def test_used_entries_stay(tmp_path: Path, clock: ManualClock):
    """When the store is full, the entry used longest ago leaves, even where hits came from memory."""
    store = sqlite_store(tmp_path / "entries", clock, entries_max=3)
    await store.open()
    try:
        entries: list[Entry] = []
        for number in range(4):
            clock.now_ms += 1
            if entries:
                assert await store.get(entries[0].address) == entries[0]
            entries.append(make_entry(make_key(request=bytes([number])), clock))
            await store.put(entries[-1])

        found = [await store.get(entry.address) for entry in entries]
        assert found == [entries[0], None, entries[2], entries[3]]
    finally:
        await store.close()


async def test_memory_is_not_asked_for_another_namespace(tmp_path: Path, clock: ManualClock):
    """An address that agrees in the entry's digest only finds nothing, in memory or in the file."""
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    try:
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        forged = Address(address_of(make_key("other")).tenant, entry.address.namespace, entry.address.entry)

        assert await store.get(forged) is None
    finally:
        await store.close()


async def test_file_belongs_to_one_process(tmp_path: Path, clock: ManualClock):
    """A file that is in use is refused, and free again once it is closed."""
    first, second = (sqlite_store(tmp_path / "entries", clock) for _ in range(2))
    await first.open()
    with pytest.raises(ConfigError, match="in use by another process"):
        await second.open()
    await first.close()

    await second.open()
    await second.close()


@pytest.mark.parametrize("foreign", ["database", "text"])
async def test_foreign_file_is_left_alone(tmp_path: Path, clock: ManualClock, foreign: str):
    """A file that another program made is refused and not changed."""
    path = tmp_path / "theirs"
    if foreign == "database":
        with sqlite3.connect(path) as theirs:
            theirs.execute("CREATE TABLE entries (precious TEXT)")
        theirs.close()
    else:
        path.write_text("precious\n" * 1000)
    before = path.read_bytes()

    with pytest.raises(ConfigError, match=r"MILLRACE_CACHE_PATH=.* cannot be used"):
        await sqlite_store(path, clock).open()

    assert path.read_bytes() == before


@pytest.mark.parametrize("path", ["", "file/below"])
async def test_unusable_path_is_named(tmp_path: Path, clock: ManualClock, path: str):
    """A path that is a folder, or below a file, stops the start and names the setting."""
    (tmp_path / "file").touch()
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"MILLRACE_CACHE_PATH=.* cannot be used"):
            await sqlite_store(tmp_path / path, clock).open()


async def test_file_of_another_version_is_emptied(tmp_path: Path, clock: ManualClock):
    """A file with tables of another version is used and starts empty: it is only a cache."""
    path = tmp_path / "entries"
    store = sqlite_store(path, clock)
    await store.open()
    await store.put(make_entry(make_key(), clock))
    await store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    await store.open()
    try:
        assert await store.size(None) == Size(0, 0)
        entry = make_entry(make_key(), clock)
        await store.put(entry)
        assert await store.get(entry.address) == entry
    finally:
        await store.close()


async def test_file_is_for_its_owner_only(tmp_path: Path, clock: ManualClock):
    """Answers may be private: nobody else on the machine can read the file."""
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    await store.put(make_entry(make_key(), clock))

    modes = {file.name: file.stat().st_mode & 0o077 for file in os.scandir(tmp_path)}
    await store.close()
    assert modes
    assert not any(modes.values())


async def test_failed_write_loses_its_batch_only(tmp_path: Path, clock: ManualClock):
    """A disk that is full fails the write and what was counted for it; the store goes on."""
    path = tmp_path / "entries"
    store = sqlite_store(path, clock)
    await store.open()
    try:
        kept = make_entry(make_key(request=b"1"), clock)
        await store.put(kept)
        size = await store.size(None)
        await store._ask(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchone())
        failed = make_entry(make_key(request=b"2"), clock, chunks=(os.urandom(1 << 20),))
        with pytest.raises(StoreUnavailable, match="full"):
            await store.put(failed)

        assert await store.size(None) == size
        assert await store.get(failed.address) is None
        assert await store.get(kept.address) == kept
        small = make_entry(make_key(request=b"3"), clock)
        await store.put(small)
        assert await store.get(small.address) == small
    finally:
        await store.close()


async def test_a_full_disk_is_told_to_the_operator_once(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """The log names the file, and says when entries are kept again; callers are told what it is and what to do."""
    store = sqlite_store(tmp_path / "entries", clock)
    await store.open()
    try:
        with caplog.at_level(logging.INFO, "services.cache.sqlite_store"):
            await store._ask(lambda connection: connection.execute("PRAGMA max_page_count = 40").fetchone())
            large = make_entry(make_key(request=b"1"), clock, chunks=(os.urandom(1 << 20),))
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=r"disk of the cache is full.*Make room") as caught:
                    await store.put(large)
            await store._ask(lambda connection: connection.execute("PRAGMA max_page_count = 10000").fetchone())
            await store.put(large)
    finally:
        await store.close()

    assert caught.value.retry_after_ms == FULL_RETRY_AFTER_MS
    assert [record.message for record in caplog.records] == [
        "the disk of the cache is full: nothing new is kept",
        "the cache keeps entries again",
    ]
    assert caplog.records[0].path == str(tmp_path / "entries")  # type: ignore[attr-defined]


async def test_closed_store_is_unavailable(tmp_path: Path, clock: ManualClock):
    """A store that is not open says so instead of waiting."""
    store = sqlite_store(tmp_path / "entries", clock)

    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.get(address_of(make_key())), 1)
