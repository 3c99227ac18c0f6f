"""What the tests of access share: keys in a real database, tokens of every kind, and calls as grpc shows them."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kit.errors import Unavailable
from services.inference.access import secret
from services.inference.access.key import Key, KeyDraft
from services.inference.access.key_store import Changes, KeyStore
from services.inference.access.keyring import Keyring

DEADLINE_S = 30.0
PEPPER = b"pepper of the tests, 32 bytes or more"
ISSUER, AUDIENCE = "https://issuer.example", "millrace-tests"


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Watched:
    """A store of keys that counts what it is asked for changes, and can be away."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self.question_count = 0
        self.is_away = False
        self._was_asked = asyncio.Event()

    async def asked(self, count: int) -> None:
        """Waits until it was asked so many times more."""
        count += self.question_count
        async with asyncio.timeout(DEADLINE_S):
            while self.question_count < count:
                self._was_asked.clear()
                await self._was_asked.wait()

    async def changes(self, since: int) -> Changes | None:
        self.question_count += 1
        self._was_asked.set()
        if self.is_away:
            raise Unavailable("DATABASE_UNAVAILABLE", "away")
        return await self._store.changes(since)


async def make_key(store: KeyStore, name: str = "k", **fields: Any) -> tuple[Key, str]:
    """A key and its secret."""
    text = secret.new_secret()
    key = await store.create(KeyDraft(name, **fields), secret.prefix(text), secret.digest(text, PEPPER))
    return key, text


async def rotate(store: KeyStore, key: Key, overlap_ms: int) -> str:
    """The new secret of a key."""
    text = secret.new_secret()
    await store.rotate(key.key_id, secret.prefix(text), secret.digest(text, PEPPER), overlap_ms)
    return text


def ring(source: Any, clock: Clock, outage_s: float = 60.0) -> Keyring:
    """A keyring whose two clocks are one, which its waits turn on."""

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await asyncio.sleep(0)

    return Keyring(source, PEPPER, outage_s, clock, clock, sleep)


class Signer:
    """Somebody who signs tokens: with an RSA key, an EC key, or a secret."""

    def __init__(self, kid: str, algorithm: str = "RS256", secret_: bytes = b"") -> None:
        self.kid, self.algorithm = kid, algorithm
        self.key: Any = secret_
        if algorithm == "RS256":
            self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        elif algorithm == "ES256":
            self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as a JWKS has it."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return {**json.loads(algorithm.to_jwk(self.key.public_key())), "kid": self.kid, "use": "sig"}

    @property
    def public_pem(self) -> bytes:
        """The public key, as everybody may have it."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem: bytes = self.key.public_key().public_bytes(serialization.Encoding.PEM, form)
        return pem

    def sign(self, headers: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good unless the claims or headers say otherwise; None leaves a claim out."""
        now = int(time.time())
        given = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, **claims}
        given = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(given, self.key, self.algorithm, {"kid": self.kid, **(headers or {})})


def jwks(*signers: Signer) -> bytes:
    """The document with the signers' public keys."""
    return json.dumps({"keys": [signer.jwk for signer in signers]}).encode()


def unsigned(header: Mapping[str, Any], claims: Mapping[str, Any], signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def claims_of(token: str) -> dict[str, Any]:
    """What a token says, unchecked."""
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


class ShownCall:
    """A call as grpc shows it to the authenticator."""

    def __init__(self, *metadata: tuple[str, str], names: Iterable[str] = (), common_name: str = "") -> None:
        self._metadata = metadata
        self._proven: dict[str, list[bytes]] = {}
        if names:
            self._proven["x509_subject_alternative_name"] = [name.encode() for name in names]
        if common_name:
            self._proven["x509_common_name"] = [common_name.encode()]

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    def auth_context(self) -> Mapping[str, list[bytes]]:
        return self._proven

    def peer(self) -> str:
        return "ipv6:%5B::1%5D:5000"
