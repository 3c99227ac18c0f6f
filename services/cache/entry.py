"""A stored answer, and its form in a store.

The bytes of an entry hold its own address and a checksum: a store that hands out the wrong bytes, or half of them, is
caught here, not by a user. This module never looks inside the chunks.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from services.cache.key import Address, EntryKey

# First byte of every encoded entry. Raise it when the shape of `Entry` changes: older entries are then misses.
FORMAT: Final = b"\x02"
# What precedes an entry's fields: the format, and the CRC-32 of the fields.
HEADER: Final = struct.Struct(">cI")
# Beginning of an encoded entry by which it is told from another version of it.
MARK_BYTES: Final = HEADER.size


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
    """A stored answer. Instants are milliseconds since the epoch.

    `compare_text` is the text that it answers, and `embedding` that text's vector in the space that `embedding_version`
    names; both are empty where the entry takes no part in semantic lookups. `meaning` is shared by entries that were
    found to say the same; empty, it is one of its own.
    """

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
    embedding: bytes = b""
    embedding_version: str = ""
    canonical_version: int = 0
    meaning: str = ""

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
    """Writes what a lookup needs of an entry: all but the embedding."""
    return _seal(msgspec.structs.replace(entry, embedding=b"") if entry.embedding else entry)


def decode(data: bytes, address: Address) -> Entry | None:
    """Reads an entry; None if the bytes are of another format, damaged, or of another address."""
    entry = _open(data)
    return entry if entry is not None and entry.address == address else None


def outline_of(entry: Entry) -> Entry:
    """What a semantic index needs of an entry: all but the answer."""
    return msgspec.structs.replace(entry, chunks=(), savings=None)


def encode_outline(entry: Entry) -> bytes | None:
    """Writes an entry's outline; None where there is no embedding, for then no index needs it."""
    return _seal(outline_of(entry)) if entry.embedding else None


def decode_outline(data: bytes) -> Entry | None:
    """Reads an outline; None if the bytes are of another format or damaged."""
    return _open(data)


def _seal(entry: Entry) -> bytes:
    fields = _ENCODER.encode(entry)
    return HEADER.pack(FORMAT, zlib.crc32(fields)) + fields


def _open(data: bytes) -> Entry | None:
    if len(data) < HEADER.size:
        return None
    fields = memoryview(data)[HEADER.size :]
    try:
        if HEADER.unpack_from(data) != (FORMAT, zlib.crc32(fields)):
            return None
        return _DECODER.decode(fields)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Entry)
