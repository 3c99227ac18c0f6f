"""A key as it is kept: what it is for and what its holder may do, never its secret."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from typing import get_args

import msgspec

from kit.errors import InvalidArgument
from kit.identity import DEFAULT_TENANT, Caller, Role

KEY_ROLES: tuple[Role, ...] = ("admin", "user", "guest", "service")
ENDPOINTS = ("generate", "embed", "moderate", "models", "usage", "jobs")
MODEL_COUNT_MAX = 64
PROFILE_COUNT_MAX = 16

# As kit.identity has it of names that travel in metadata.
_NAME = re.compile(r"[\x21-\x7e]{1,256}")
_TIER = re.compile(r"[A-Za-z0-9_.-]{0,64}", re.ASCII)

assert set(KEY_ROLES) < set(get_args(Role))


class KeyDraft(msgspec.Struct, frozen=True):
    """What is asked of a new key. Instants are milliseconds since the epoch; no expiry means never."""

    name: str
    tenant: str = DEFAULT_TENANT
    principal: str = ""
    role: Role = "user"
    tier: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    safety_profiles: tuple[str, ...] = ()
    expire_time_ms: int | None = None

    def check(self, now_ms: int) -> None:
        """Checks every field.

        Raises:
            InvalidArgument: Names the first field that is wrong.
        """
        _need(1 <= len(self.name) <= 64 and self.name.isprintable(), "key.name", "must have 1 to 64 characters")
        check_tenant(self.tenant, "key.tenant")
        named = not self.principal or _NAME.fullmatch(self.principal) is not None
        _need(named, "key.principal", "must be at most 256 visible ASCII characters")
        check_tier(self.tier, "key.tier")
        _few(self.models, MODEL_COUNT_MAX, 256, "key.models")
        _few(self.safety_profiles, PROFILE_COUNT_MAX, 64, "key.safety_profiles")
        known = f"must each be one of {', '.join(ENDPOINTS)}"
        _need(set(self.endpoints) <= set(ENDPOINTS), "key.endpoints", known)
        ahead = self.expire_time_ms is None or self.expire_time_ms > now_ms
        _need(ahead, "key.expire_time", "must lie ahead")


class Key(msgspec.Struct, frozen=True):
    """One key. Instants are milliseconds since the epoch; None means never."""

    key_id: str
    name: str
    prefix: str
    tenant: str
    principal: str
    role: Role
    tier: str
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    safety_profiles: tuple[str, ...]
    created_time_ms: int
    expire_time_ms: int | None = None
    revoke_time_ms: int | None = None

    @property
    def caller(self) -> Caller:
        """Who calls with it."""
        return Caller(
            self.principal,
            self.tenant,
            self.role,
            self.key_id,
            self.name,
            self.tier,
            self.models,
            self.endpoints,
            self.safety_profiles,
        )

    def is_active(self, now_ms: int) -> bool:
        """Whether it opens anything."""
        return self.revoke_time_ms is None and (self.expire_time_ms is None or now_ms < self.expire_time_ms)


class Secret(msgspec.Struct, frozen=True):
    """What is kept of one secret of a key; a key that is rotated has two for a while."""

    key_id: str
    digest: str
    expire_time_ms: int | None = None


def key_of(draft: KeyDraft, prefix: str, now_ms: int) -> Key:
    """Returns a new key with what a draft asks for."""
    key_id = f"key_{secrets.token_hex(8)}"
    return Key(
        key_id,
        draft.name,
        prefix,
        draft.tenant,
        draft.principal or key_id,
        draft.role,
        draft.tier,
        draft.models,
        draft.endpoints,
        draft.safety_profiles,
        now_ms,
        draft.expire_time_ms,
    )


def check_tenant(tenant: str, field: str) -> None:
    """Checks the name of a tenant; raises InvalidArgument with the field."""
    _need(_NAME.fullmatch(tenant) is not None, field, "must be 1 to 256 visible ASCII characters")


def check_tier(tier: str, field: str) -> None:
    """Checks the name of a tier; raises InvalidArgument with the field."""
    _need(_TIER.fullmatch(tier) is not None, field, "must be at most 64 of letters, digits and ._-")


def _few(names: Sequence[str], count_max: int, chars_max: int, field: str) -> None:
    _need(len(names) <= count_max, field, f"must have at most {count_max} items")
    _need(_are_short(names, chars_max), field, f"must each have 1 to {chars_max} characters")


def _are_short(names: Collection[str], chars_max: int) -> bool:
    return all(1 <= len(name) <= chars_max and name.isprintable() for name in names)


def _need(holds: bool, field: str, message: str) -> None:
    if not holds:
        raise InvalidArgument(field, message)
