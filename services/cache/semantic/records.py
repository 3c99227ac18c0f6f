"""What is known of the entries in the index: their texts, which of them mean the same, and where reports came in.

An entry's place in the index is its partition: namespace, model, context, format and vector space, digested together,
so that nothing is ever compared across any of them. The answers are not here, but in the store.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from services.cache.entry import Entry
from services.cache.key import Address
from services.cache.semantic.encoding import from_bytes
from services.cache.semantic.features import Frequencies
from services.cache.semantic.index_partitions import Item
from services.cache.semantic.words import stems_of

PARTITION_BYTES: Final = 16


@dataclass(slots=True)
class Record:
    """One entry. Entries of one `meaning` are known to fit the same questions; `strikes` counts reports nearby.

    `number` tells which records are older.
    """

    address: Address
    nonce: str
    text: str
    meaning: str
    gone_ms: int
    home: Home
    number: int
    strikes: int = 0


@dataclass(eq=False, slots=True)
class Home:
    """A partition: its key and how often words stand in it."""

    key: bytes
    entry_count: int = 0
    frequencies: Frequencies = field(default_factory=Frequencies)


class Records:
    """All records, by the digest of their entry."""

    def __init__(self, version: str, dimension: int) -> None:
        self._version, self._dimension = version, dimension
        self._records: dict[bytes, Record] = {}
        self._homes: dict[bytes, Home] = {}
        self.next_number = 0

    def __len__(self) -> int:
        return len(self._records)

    def get(self, entry: bytes) -> Record | None:
        """The record of an entry."""
        return self._records.get(entry)

    def home(self, key: bytes) -> Home | None:
        """The partition of that key, if it holds an entry."""
        return self._homes.get(key)

    def add(self, entry: Entry) -> Item | None:
        """Records an entry, in place of any at its address.

        Returns:
            What to put into the index; None for an entry of another vector space, which is as good as removed.
        """
        self.remove([(entry.address, None)])
        vector = from_bytes(entry.embedding, self._dimension) if entry.embedding_version == self._version else None
        if vector is None or not entry.compare_text:
            return None
        key = partition(
            entry.address.namespace, entry.model, entry.canonical_version, entry.context_digest, entry.schema_tag
        )
        home = self._homes.setdefault(key, Home(key))
        home.entry_count += 1
        home.frequencies.add(stems_of(entry.compare_text))
        meaning = entry.meaning or entry.nonce
        self._records[entry.address.entry] = Record(
            entry.address, entry.nonce, entry.compare_text, meaning, entry.gone_ms, home, self.next_number
        )
        self.next_number += 1
        return Item(home.key, entry.address.entry, vector)

    def remove(self, versions: Iterable[tuple[Address, str | None]]) -> list[bytes]:
        """Forgets versions of entries, None for whichever there is; returns what to take out of the index."""
        removed = []
        for address, nonce in versions:
            record = self._records.get(address.entry)
            if record is None or nonce not in (None, record.nonce):
                continue
            del self._records[address.entry]
            removed.append(address.entry)
            home = record.home
            home.entry_count -= 1
            home.frequencies.remove(stems_of(record.text))
            if not home.entry_count:
                del self._homes[home.key]
        return removed

    def pages(self, count: int) -> Iterator[list[Record]]:
        """Yields all records that are there now and still are when their turn comes, so many at a time."""
        entries = list(self._records)
        for begin in range(0, len(entries), count):
            page = (self._records.get(entry) for entry in entries[begin : begin + count])
            yield [record for record in page if record is not None]


def partition(namespace: bytes, model: str, canonical_version: int, context: bytes, schema_tag: str) -> bytes:
    """Digests all that must be equal for two questions to be compared."""
    digest = hashlib.blake2b(digest_size=PARTITION_BYTES)
    for part in (namespace, model.encode(), str(canonical_version).encode(), context, schema_tag.encode()):
        digest.update(struct.pack(">I", len(part)))
        digest.update(part)
    return digest.digest()
