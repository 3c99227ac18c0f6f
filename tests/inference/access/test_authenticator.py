"""Who calls: what is shown, what is believed, and for whom somebody acts."""

from __future__ import annotations

from typing import Any

import pytest

from kit.errors import InvalidArgument, MillraceError, PermissionDenied, Unauthenticated
from kit.identity import CallContext, Caller, Role
from services.inference.access import permission, secret
from services.inference.access.authenticator import Authenticator
from services.inference.access.key_store import KeyStore
from services.inference.access.tokens import Minter, Tokens
from tests.inference.access.parts import Clock, ShownCall, make_key, ring

GENERATE = "millrace.inference.v1.InferenceService/Generate"
CREATE_KEY = "millrace.inference.v1.KeyService/CreateKey"
MINTER = Minter(b"s" * 32, 900)


async def door(store: KeyStore, clock: Clock, is_required: bool = True, **fields: Any) -> Authenticator:
    """An authenticator over the keys that are there now."""
    keyring = ring(store, clock)
    await keyring.refresh()
    return Authenticator(keyring, Tokens(MINTER.issuer), is_required, **fields)


async def let_in(one: Authenticator, *metadata: tuple[str, str], method: str = GENERATE, **fields: Any) -> CallContext:
    """The context of a call, as the interceptor makes it."""
    given = dict(metadata)
    context = CallContext(
        "r", given.get("x-millrace-tenant", "default"), given.get("x-millrace-principal", "anonymous")
    )
    return await one.identify(method, context, ShownCall(*metadata, **fields))


async def refused(one: Authenticator, *metadata: tuple[str, str], **fields: Any) -> str:
    """The reason why a call is refused."""
    with pytest.raises(MillraceError) as caught:
        await let_in(one, *metadata, **fields)
    return caught.value.reason


