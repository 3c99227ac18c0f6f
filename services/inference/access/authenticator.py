"""Authentication: from what a call shows to who calls, and whether it may call this method at all.

A credential always decides. Without one, a client certificate whose name is listed makes a service, but only of a call
that speaks for itself: the edge names the client behind each of its calls, so that its certificate never lends its
rights to a stranger. Without either the caller is anonymous where that is allowed. It asks nobody about a key that is
known: see the keyring.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

from kit.errors import PermissionDenied, Unauthenticated
from kit.identity import ANONYMOUS, DEFAULT_TENANT, CallContext, Caller
from services.inference.access import credentials, permission
from services.inference.access.credentials import Shown
from services.inference.access.keyring import Keyring
from services.inference.access.tokens import Tokens, looks_like_token

# What grpc calls the names in a verified client certificate.
_CERTIFICATE_NAMES = ("x509_subject_alternative_name", "x509_common_name")

STRANGER_COUNT_MAX = 4096  # anybody can invent as many as it likes


class Authenticator:
    """Says who calls.

    Args:
        keyring: Knows keys.
        tokens: Checks tokens.
        is_required: Whether calls without a credential are refused.
        services: Names in client certificates whose holders are services.
    """

    def __init__(self, keyring: Keyring, tokens: Tokens, is_required: bool, services: Collection[str] = ()) -> None:
        self._keyring, self._tokens = keyring, tokens
        self._is_required, self._services = is_required, frozenset(services)
        self._endpoints: dict[str, str] = {}
        self._strangers: dict[tuple[str, ...], Caller] = {}  # making one takes as long as all else that is done here

    async def identify(self, method: str, context: CallContext, call: Any) -> CallContext:
        """Returns the context of a call with its caller; see `kit.interceptors.Identify`.

        Raises:
            Unauthenticated: There is no credential where one is needed (CREDENTIAL_MISSING), or it is not good.
            PermissionDenied: The caller may not call this, or may not act for the tenant or principal that it names.
            InvalidArgument: The call shows several credentials.
            Unavailable: Nobody can say now whether the credential is good.
        """
        shown = credentials.read(call.invocation_metadata())
        if method in permission.PUBLIC:
            return replace(context, caller=Caller(client_id=shown.client_id or _address(call)))
        caller = await self._caller(shown, context, call)
        endpoint = self._endpoints.get(method)
        if endpoint is None:
            endpoint = self._endpoints[method] = permission.endpoint_of(method)
        permission.check_method(caller, endpoint)
        return CallContext(context.request_id, caller.tenant, caller.principal, context.deadline, caller)

    async def _caller(self, shown: Shown, context: CallContext, call: Any) -> Caller:
        text = shown.credential
        if text is not None and (self._is_required or credentials.is_ours(text)):
            caller = await (self._tokens if looks_like_token(text) else self._keyring).caller_of(text)
            if shown.client_id:  # named limits count by it, whoever else calls
                caller = replace(caller, client_id=shown.client_id)
            return _acting(caller, context)
        if self._services and not shown.client_id and (service := self._service(call)):
            return _acting(service, context)
        if self._is_required:
            raise Unauthenticated(
                "CREDENTIAL_MISSING", "an API key is needed: send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
        return self._stranger(context.principal, context.tenant, shown.client_id or _address(call))

    def _stranger(self, *who: str) -> Caller:
        """Who shows nothing: principal, tenant and client id."""
        found = self._strangers.get(who)
        if found is None:
            if len(self._strangers) >= STRANGER_COUNT_MAX:
                self._strangers.clear()
            principal, tenant, client_id = who
            found = self._strangers[who] = Caller(principal, tenant, client_id=client_id)
        return found

    def _service(self, call: Any) -> Caller | None:
        """The service that the client's certificate names; its common name counts where it has no other."""
        proven: Mapping[str, Iterable[bytes]] = call.auth_context()
        for kind in _CERTIFICATE_NAMES:
            if names := [name.decode("utf-8", "replace") for name in proven.get(kind, ())]:
                name = next((name for name in names if name in self._services), None)
                return None if name is None else Caller(name, DEFAULT_TENANT, "service")
        return None


def _acting(caller: Caller, context: CallContext) -> Caller:
    """The caller, or whom it acts for if it may; naming itself, or nobody, is no acting."""
    tenant = caller.tenant if context.tenant == DEFAULT_TENANT else context.tenant
    principal = caller.principal if context.principal == ANONYMOUS else context.principal
    if tenant == caller.tenant and principal == caller.principal:
        return caller
    if not caller.is_trusted:
        what = "tenant" if tenant != caller.tenant else "principal"
        raise PermissionDenied(
            f"{what.upper()}_NOT_ALLOWED", f"only services and administrators may name another {what}"
        )
    return replace(caller, tenant=tenant, principal=principal)


def _address(call: Any) -> str:
    """The host of the peer, from `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    peer: str = call.peer()
    return peer.partition(":")[2].rpartition(":")[0] or peer
