"""The entries asked for last, in memory.

They spare a lookup the way to the store's thread. They are read by one thread and written by another, so every step is
under a lock. This module decides nothing about freshness.
"""

import threading
from collections import OrderedDict

from services.cache.entry import Entry
from services.cache.key import Address

# Uses remembered until the store asks for them. Beyond that some are forgotten, and eviction is a little less just.
TOUCHED_MAX = 4096


class HotEntries:
    """The most recently used entries, bounded by their bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = 0
        self._entries: OrderedDict[bytes, tuple[Entry, int]] = OrderedDict()
        self._touched: dict[bytes, None] = {}
        self._lock = threading.Lock()

    def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, and remembers that it was used."""
        with self._lock:
            found = self._entries.get(address.entry)
            if found is None or found[0].address != address:
                return None
            self._entries.move_to_end(address.entry)
            if len(self._touched) < TOUCHED_MAX:
                self._touched[address.entry] = None
            return found[0]

    def put(self, entry: Entry, size_bytes: int) -> None:
        """Adds an entry in place of any at its address; the least recently used leave."""
        with self._lock:
            self._drop(entry.address.entry)
            if size_bytes > self._bytes_max:
                return
            self._entries[entry.address.entry] = (entry, size_bytes)
            self._size_bytes += size_bytes
            while self._size_bytes > self._bytes_max:
                self._drop(next(iter(self._entries)))

    def remove(self, digest: bytes) -> None:
        """Forgets an entry."""
        with self._lock:
            self._drop(digest)

    def clear(self) -> None:
        """Forgets all entries."""
        with self._lock:
            self._entries.clear()
            self._size_bytes = 0

    def take_touched(self, count: int) -> list[bytes]:
        """Hands over up to `count` entries that were used since they were last handed over."""
        with self._lock:
            touched = list(self._touched)[:count]
            for digest in touched:
                del self._touched[digest]
            return touched

    def _drop(self, digest: bytes) -> None:
        dropped = self._entries.pop(digest, None)
        if dropped is not None:
            self._size_bytes -= dropped[1]