def bearer(text: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {text}")


async def test_a_key_may_come_in_either_header(store: KeyStore, clock: Clock) -> None:
    """Or the same one in both; the scheme's case does not matter."""
    _, text = await make_key(store, tenant="acme", principal="ada")
    one = await door(store, clock)
    for metadata in (
        [bearer(text)],
        [("authorization", f"bEARER   {text}")],
        [("x-api-key", text)],
        [("x-api-key", text), bearer(text)],
    ):
        context = await let_in(one, *metadata)
        assert (context.tenant, context.principal, context.caller.key_name) == ("acme", "ada", "k")


async def test_where_keys_are_required_nothing_else_gets_in(store: KeyStore, clock: Clock) -> None:
    """Each is 401, with a reason that says what was wrong."""
    one = await door(store, clock)

    assert await refused(one) == "CREDENTIAL_MISSING"
    assert await refused(one, ("x-client-id", "c")) == "CREDENTIAL_MISSING"
    assert await refused(one, bearer("none")) == "KEY_INVALID"
    assert await refused(one, bearer("")) == "KEY_INVALID"
    assert await refused(one, ("authorization", "Basic YTpi")) == "KEY_INVALID"
    assert await refused(one, bearer(secret.new_secret())) == "KEY_INVALID"
    assert await refused(one, bearer("x" * 5000)) == "CREDENTIAL_INVALID"
    assert await refused(one, ("x-api-key", "ключ")) == "CREDENTIAL_INVALID"
    assert await refused(one, ("x-api-key", "a\tb")) == "CREDENTIAL_INVALID"


async def test_credentials_that_disagree_are_no_credential(store: KeyStore, clock: Clock) -> None:
    """Two keys, the same header twice, or a key beside a token: nobody guesses which one is meant."""
    _, text = await make_key(store)
    _, other = await make_key(store)
    one = await door(store, clock)
    for metadata in (
        [bearer(text), ("x-api-key", other)],
        [bearer(text), bearer(text)],
        [bearer(text), bearer(other)],
        [("x-api-key", text), ("x-api-key", text)],
        [("x-api-key", text), bearer(MINTER.mint("ada", "acme", "user", ""))],
    ):
        with pytest.raises(InvalidArgument) as caught:
            await let_in(one, *metadata)
        assert caught.value.reason == "CREDENTIALS_AMBIGUOUS"


async def test_the_open_door_believes_metadata_and_checks_keys(store: KeyStore, clock: Clock) -> None:
    """What SDKs send where they have no key is no key; what means to be one must be good."""
    _, text = await make_key(store, tenant="acme")
    one = await door(store, clock, is_required=False)
    stranger = await let_in(one, ("x-millrace-tenant", "t"), ("x-millrace-principal", "p"), bearer("none"))

    assert stranger.caller == Caller("p", "t", "anonymous", client_id="%5B::1%5D")
    assert (await let_in(one, ("x-client-id", "tab-7"))).caller.client_id == "tab-7"
    assert (await let_in(one, bearer(text))).tenant == "acme"
    assert await refused(one, bearer(secret.new_secret())) == "KEY_INVALID"
    assert await refused(one, bearer("mr_typo")) == "KEY_INVALID"
    assert await refused(one, bearer("eyJhbGciOiJub25lIn0.e30.")) == "TOKEN_INVALID"
    assert await refused(one, method=CREATE_KEY) == "ROLE_NOT_ALLOWED"


@pytest.mark.parametrize("role", ["user", "guest"])
async def test_nobody_but_services_and_administrators_acts_for_another(
    store: KeyStore, clock: Clock, role: Role
) -> None:
    """A tenant or principal that is not its own is refused, not let go; its own may be named."""
    _, text = await make_key(store, tenant="acme", principal="ada", role=role)
    one = await door(store, clock)
    await let_in(one, bearer(text), ("x-millrace-tenant", "acme"), ("x-millrace-principal", "ada"))

    assert await refused(one, bearer(text), ("x-millrace-tenant", "victim")) == "TENANT_NOT_ALLOWED"
    assert await refused(one, bearer(text), ("x-millrace-principal", "bob")) == "PRINCIPAL_NOT_ALLOWED"
    context = await let_in(one, bearer(text), ("x-millrace-tenant", "default"))
    assert context.tenant == context.caller.tenant == "acme"


@pytest.mark.parametrize("role", ["service", "admin"])
async def test_services_and_administrators_act_for_others(store: KeyStore, clock: Clock, role: Role) -> None:
    """And stay known by their key."""
    key, text = await make_key(store, role=role)
    context = await let_in(
        await door(store, clock), bearer(text), ("x-millrace-tenant", "acme"), ("x-millrace-principal", "ada")
    )

    assert (context.tenant, context.principal) == ("acme", "ada")
    assert context.caller == Caller("ada", "acme", role, key.key_id, "k")


async def test_a_listed_certificate_is_a_service(store: KeyStore, clock: Clock) -> None:
    """By any of its names, by its common name only where it has no other, and never for the edge's clients."""
    one = await door(store, clock, services=["worker", "edge"])
    context = await let_in(one, ("x-millrace-tenant", "acme"), names=["x", "worker"])

    assert context.caller == Caller("worker", "acme", "service")
    assert (await let_in(one, common_name="worker")).caller.role == "service"
    assert await refused(one, names=["x"], common_name="worker") == "CREDENTIAL_MISSING"
    assert await refused(one, names=["stranger"]) == "CREDENTIAL_MISSING"
    assert await refused(one, ("x-client-id", "browser"), names=["edge"]) == "CREDENTIAL_MISSING"


async def test_a_key_counts_before_the_certificate_that_brings_it(store: KeyStore, clock: Clock) -> None:
    """The edge's own rights are not its clients', nor does its certificate make a bad key good."""
    _, text = await make_key(store, principal="ada")
    one = await door(store, clock, services=["edge"])

    assert (await let_in(one, bearer(text), names=["edge"])).caller.role == "user"
    assert await refused(one, bearer(secret.new_secret()), names=["edge"]) == "KEY_INVALID"


async def test_the_way_to_a_token_needs_none(store: KeyStore, clock: Clock) -> None:
    """Login and refresh are open, by their exact names."""
    one = await door(store, clock)
    context = await let_in(one, ("x-client-id", "1.2.3.4"), method="millrace.inference.v1.AccessService/Login")

    assert (context.caller.role, context.caller.client_id) == ("anonymous", "1.2.3.4")
    for method in ("AccessService/login", "AccessService/CreateUser", "AccessService/Login/", "KeyService/ListKeys"):
        assert await refused(one, method=f"millrace.inference.v1.{method}") == "CREDENTIAL_MISSING"


METHODS = {
    "InferenceService/Generate": "generate",
    "InferenceService/StreamGenerate": "generate",
    "InferenceService/Embed": "embed",
    "InferenceService/Moderate": "moderate",
    "InferenceService/ListModels": "models",
    "UsageService/ListHistory": "usage",
    "UsageService/ListLimits": "self",
    "JobService/CreateJob": "jobs",
    "AccessService/GetCaller": "self",
    "AccessService/CreateUser": "admin",
    "KeyService/CreateKey": "admin",
    "InferenceService/WhatComesLater": "unlisted",
    "LaterService/Anything": "unlisted",
}
OPEN_TO: dict[Role, set[str]] = {
    "admin": set(METHODS.values()),
    "service": set(METHODS.values()) - {"admin"},
    "user": set(METHODS.values()) - {"admin", "unlisted"},
    "guest": {"generate", "embed", "moderate", "models", "self"},
    "anonymous": set(METHODS.values()) - {"admin"},
}


@pytest.mark.parametrize("role", OPEN_TO)
@pytest.mark.parametrize("method", METHODS)
def test_each_role_has_its_methods(role: Role, method: str) -> None:
    """What is not listed is closed to users and guests, so that what comes later is not open by accident."""
    endpoint = permission.endpoint_of(f"millrace.inference.v1.{method}")
    assert endpoint == METHODS[method]
    try:
        permission.check_method(Caller(role=role), endpoint)
        is_open = True
    except PermissionDenied:
        is_open = False

    assert is_open == (endpoint in OPEN_TO[role])


def test_reflection_is_for_administrators_where_keys_are_required() -> None:
    """Contracts are public, but a map of a shut house is for those who have it in their care, and services."""
    endpoint = permission.endpoint_of("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    permission.check_method(Caller(role="admin"), endpoint)

    with pytest.raises(PermissionDenied):
        permission.check_method(Caller(role="user"), endpoint)


def test_endpoint_scopes_narrow_a_role_and_never_widen_it() -> None:
    """An administrator with a scope still administers; a guest with `jobs` has none."""
    permission.check_method(Caller(role="user", endpoints=("embed",)), "embed")
    permission.check_method(Caller(role="admin", endpoints=("embed",)), "admin")
    for caller, endpoint in (
        (Caller(role="user", endpoints=("embed",)), "generate"),
        (Caller(role="guest", endpoints=("jobs",)), "jobs"),
        (Caller(role="user", endpoints=("admin",)), "admin"),
        (Caller(role="service", endpoints=("embed",)), "unlisted"),
    ):
        with pytest.raises(PermissionDenied):
            permission.check_method(caller, endpoint)


@pytest.mark.parametrize(
    ("scopes", "name", "is_allowed"),
    [
        ((), "anything", True),
        (("gpt",), "gpt", True),
        (("gpt",), "gpt-4", False),
        (("gpt-*",), "gpt-4", True),
        (("gpt-*",), "GPT-4", False),
        (("gpt-*",), "gpt", False),
        (("*",), "x/../y", True),
        (("a/*",), "a/../b", True),
        (("a/*",), "b/../a/x", False),
        (("g?t", "[a-z]*"), "gpt", False),
        (("gpt",), "gpt ", False),
        (("gpt",), "gpt\x00", False),
    ],
)
def test_model_scopes_are_names_or_prefixes(scopes: tuple[str, ...], name: str, is_allowed: bool) -> None:
    """Compared as they stand: names are no paths, and only a `*` at the end means more than itself."""
    assert permission.may_use(Caller(models=scopes), name) is is_allowed


async def test_a_missing_credential_says_how_to_send_one(store: KeyStore, clock: Clock) -> None:
    """The message names both headers."""
    with pytest.raises(Unauthenticated, match=r"Authorization: Bearer KEY.*X-API-Key"):
        await let_in(await door(store, clock))
