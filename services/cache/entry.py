"""A stored answer, and its form in a store.

The bytes of an entry hold its own address: a store that hands out the wrong bytes is caught here, not by a user. This
module never looks inside the chunks.
"""

from dataclasses import dataclass

import msgspec

from services.cache.key import Address, EntryKey

# First byte of every encoded entry. Raise it when the shape of `Entry` changes: older entries are then misses.
FORMAT = b"\x01"


class Savings(msgspec.Struct, frozen=True, array_like=True):
    """What serving an answer from the cache saves; None where its producer did not know."""

    prompt_token_count: int = 0
    completion_token_count: int = 0
    cost_micro_usd: int | None = None
    generation_ms: int | None = None


@dataclass(frozen=True, slots=True)
class EntryDraft:
    """What is said of an answer when it is stored; None takes the service's setting."""

    key: EntryKey
    schema_tag: str
    compare_text: str | None = None
    ttl_ms: int | None = None
    stale_for_ms: int | None = None
    tags: tuple[str, ...] = ()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """A stored answer. Instants are milliseconds since the epoch."""

    address: Address
    nonce: str
    schema_tag: str
    model: str
    chunks: tuple[bytes, ...]
    created_ms: int
    expires_ms: int
    gone_ms: int
    tags: tuple[str, ...] = ()
    savings: Savings | None = None
    compare_text: str | None = None
    context_digest: bytes = b""

    @property
    def entry_id(self) -> str:
        """Names this version of the entry: where it is, and which of those stored there."""
        return f"{self.address.entry.hex()}.{self.nonce}"


def parse_entry_id(entry_id: str) -> tuple[bytes, str] | None:
    """Splits an entry id into the entry's digest and nonce; None if it cannot be one."""
    digest, _, nonce = entry_id.partition(".")
    try:
        return (bytes.fromhex(digest), nonce) if len(digest) == 64 and nonce else None
    except ValueError:
        return None


def encode(entry: Entry) -> bytes:
    """Writes an entry as bytes."""
    return FORMAT + _ENCODER.encode(entry)


def decode(data: bytes, address: Address) -> Entry | None:
    """Reads an entry; None if the bytes are of another format, damaged, or of another address."""
    if not data.startswith(FORMAT):
        return None
    try:
        entry = _DECODER.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return entry if entry.address == address else None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)
