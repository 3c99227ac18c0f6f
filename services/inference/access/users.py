"""Users who log in with a password, and the tokens that this gives them.

A password that is wrong, a name that is unknown and a user that is disabled are told alike and cost alike. Refresh
tokens work once; one that comes twice was stolen, by whoever came first or second, and voids all that came of its
login.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from kit.errors import InvalidArgument, Unauthenticated
from kit.identity import DEFAULT_TENANT, Role
from services.inference.access import secret
from services.inference.access.key import check_tenant, check_tier
from services.inference.access.login_limit import LoginLimit
from services.inference.access.passwords import Passwords
from services.inference.access.tokens import Minter

PASSWORD_CHARS_MIN, PASSWORD_CHARS_MAX = 8, 1_024
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)
_TOKEN = re.compile(r"mrr_[A-Za-z0-9_-]{43}", re.ASCII)


class User(msgspec.Struct, frozen=True):
    """A user. Instants are milliseconds since the epoch; None means never."""

    name: str
    tenant: str = DEFAULT_TENANT
    role: Role = "user"
    tier: str = ""
    created_time_ms: int = 0
    disable_time_ms: int | None = None

    def check(self) -> None:
        """Checks every field; raises InvalidArgument with the first that is wrong."""
        if not _NAME.fullmatch(self.name):
            raise InvalidArgument("user.name", "must be 1 to 64 of letters, digits and ._@-")
        check_tenant(self.tenant, "user.tenant")
        check_tier(self.tier, "user.tier")


class Login(msgspec.Struct, frozen=True):
    """What a login gives."""

    access_token: str
    access_ttl_s: int
    refresh_token: str


class RefreshToken(msgspec.Struct, frozen=True):
    """What is kept of a refresh token."""

    digest: str
    login_id: str
    user_name: str
    expire_time_ms: int


class Store(Protocol):
    """Where users are kept; every method raises Unavailable where it is away."""

    async def create(self, user: User, password_hash: str) -> User:
        """Keeps a new user; raises AlreadyExists (USER_EXISTS)."""

    async def find(self, name: str) -> tuple[User, str] | None:
        """Returns a user and the password's hash, or None."""

    async def list(self, count: int, after: str) -> list[User]:
        """Returns users by name, from behind a name."""

    async def disable(self, name: str) -> User:
        """Disables a user for good and voids the tokens; raises NotFound (USER_NOT_FOUND)."""

    async def add_token(self, token: RefreshToken) -> None:
        """Keeps a refresh token, and forgets those that have expired."""

    async def use_token(self, digest: str, successor: RefreshToken) -> User:
        """Trades a refresh token, once, for a successor, which takes over its login; returns whose it is.

        Raises:
            Unauthenticated: REFRESH_TOKEN_INVALID or REFRESH_TOKEN_REUSED.
        """


class Users:
    """Lets users log in.

    Args:
        store: Where they are kept.
        passwords: Hashes passwords.
        minter: Makes tokens.
        limit: Bounds attempts.
        pepper: The key of refresh tokens' digests.
        refresh_ttl_s: Life of a refresh token.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        minter: Minter,
        limit: LoginLimit,
        pepper: bytes,
        refresh_ttl_s: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._passwords, self._minter, self._limit = store, passwords, minter, limit
        self._pepper, self._refresh_ttl_s, self._clock = pepper, refresh_ttl_s, clock

    async def create(self, user: User, password: str) -> User:
        """Keeps a new user.

        Raises:
            InvalidArgument: A field or the password is not what it must be.
            AlreadyExists: There is a user of this name (USER_EXISTS).
        """
        user.check()
        if not PASSWORD_CHARS_MIN <= len(password) <= PASSWORD_CHARS_MAX:
            raise InvalidArgument("password", f"must have {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters")
        user = msgspec.structs.replace(user, created_time_ms=self._now_ms())
        return await self._store.create(user, await self._passwords.hash(password))

    async def list(self, count: int, after: str) -> list[User]:
        """Returns users by name, from behind a name."""
        return await self._store.list(count, after)

    async def disable(self, name: str) -> User:
        """Ends whatever a user may do: logins, tokens and jobs; raises NotFound (USER_NOT_FOUND)."""
        return await self._store.disable(name)

    async def login(self, name: str, password: str, address: str) -> Login:
        """Lets a user in.

        Raises:
            Unauthenticated: Name, password or both are wrong, or the user is disabled (LOGIN_FAILED).
            ResourceExhausted: Too many attempts (LOGIN_LIMITED), or too many at once (LOGIN_BUSY).
            Unavailable: The store is away.
        """
        await self._limit.count(name[:64], address)
        found = await self._store.find(name) if _NAME.fullmatch(name) else None
        kept = found[1] if found else None
        is_right = await self._passwords.verify(kept, password[: PASSWORD_CHARS_MAX + 1])
        if found is None or not is_right or found[0].disable_time_ms is not None:
            raise Unauthenticated("LOGIN_FAILED", "the name or the password is wrong")
        login, token = self._login(found[0], secrets.token_hex(16))
        await self._store.add_token(token)
        return login

    async def refresh(self, text: str) -> Login:
        """Trades a refresh token for new tokens.

        Raises:
            Unauthenticated: It is unknown, expired or void (REFRESH_TOKEN_INVALID), or was used before
                (REFRESH_TOKEN_REUSED).
            Unavailable: The store is away.
        """
        if not _TOKEN.fullmatch(text):
            raise Unauthenticated("REFRESH_TOKEN_INVALID", "the refresh token is not valid; log in again")
        successor, kept = self._refresh_token("", "")
        user = await self._store.use_token(secret.digest(text, self._pepper), kept)
        return Login(self._access_token(user), self._minter.ttl_s, successor)

    def _login(self, user: User, login_id: str) -> tuple[Login, RefreshToken]:
        text, kept = self._refresh_token(login_id, user.name)
        return Login(self._access_token(user), self._minter.ttl_s, text), kept

    def _access_token(self, user: User) -> str:
        return self._minter.mint(user.name, user.tenant, user.role, user.tier)

    def _refresh_token(self, login_id: str, user_name: str) -> tuple[str, RefreshToken]:
        text = f"mrr_{secrets.token_urlsafe(32)}"
        end_ms = self._now_ms() + self._refresh_ttl_s * 1000
        return text, RefreshToken(secret.digest(text, self._pepper), login_id, user_name, end_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
