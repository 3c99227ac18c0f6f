"""JSON Web Tokens: our own, which a login gives, and those of one other issuer.

A token is checked under what the settings say of its issuer, never under what it says of itself: its `alg` must be one
of the issuer's, its `kid` only picks among the issuer's keys, and `jku`, `x5u` and `jwk` are not looked at. Our own
issuer has HS256 and one secret, the other one either HS256 with its secret or RS256 and ES256 with public keys, so that
no public key can ever serve as a secret.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import jwt
import msgspec

from kit.errors import Unauthenticated
from kit.identity import DEFAULT_TENANT, Caller, Role
from services.inference.access.lru import Lru

ISSUER = "millrace"
AUDIENCE = "millrace"
CHARS_MAX = 4_096  # a header that carries more is refused before anything reads it
TIME_CLAIMS = ("exp", "nbf", "iat")
TIME_MAX_S = 253_402_300_799  # the end of the year 9999
REQUIRED_CLAIMS = ["exp", "iss", "aud", "sub"]
# What was verified is known by its hash for a while: a signature of RS256 costs 30 us and more. After that it is
# verified anew, and so finds out that its issuer has let go of the key.
KNOWN_COUNT_MAX = 4_096
KNOWN_S_MAX = 60.0
_ROLES_BEST_FIRST: tuple[Role, ...] = ("admin", "service", "user", "guest")

FindKey = Callable[[str], Awaitable["jwt.PyJWK | bytes | None"]]


class Claims(msgspec.Struct, frozen=True):
    """Names of the claims that say more than who: the tenant, the role, and scopes such as `model:gpt-*`."""

    tenant: str = "tenant"
    role: str = "role"
    scope: str = "scope"


class Issuer(msgspec.Struct, frozen=True):
    """Whose tokens are taken, and under which conditions.

    `find_key` returns the key of a `kid`, None where the issuer has no such key. `generation` changes when keys that it
    returned before are void. `is_void` tells of callers whose tokens are, however good they were.
    """

    name: str
    audience: str
    algorithms: tuple[str, ...]
    find_key: FindKey
    claims: Claims = Claims()
    leeway_s: float = 0.0
    generation: Callable[[], int] = lambda: 0
    is_void: Callable[[Caller], bool] = lambda _: False


class _Known(msgspec.Struct, frozen=True):
    caller: Caller
    expire_time_s: float
    generation: int
    issuer: Issuer


class Tokens:
    """Checks tokens, and remembers those that were good.

    Args:
        issuers: Whose tokens are taken.
        clock: Seconds since the epoch; only for what is remembered, as PyJWT looks at its own.
    """

    def __init__(self, *issuers: Issuer, clock: Callable[[], float] = time.time) -> None:
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._clock = clock
        self._known: Lru[bytes, _Known] = Lru(KNOWN_COUNT_MAX)

    async def caller_of(self, token: str) -> Caller:
        """Returns who calls with a token.

        Raises:
            Unauthenticated: It is none, forged, expired, not yet good or for somebody else (TOKEN_INVALID,
                TOKEN_EXPIRED), or of a user who was disabled since (USER_DISABLED).
            Unavailable: The issuer's keys cannot be read.
        """
        known = await self._known_of(token)
        if known.issuer.is_void(known.caller):
            raise Unauthenticated("USER_DISABLED", "the user of this token is disabled")
        return known.caller

    async def _known_of(self, token: str) -> _Known:
        if len(token) > CHARS_MAX:
            raise _invalid("is too long")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known.expire_time_s and known.generation == known.issuer.generation():
            return known
        issuer, kid = self._read(token)
        claims = await _verified(token, issuer, kid)
        caller = caller_of(claims, issuer.claims)
        if issuer.name != ISSUER:
            caller = replace(caller, issuer=issuer.name)
        good_until_s = min(int(claims["exp"]) + issuer.leeway_s, self._clock() + KNOWN_S_MAX)
        known = _Known(caller, good_until_s, issuer.generation(), issuer)
        self._known.put(digest, known)
        return known

    def _read(self, token: str) -> tuple[Issuer, str]:
        """Reads, without believing it, whom a token is from and which key it names: that picks what to check it by."""
        try:
            read = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _invalid("is no JSON Web Token") from None
        name = read["payload"].get("iss")
        if not isinstance(name, str) or name not in self._issuers:
            raise _invalid("is from an issuer that is not trusted here")
        issuer = self._issuers[name]
        if read["header"].get("alg") not in issuer.algorithms:
            raise _invalid("is signed by an algorithm that its issuer does not use")
        return issuer, str(read["header"].get("kid", ""))


class Minter:
    """Makes our own tokens.

    Args:
        secret: Under which they are signed; derived from the pepper, so every replica's is the same.
        ttl_s: How long one is good for.
        clock: Seconds since the epoch.
    """

    def __init__(self, secret: bytes, ttl_s: int, clock: Callable[[], float] = time.time) -> None:
        self._secret, self.ttl_s, self._clock = secret, ttl_s, clock

    @property
    def issuer(self) -> Issuer:
        """Us, as `Tokens` takes it."""

        async def find_key(_: str) -> bytes:
            return self._secret

        return Issuer(ISSUER, AUDIENCE, ("HS256",), find_key)

    def mint(self, name: str, tenant: str, role: Role, tier: str) -> str:
        """Returns a token for a user."""
        now = int(self._clock())
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": name,
            "iat": now,
            "nbf": now,
            "exp": now + self.ttl_s,
            "tenant": tenant,
            "role": role,
            "scope": f"tier:{tier}" if tier else "",
        }
        return jwt.encode(claims, self._secret, "HS256")


async def _verified(token: str, issuer: Issuer, kid: str) -> dict[str, Any]:
    key = await issuer.find_key(kid)
    if key is None:
        raise _invalid("names a key that its issuer does not have")
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=list(issuer.algorithms),
            audience=issuer.audience,
            issuer=issuer.name,
            leeway=issuer.leeway_s,
            options={"require": REQUIRED_CLAIMS, "enforce_minimum_key_length": True},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("TOKEN_EXPIRED", "the token has expired; get another one") from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError) as error:
        raise _invalid(_WORDS.get(type(error), "is not valid")) from None
    # PyJWT takes whatever `int` does: texts, and instants that no clock will ever show.
    if not all(_is_time(claims[name]) for name in TIME_CLAIMS if name in claims):
        raise _invalid("has a time that is none")
    return claims


def _is_time(claim: Any) -> bool:
    return type(claim) in (int, float) and 0 <= claim <= TIME_MAX_S


def looks_like_token(text: str) -> bool:
    """Whether a text has the shape of a JSON Web Token: three parts, the first one JSON."""
    return text.startswith("eyJ") and text.count(".") == 2


def caller_of(claims: Mapping[str, Any], names: Claims) -> Caller:
    """Returns who calls, by claims that were verified.

    Without a role claim the role is `user`; with one that names no role of ours, `guest`.

    Raises:
        Unauthenticated: A claim is not what it should be (TOKEN_INVALID).
    """
    tenant = claims.get(names.tenant, DEFAULT_TENANT)
    if not isinstance(tenant, str) or not _is_name(tenant) or not _is_name(claims["sub"]):
        raise _invalid("has a subject or a tenant that is no name of 1 to 256 visible ASCII characters")
    scopes = _words(claims.get(names.scope, ""))
    return Caller(
        claims["sub"],
        tenant,
        _role(claims.get(names.role)),
        tier=next(iter(_scoped(scopes, "tier")), "")[:64],
        models=_scoped(scopes, "model"),
        endpoints=_scoped(scopes, "endpoint"),
        safety_profiles=_scoped(scopes, "profile"),
    )


def _role(claim: Any) -> Role:
    if claim is None:
        return "user"
    given = _words(claim)
    return next((role for role in _ROLES_BEST_FIRST if role in given), "guest")


def _words(claim: Any) -> list[str]:
    """The words of a claim: a list of them, or a text with spaces between."""
    if isinstance(claim, str):
        return claim.split()
    if isinstance(claim, list) and all(isinstance(word, str) for word in claim):
        return claim
    raise _invalid("has a role or a scope that is neither a text nor a list of texts")


def _scoped(scopes: list[str], kind: str) -> tuple[str, ...]:
    return tuple(scope[len(kind) + 1 :] for scope in scopes if scope.startswith(f"{kind}:"))


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= 256 and text.isascii() and text.isprintable() and " " not in text


def _invalid(what: str) -> Unauthenticated:
    return Unauthenticated("TOKEN_INVALID", f"the token {what}")


_WORDS: dict[type[Exception], str] = {
    jwt.InvalidSignatureError: "has a wrong signature",
    jwt.ImmatureSignatureError: "is not good yet",
    jwt.InvalidIssuedAtError: "has a time of making that is none",
    jwt.InvalidAudienceError: "is for another audience",
    jwt.InvalidIssuerError: "is from another issuer",
    jwt.MissingRequiredClaimError: f"lacks one of {', '.join(REQUIRED_CLAIMS)}",
}
