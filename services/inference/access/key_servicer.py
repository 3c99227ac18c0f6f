"""KeyService: translate in, call, translate out. Only administrators come this far."""

from __future__ import annotations

from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from kit.errors import InvalidArgument
from kit.identity import DEFAULT_TENANT, Role
from millrace.inference.v1 import key_pb2, key_service_pb2_grpc
from millrace.inference.v1 import key_service_pb2 as pb
from services.inference.access import secret
from services.inference.access.key import Key, KeyDraft
from services.inference.access.key_store import KeyStore, after_of, page_token
from services.inference.access.keyring import Keyring

PAGE_SIZE, PAGE_SIZE_MAX = 20, 100
OVERLAP_S_MAX = 30 * 86_400
_ROLES: dict[int, Role] = {
    key_pb2.KEY_ROLE_UNSPECIFIED: "user",
    key_pb2.KEY_ROLE_ADMIN: "admin",
    key_pb2.KEY_ROLE_USER: "user",
    key_pb2.KEY_ROLE_GUEST: "guest",
    key_pb2.KEY_ROLE_SERVICE: "service",
}
_ROLE_NUMBERS = {role: number for number, role in _ROLES.items() if number}


class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Makes, lists, revokes and rotates keys.

    Args:
        store: Keeps them.
        keyring: Learns of every change before the answer leaves, so that this replica is never behind its own word.
    """

    def __init__(self, store: KeyStore, keyring: Keyring) -> None:
        self._store, self._keyring = store, keyring

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Any) -> pb.CreateKeyResponse:
        """Makes a key."""
        text = secret.new_secret()
        key = await self._store.create(_draft(request.key), secret.prefix(text), self._keyring.digest(text))
        await self._keyring.refresh()
        return pb.CreateKeyResponse(key=_wire(key), secret=text)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        """Lists keys, newest first."""
        size = page_size(request.page_size)
        found = await self._store.list(size + 1, after_of(request.page_token))
        more = page_token(found[size - 1]) if len(found) > size else ""
        return pb.ListKeysResponse(keys=[_wire(key) for key in found[:size]], next_page_token=more)

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Any) -> pb.RevokeKeyResponse:
        """Revokes a key."""
        key = await self._store.revoke(request.key_id)
        await self._keyring.refresh()
        return pb.RevokeKeyResponse(key=_wire(key))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Any) -> pb.RotateKeyResponse:
        """Gives a key a new secret."""
        overlap_s = request.overlap.ToTimedelta().total_seconds()
        if not 0 <= overlap_s <= OVERLAP_S_MAX:
            raise InvalidArgument("overlap", f"must be 0 to {OVERLAP_S_MAX} seconds")
        text = secret.new_secret()
        digest = self._keyring.digest(text)
        key = await self._store.rotate(request.key_id, secret.prefix(text), digest, int(overlap_s * 1000))
        await self._keyring.refresh()
        return pb.RotateKeyResponse(key=_wire(key), secret=text)


def page_size(asked: int) -> int:
    """Returns how many items a page has; raises InvalidArgument where that cannot be."""
    if not 0 <= asked <= PAGE_SIZE_MAX:
        raise InvalidArgument("page_size", f"must be 0 to {PAGE_SIZE_MAX}")
    return asked or PAGE_SIZE


def role_of(number: int, field: str) -> Role:
    """Returns a role by its number in the contract; raises InvalidArgument with the field where it has none."""
    if number not in _ROLES:
        raise InvalidArgument(field, "is no role")
    return _ROLES[number]


def role_number(role: Role) -> key_pb2.KeyRole:
    """Returns the contract's number of a role."""
    return _ROLE_NUMBERS[role]  # type: ignore[return-value]


def timestamp(time_ms: int | None) -> Timestamp | None:
    """Returns an instant on the wire; None stays absent."""
    if time_ms is None:
        return None
    made = Timestamp()
    made.FromMilliseconds(time_ms)
    return made


def _draft(key: key_pb2.Key) -> KeyDraft:
    return KeyDraft(
        key.name,
        key.tenant or DEFAULT_TENANT,
        key.principal,
        role_of(key.role, "key.role"),
        key.tier,
        tuple(key.models),
        tuple(key.endpoints),
        tuple(key.safety_profiles),
        key.expire_time.ToMilliseconds() if key.HasField("expire_time") else None,
    )


def _wire(key: Key) -> key_pb2.Key:
    return key_pb2.Key(
        key_id=key.key_id,
        name=key.name,
        prefix=key.prefix,
        tenant=key.tenant,
        principal=key.principal,
        role=role_number(key.role),
        tier=key.tier,
        models=key.models,
        endpoints=key.endpoints,
        safety_profiles=key.safety_profiles,
        created_time=timestamp(key.created_time_ms),
        expire_time=timestamp(key.expire_time_ms),
        revoke_time=timestamp(key.revoke_time_ms),
    )
