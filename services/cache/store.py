"""What the cache asks of a place that keeps entries.

Two stores fulfil it (SQLite and Redis), and one set of contract tests runs on both. A store decides nothing about
freshness: it keeps an entry until `gone_ms` and forgets it then.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from kit.errors import Unavailable
from services.cache.changes import Change
from services.cache.entry import Entry
from services.cache.key import Address
from services.cache.worth import Evictions

# Milliseconds since the epoch. Instants are kept in stores, so they must mean the same to the next process.
Clock = Callable[[], int]


class StoreUnavailable(Unavailable):
    """The store did not answer in time, or is known not to."""

    def __init__(self, message: str, retry_after_ms: int = 1000) -> None:
        super().__init__("STORE_UNAVAILABLE", message, retry_after_ms=retry_after_ms)


@dataclass(frozen=True, slots=True)
class Selector:
    """Which entries to delete: all of a tenant, narrowed by each field that is set.

    `entry` is an entry's digest and nonce, and needs `namespace`; another version of the entry is not meant.
    """

    tenant: bytes
    namespace: bytes | None = None
    entry: tuple[bytes, str] | None = None
    tag: str | None = None

    def means(self, entry: Entry) -> bool:
        """Whether an entry is among them."""
        address = entry.address
        return (
            address.tenant == self.tenant
            and self.namespace in (None, address.namespace)
            and self.entry in (None, (address.entry, entry.nonce))
            and (self.tag is None or self.tag in entry.tags)
        )


@dataclass(frozen=True, slots=True)
class Size:
    """What a store holds."""

    entry_count: int
    size_bytes: int


class EntryStore(Protocol):
    """A place that keeps entries. Every method but `close` may raise StoreUnavailable."""

    @property
    def name(self) -> str:
        """The store's name in figures: `embedded` or `redis`."""

    @property
    def available(self) -> bool:
        """Whether the store answered when it was last asked."""

    @property
    def evictions(self) -> Evictions:
        """Entries that this process let go since its start, by reason."""

    async def open(self) -> None:
        """Makes the store ready."""

    async def get(self, address: Address) -> Entry | None:
        """Finds the entry at an address, stale or not and without its embedding, within the lookup's deadline."""

    async def put(self, entry: Entry) -> None:
        """Keeps an entry in place of any at its address; when it returns, the entry survives the process."""

    async def delete(self, selector: Selector, *, dry_run: bool = False) -> int:
        """Removes entries and counts them; once it returns, none of them is found."""

    async def size(self, tenant: bytes | None) -> Size:
        """Counts what is kept for one tenant, or for all: entries that are not gone, and their bytes as written."""

    def outlines(self) -> AsyncGenerator[Entry, None]:
        """Yields every entry that has an embedding and was there throughout, without its chunks."""

    def changes(self) -> AsyncGenerator[Change, None]:
        """Yields `Behind`, then what is stored and removed, by whichever process, until the store is closed.

        Never raises StoreUnavailable: it waits until the store is back, and then says whether something was missed.
        """

    async def close(self) -> None:
        """Lets go of files and connections."""
