"""POST /login and /login/refresh, and the administrators' /admin/keys."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Meta, Struct

from millrace.inference.v1 import access_service_pb2, key_pb2
from services.edge import query
from services.edge.exchange import Exchange
from services.edge.inference_client import InferenceClient

Role = Literal["admin", "user", "guest", "service"]
Endpoint = Literal["generate", "embed", "moderate", "models", "usage", "jobs"]
Name = Annotated[str, Meta(min_length=1, max_length=64)]
_ROLES: dict[Role, key_pb2.KeyRole] = {
    "admin": key_pb2.KEY_ROLE_ADMIN,
    "user": key_pb2.KEY_ROLE_USER,
    "guest": key_pb2.KEY_ROLE_GUEST,
    "service": key_pb2.KEY_ROLE_SERVICE,
}
_WORDS = {number: role for role, number in _ROLES.items()}


class LoginBody(Struct, forbid_unknown_fields=True):
    """A user's name and password."""

    username: Name
    password: Annotated[str, Meta(min_length=1, max_length=1024)]


class RefreshBody(Struct, forbid_unknown_fields=True):
    """The refresh token that came last; it works once."""

    refresh_token: Annotated[str, Meta(min_length=1, max_length=256)]


class LoginAnswer(Struct):
    """Tokens; send `access_token` as `Authorization: Bearer`. `expires_in` is in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int
    token_type: Literal["bearer"] = "bearer"


class NewKey(Struct, forbid_unknown_fields=True):
    """What a key is for. Empty lists allow everything that the role may do; a model may end with `*`."""

    name: Name
    role: Role = "user"
    tenant: Annotated[str, Meta(max_length=256)] = ""
    principal: Annotated[str, Meta(max_length=256)] = ""
    tier: Annotated[str, Meta(max_length=64)] = ""
    models: Annotated[list[str], Meta(max_length=64)] = []
    endpoints: Annotated[list[Endpoint], Meta(max_length=16)] = []
    safety_profiles: Annotated[list[str], Meta(max_length=16)] = []
    expires_in_s: Annotated[int, Meta(ge=1, le=315_360_000)] | None = None


class KeyCard(Struct, kw_only=True):
    """A key without its secret; times are in ISO 8601, UTC."""

    id: str
    name: str
    prefix: str
    role: Role
    tenant: str
    principal: str
    tier: str
    models: list[str]
    endpoints: list[str]
    safety_profiles: list[str]
    created_at: str
    expires_at: str | None = None
    revoked_at: str | None = None


class KeyWithSecret(KeyCard, kw_only=True):
    """A key and what its holder sends: shown this once."""

    secret: str


class KeyPage(Struct):
    """Keys, newest first; `next` continues the list as `after`."""

    data: list[KeyCard]
    next: str | None = None


class KeyQuery(Struct, forbid_unknown_fields=True):
    """Which page of the keys."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    after: Annotated[str, Meta(max_length=128)] = ""


class Rotation(Struct, forbid_unknown_fields=True):
    """How long the old secret works on, in seconds."""

    overlap_s: Annotated[int, Meta(ge=0, le=2_592_000)] = 0


class AdminEndpoints:
    """Logins and keys."""

    def __init__(self, inference: InferenceClient) -> None:
        self._inference = inference

    async def login(self, exchange: Exchange, body: LoginBody) -> LoginAnswer:
        """POST /login."""
        return _login(exchange, await self._inference.login(exchange, body.username, body.password))

    async def refresh(self, exchange: Exchange, body: RefreshBody) -> LoginAnswer:
        """POST /login/refresh."""
        return _login(exchange, await self._inference.refresh_login(exchange, body.refresh_token))

    async def list_keys(self, exchange: Exchange, _: None) -> KeyPage:
        """GET /admin/keys."""
        asked = query.read(exchange, KeyQuery)
        page = await self._inference.list_keys(exchange, asked.limit, asked.after)
        return KeyPage([KeyCard(**_fields(key)) for key in page.keys], page.next_page_token or None)

    async def create_key(self, exchange: Exchange, body: NewKey) -> KeyWithSecret:
        """POST /admin/keys."""
        made = await self._inference.create_key(exchange, _key(body))
        return _with_secret(exchange, made.key, made.secret)

    async def revoke_key(self, exchange: Exchange, _: None) -> KeyCard:
        """DELETE /admin/keys/{key_id}."""
        answer = await self._inference.revoke_key(exchange, exchange.params["key_id"])
        return KeyCard(**_fields(answer.key))

    async def rotate_key(self, exchange: Exchange, body: Rotation) -> KeyWithSecret:
        """POST /admin/keys/{key_id}/rotate."""
        made = await self._inference.rotate_key(exchange, exchange.params["key_id"], body.overlap_s)
        return _with_secret(exchange, made.key, made.secret)


def _login(exchange: Exchange, tokens: access_service_pb2.LoginTokens) -> LoginAnswer:
    _keep_nowhere(exchange)
    return LoginAnswer(tokens.access_token, tokens.refresh_token, tokens.access_token_ttl.seconds)


def _with_secret(exchange: Exchange, key: key_pb2.Key, secret: str) -> KeyWithSecret:
    _keep_nowhere(exchange)
    return KeyWithSecret(**_fields(key), secret=secret)


def _keep_nowhere(exchange: Exchange) -> None:
    """Tells caches that an answer holds a secret."""
    exchange.set_header(b"cache-control", b"no-store")


def _key(body: NewKey) -> key_pb2.Key:
    key = key_pb2.Key(
        name=body.name,
        role=_ROLES[body.role],
        tenant=body.tenant,
        principal=body.principal,
        tier=body.tier,
        models=body.models,
        endpoints=body.endpoints,
        safety_profiles=body.safety_profiles,
    )
    if body.expires_in_s is not None:
        key.expire_time.FromSeconds(int(time.time()) + body.expires_in_s)
    return key


def _fields(key: key_pb2.Key) -> dict[str, Any]:
    """The fields of a KeyCard."""
    return {
        "id": key.key_id,
        "name": key.name,
        "prefix": key.prefix,
        "role": _WORDS[key.role],
        "tenant": key.tenant,
        "principal": key.principal,
        "tier": key.tier,
        "models": list(key.models),
        "endpoints": list(key.endpoints),
        "safety_profiles": list(key.safety_profiles),
        "created_at": _iso(key.created_time),
        "expires_at": _iso(key.expire_time) if key.HasField("expire_time") else None,
        "revoked_at": _iso(key.revoke_time) if key.HasField("revoke_time") else None,
    }


def _iso(instant: Timestamp) -> str:
    return datetime.fromtimestamp(instant.ToMilliseconds() / 1000, UTC).isoformat()
