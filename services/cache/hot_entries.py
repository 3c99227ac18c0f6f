"""The entries asked for last, in memory.

They spare a lookup the way to the file. They are read by one thread and forgotten by another, so every step is under a
lock. This module decides nothing about freshness.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from services.cache.entry import Entry
from services.cache.key import Address
from services.cache.uses import UseCounts


class HotEntries:
    """The most recently used entries, bounded by their bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._size_bytes = 0
        self._entries: OrderedDict[bytes, tuple[Entry, int]] = OrderedDict()
        self._uses = UseCounts()
        self._epoch = 0
        self._lock = threading.Lock()

    @property
    def epoch(self) -> int:
        """Changes whenever something is forgotten; to be read before the entry that is then put."""
        return self._epoch

    def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, and remembers that it was used."""
        with self._lock:
            found = self._entries.get(address.entry)
            if found is None or found[0].address != address:
                return None
            self._entries.move_to_end(address.entry)
            self._uses.note(address.entry)
            return found[0]

    def put(self, entry: Entry, size_bytes: int, epoch: int) -> None:
        """Adds an entry that was used and read at an epoch, unless something was forgotten since: it might be that."""
        with self._lock:
            self._uses.note(entry.address.entry)
            if epoch != self._epoch or size_bytes > self._bytes_max:
                return
            self._drop(entry.address.entry)
            self._entries[entry.address.entry] = (entry, size_bytes)
            self._size_bytes += size_bytes
            while self._size_bytes > self._bytes_max:
                self._drop(next(iter(self._entries)))

    def forget(self, digests: Iterable[bytes]) -> None:
        """Forgets entries, and turns away those being read meanwhile."""
        with self._lock:
            self._epoch += 1
            for digest in digests:
                self._drop(digest)

    def take_uses(self, count: int) -> list[tuple[bytes, int]]:
        """Hands over how often up to `count` entries were used since they were last handed over."""
        with self._lock:
            return self._uses.take(count)

    def _drop(self, digest: bytes) -> None:
        dropped = self._entries.pop(digest, None)
        if dropped is not None:
            self._size_bytes -= dropped[1]
