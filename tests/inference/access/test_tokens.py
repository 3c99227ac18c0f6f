"""Tokens that are good, and every way in which one is not."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from kit.errors import Unauthenticated
from kit.identity import Caller
from services.inference.access.jwks import ALGORITHMS, Jwks
from services.inference.access.tokens import CHARS_MAX, KNOWN_S_MAX, Claims, Issuer, Minter, Tokens, caller_of
from tests.inference.access.parts import (
    AUDIENCE,
    ISSUER,
    Clock,
    Signer,
    claims_of,
    jwks,
    unsigned,
)

SECRET = b"a shared secret of 32 bytes or more!"
RSA, EC = Signer("rsa-1"), Signer("ec-1", "ES256")
STRANGER = Signer("rsa-1")  # another key under the same name
SHARED = Signer("", "HS256", SECRET)
OTHER = Signer("", "HS256", b"n" * 32)
NOW = int(time.time())
CLAIMS = claims_of(RSA.sign())


def public_tokens(*signers: Signer, clock: Callable[[], float] = time.time, **fields: Any) -> Tokens:
    """Who trusts the public keys of the signers, and our own logins."""

    async def read() -> bytes:
        return jwks(*(signers or (RSA, EC)))

    keys = Jwks(read, 600)
    issuer = Issuer(ISSUER, AUDIENCE, ALGORITHMS, keys.find, generation=lambda: keys.generation, **fields)
    return Tokens(Minter(b"m" * 32, 900).issuer, issuer, clock=clock)


def shared_tokens(**fields: Any) -> Tokens:
    """Who trusts tokens under a shared secret."""

    async def find(_: str) -> bytes:
        return SECRET

    return Tokens(Issuer(ISSUER, AUDIENCE, ("HS256",), find, **fields))


@pytest.mark.parametrize("signer", [RSA, EC], ids=["RS256", "ES256"])
async def test_a_token_of_the_issuer_is_good(signer: Signer) -> None:
    """Subject, tenant, role and scopes become the caller."""
    token = signer.sign(
        tenant="acme",
        role=["staff", "service"],
        scope="openid model:gpt-* model:mini endpoint:embed profile:strict tier:x",
    )

    assert await public_tokens().caller_of(token) == Caller(
        "ada", "acme", "service", "", "", "x", ("gpt-*", "mini"), ("embed",), ("strict",), issuer=ISSUER
    )


async def test_a_token_under_the_shared_secret_is_good() -> None:
    """HS256, for issuers without public keys."""
    assert await shared_tokens().caller_of(SHARED.sign()) == Caller("ada", "default", "user", issuer=ISSUER)


def hs256_with_public_key() -> str:
    """The classic confusion: signed with what everybody knows. PyJWT would not do it, so it is put together by hand."""
    head = unsigned({"alg": "HS256", "typ": "JWT", "kid": "rsa-1"}, CLAIMS)[:-1]
    mac = hmac.new(RSA.public_pem, head.encode(), hashlib.sha256).digest()
    return f"{head}.{jwt.utils.base64url_encode(mac).decode()}"


def with_changed_claims() -> str:
    """The claims of an administrator over the signature of a guest."""
    head, _, signature = RSA.sign(role="guest").split(".")
    return f"{head}.{unsigned({}, {**CLAIMS, 'role': 'admin'}).split('.')[1]}.{signature}"


def by_hand(**claims: Any) -> str:
    """Claims that no library would sign, under a signature that fits: only the claims are wrong."""
    head = unsigned({"alg": "RS256", "typ": "JWT", "kid": "rsa-1"}, {**CLAIMS, **claims})[:-1]
    signature = RSA.key.sign(head.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{head}.{jwt.utils.base64url_encode(signature).decode()}"


ATTACKS: dict[str, Callable[[], str]] = {
    "signed by a stranger under a known kid": STRANGER.sign,
    "claims changed after signing": with_changed_claims,
    "no signature": lambda: RSA.sign().rpartition(".")[0] + ".",
    "alg none": lambda: unsigned({"alg": "none", "typ": "JWT"}, CLAIMS),
    "alg None in capitals": lambda: unsigned({"alg": "NONE", "kid": "rsa-1"}, CLAIMS),
    "no alg at all": lambda: unsigned({"typ": "JWT", "kid": "rsa-1"}, CLAIMS),
    "HS256 with the public key as its secret": hs256_with_public_key,
    "HS256 with a secret that is easily guessed": lambda: Signer("rsa-1", "HS256", b"secret").sign(),
    "ES256 under the kid of an RSA key": lambda: Signer("rsa-1", "ES256").sign(),
    "RS512, which the issuer does not use": lambda: jwt.encode(CLAIMS, RSA.key, "RS512", {"kid": "rsa-1"}),
    "an unknown kid": lambda: RSA.sign({"kid": "rsa-2"}),
    "no kid": lambda: RSA.sign({"kid": ""}),
    "a kid that is a path": lambda: RSA.sign({"kid": "../../../../dev/null"}),
    "a kid that is a query": lambda: RSA.sign({"kid": "' UNION SELECT 'AA' --"}),
    "a key brought along": lambda: STRANGER.sign({"kid": "x", "jwk": STRANGER.jwk}),
    "an address of keys brought along": lambda: STRANGER.sign({"kid": "x", "jku": "https://evil.example/jwks"}),
    "expired": lambda: RSA.sign(exp=NOW - 60),
    "without an end": lambda: RSA.sign(exp=None),
    "an end that is no number": lambda: by_hand(exp="x"),
    "an end behind all time": lambda: RSA.sign(exp=10**30),
    "an end that never comes": lambda: by_hand(exp=float("inf")),
    "an end that compares with nothing": lambda: by_hand(exp=float("nan")),
    "an end as a text": lambda: by_hand(exp="9999999999"),
    "an end as a truth": lambda: by_hand(exp=True),
    "good since before all time": lambda: RSA.sign(nbf=-1),
    "good since a number that is none": lambda: by_hand(nbf=float("nan")),
    "made before all time": lambda: RSA.sign(iat=-(10**30)),
    "made as a text": lambda: by_hand(iat="1"),
    "not good yet": lambda: RSA.sign(nbf=NOW + 86_400),
    "made in the future": lambda: RSA.sign(iat=NOW + 86_400),
    "for another audience": lambda: RSA.sign(aud="somebody-else"),
    "for no audience": lambda: RSA.sign(aud=None),
    "from another issuer": lambda: RSA.sign(iss="https://evil.example"),
    "from no issuer": lambda: RSA.sign(iss=None),
    "from several issuers": lambda: by_hand(iss=[ISSUER]),
    "in our name by the other issuer": lambda: RSA.sign(iss="millrace", aud="millrace"),
    "in our name under a secret of its own": lambda: OTHER.sign(iss="millrace", aud="millrace"),
    "without a subject": lambda: RSA.sign(sub=None),
    "an empty subject": lambda: RSA.sign(sub=""),
    "a subject that is no text": lambda: by_hand(sub=7),
    "a tenant with a line's end": lambda: RSA.sign(tenant="acme\nx"),
    "a role that is an object": lambda: RSA.sign(role={"admin": True}),
    "a detached payload": lambda: RSA.sign({"b64": False, "crit": ["b64"]}).replace(".", "..", 1),
    "larger than any header": lambda: RSA.sign(pad="x" * CHARS_MAX),
    "nonsense in three parts": lambda: "eyJ.eyJ.eyJ",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_an_attack_with_a_token_is_refused(attack: Callable[[], str]) -> None:
    """Whatever is wrong, it is 401, and what came of it is not remembered as good."""
    tokens = public_tokens()
    await tokens.caller_of(RSA.sign())
    for _ in range(2):
        with pytest.raises(Unauthenticated) as caught:
            await tokens.caller_of(attack())
        assert caught.value.reason in ("TOKEN_INVALID", "TOKEN_EXPIRED")


async def test_tokens_of_one_kind_are_none_of_the_other() -> None:
    """An issuer with a secret takes no public keys, and one with public keys no secret."""
    for tokens, token in ((shared_tokens(), RSA.sign()), (public_tokens(), SHARED.sign())):
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(token)


async def test_clocks_may_differ_by_the_leeway() -> None:
    """In either direction, and by no more."""
    tokens, now = public_tokens(leeway_s=300.0), int(time.time())
    await tokens.caller_of(RSA.sign(exp=now - 10))
    await tokens.caller_of(RSA.sign(nbf=now + 290))
    for claims in ({"exp": now - 310}, {"nbf": now + 900}):
        with pytest.raises(Unauthenticated):
            await tokens.caller_of(RSA.sign(**claims))


async def test_what_was_good_is_known_until_it_ends() -> None:
    """A second look is a look-up; when the token ends, so does what is known of it."""
    asked = []

    async def find(kid: str) -> Any:
        asked.append(kid)
        return jwt.PyJWK(RSA.jwk)

    clock = Clock(time.time())
    tokens = Tokens(Issuer(ISSUER, AUDIENCE, ALGORITHMS, find), clock=clock)
    token = RSA.sign()
    callers = [await tokens.caller_of(token) for _ in range(100)]
    assert len(asked) == 1
    clock.now += KNOWN_S_MAX
    callers.append(await tokens.caller_of(token))

    assert len(asked) == 2
    assert len(set(callers)) == 1


async def test_a_login_token_is_good_on_every_replica_and_nowhere_else() -> None:
    """Replicas share the pepper, so what one signed the others take; another suite's does not fit."""
    token = Minter(b"s" * 32, 900).mint("ada", "acme", "user", "premium")

    assert await Tokens(Minter(b"s" * 32, 900).issuer).caller_of(token) == Caller("ada", "acme", "user", tier="premium")
    with pytest.raises(Unauthenticated):
        await Tokens(Minter(b"t" * 32, 900).issuer).caller_of(token)


@pytest.mark.parametrize(
    ("claim", "role"),
    [(None, "user"), ("admin", "admin"), (["guest", "user"], "user"), ("superuser", "guest"), ([], "guest")],
)
def test_roles_are_ours_or_the_least(claim: Any, role: str) -> None:
    """What names no role of ours gives the least of them; the best of several counts."""
    claims = {"sub": "ada"} if claim is None else {"sub": "ada", "groups": claim}

    assert caller_of(claims, Claims(role="groups")).role == role
