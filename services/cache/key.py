"""What an answer is kept under, and where that is in a store.

A key becomes an address of digests, so that namespaces are apart by construction: no store ever sees, compares or
lists a tenant's name. This module never touches a store.
"""

import hashlib
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

    def address(self) -> Address:
        """Digests the key, field by field."""
        tenant, namespace = tenant_digest(self.namespace.tenant), namespace_digest(self.namespace)
        version = str(self.canonical_version)
        entry = _digest("entry", namespace, self.model, version, self.context_digest, self.request_digest)
        return Address(tenant, namespace, entry)


def tenant_digest(tenant: str) -> bytes:
    """Digests a tenant's name."""
    return _digest("tenant", tenant)


def namespace_digest(namespace: Namespace) -> bytes:
    """Digests a namespace; a tenant without a user and a user with an empty name are apart."""
    return _digest("namespace", namespace.tenant, namespace.user)


def _digest(purpose: str, *fields: str | bytes | None) -> bytes:
    """SHA-256 over fields, each marked as there or not and prefixed by its length: none can run into another."""
    hasher = hashlib.sha256()
    for field in (purpose, *fields):
        if field is None:
            hasher.update(b"\x00")
            continue
        value = field.encode() if isinstance(field, str) else field
        hasher.update(b"\x01" + struct.pack(">Q", len(value)))
        hasher.update(value)
    return hasher.digest()
