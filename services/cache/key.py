"""What an answer is kept under, and where that is in a store.

A key becomes an address of digests, so that namespaces are apart by construction: no store ever sees, compares or
lists a tenant's name. With a secret the digests are keyed, so that nobody who can read the store can try names or
prompts against it. This module never touches a store.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Namespace:
    """Who may share an entry: a tenant, or one of its users."""

    tenant: str
    user: str | None = None


class Address(msgspec.Struct, frozen=True, array_like=True):
    """Where an entry is: three digests of 32 bytes, each covering the one before."""

    tenant: bytes
    namespace: bytes
    entry: bytes


@dataclass(frozen=True, slots=True)
class EntryKey:
    """What an answer is kept under; two requests share an answer exactly when their keys are equal."""

    namespace: Namespace
    model: str
    request_digest: bytes
    canonical_version: int
    context_digest: bytes = b""


class KeySpace:
    """Turns keys into addresses; key spaces with different secrets share nothing.

    Args:
        secret: Keys the digests (HMAC-SHA-256); empty leaves them plain (SHA-256).
    """

    def __init__(self, secret: bytes = b"") -> None:
        self._secret = secret

    def address(self, key: EntryKey) -> Address:
        """Digests a key, field by field."""
        tenant, namespace = self.tenant(key.namespace.tenant), self.namespace(key.namespace)
        version = str(key.canonical_version)
        entry = self._digest("entry", namespace, key.model, version, key.context_digest, key.request_digest)
        return Address(tenant, namespace, entry)

    def tenant(self, name: str) -> bytes:
        """Digests a tenant's name."""
        return self._digest("tenant", name)

    def namespace(self, namespace: Namespace) -> bytes:
        """Digests a namespace; a tenant without a user and a user with an empty name are apart."""
        return self._digest("namespace", namespace.tenant, namespace.user)

    def _digest(self, *fields: str | bytes | None) -> bytes:
        text = b"".join(map(_framed, fields))
        return hmac.digest(self._secret, text, "sha256") if self._secret else hashlib.sha256(text).digest()


def _framed(field: str | bytes | None) -> bytes:
    """A field marked as there or not, and behind its length: none can run into another."""
    if field is None:
        return b"\x00"
    value = field.encode() if isinstance(field, str) else field
    return b"\x01" + struct.pack(">Q", len(value)) + value
