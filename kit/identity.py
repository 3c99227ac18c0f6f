"""Who is calling, under which request id, and until when: the facts that travel with a call.

The server interceptor enters a context for each call and `kit.dial` hands it on to the next service, so code in
between reads `current()` instead of passing three arguments through every function. Metadata is believed as it comes
unless a service finds out for itself who calls, as inference does (`kit.interceptors.Identify`): who may speak to the
others at all is decided by where they listen and by mTLS. Credentials are not part of it and are never handed on.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

from kit.errors import InvalidArgument

REQUEST_ID_KEY = "x-request-id"
TENANT_KEY = "x-millrace-tenant"
PRINCIPAL_KEY = "x-millrace-principal"
# What tells anonymous callers apart.
CLIENT_ID_KEY = "x-client-id"

DEFAULT_TENANT = "default"
ANONYMOUS = "anonymous"

Role = Literal["admin", "user", "guest", "service", "anonymous"]

# Longer than any UUID or trace id, short enough for a log line.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Visible ASCII: what gRPC metadata carries unchanged.
_NAME = re.compile(r"[\x21-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the service that lets callers in has found out; never the credential itself.

    Attributes:
        principal: Who acts within the tenant.
        tenant: Whose data and quotas are meant.
        role: What the caller may do.
        key_id: The key that was shown; empty where it was none.
        key_name: What that key is for; fit for statistics.
        tier: Name of the caller's limits; empty means the default ones.
        models: Models that it may use; empty means all. A name may end with `*`.
        endpoints: Methods that it may call, as `StreamGenerate`; empty means all.
        safety_profiles: Safety profiles that it may ask for; empty means all.
        client_id: What an anonymous caller is told apart by: an id that it sends, or its address.
        issuer: Who else vouches for the caller, by a token; empty where it is Millrace itself.
    """

    principal: str = ANONYMOUS
    tenant: str = DEFAULT_TENANT
    role: Role = "anonymous"
    key_id: str = ""
    key_name: str = ""
    tier: str = ""
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    safety_profiles: tuple[str, ...] = ()
    client_id: str = ""
    issuer: str = ""

    @property
    def is_trusted(self) -> bool:
        """Whether it may act for others: name another tenant or principal, and ask for priority."""
        return self.role in ("admin", "service")


NOBODY = Caller()


@dataclass(frozen=True, slots=True)
class CallContext:
    """The identity and the deadline of one call.

    Attributes:
        request_id: One id from the first hop to the last.
        tenant: Whose data and quotas are meant.
        principal: Who acts within the tenant.
        deadline: Instant of `time.monotonic` at which the call ends; None means never.
        caller: Who calls, where this service finds that out; it has the tenant and the principal then.
    """

    request_id: str
    tenant: str = DEFAULT_TENANT
    principal: str = ANONYMOUS
    deadline: float | None = None
    caller: Caller = NOBODY

    def remaining_s(self, default: float) -> float:
        """Returns the seconds left, at least 0, or `default` where the call has no deadline."""
        return default if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: ContextVar[CallContext | None] = ContextVar("millrace_call", default=None)


def current() -> CallContext:
    """Returns the context of the call being served; outside of any call, a fresh anonymous one."""
    return _current.get() or CallContext(new_request_id())


def active() -> CallContext | None:
    """Returns the context of the call being served, or None outside of any."""
    return _current.get()


def remaining_s(default: float) -> float:
    """Returns the seconds left to the current call, at least 0, or `default` where nothing limits it."""
    context = _current.get()
    return default if context is None else context.remaining_s(default)


def at_most_s(limit: float) -> float:
    """Returns how long a step that may take `limit` seconds may take within the current call."""
    return min(limit, remaining_s(limit))


def enter(context: CallContext) -> None:
    """Makes a context current for the rest of this task; for tasks that serve exactly one call."""
    _current.set(context)


@contextmanager
def use(context: CallContext) -> Iterator[CallContext]:
    """Makes a context current for a block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


@contextmanager
def outlive() -> Iterator[CallContext]:
    """Keeps the identity and drops the deadline: for work that must finish though its caller has gone."""
    with use(replace(current(), deadline=None)) as context:
        yield context


def new_request_id() -> str:
    """Returns an id that nobody can guess."""
    return secrets.token_hex(16)


def sane_request_id(text: str | None) -> str:
    """Returns the given request id, or a new one where it is missing or not fit for a header and a log line."""
    return text if text and _REQUEST_ID.fullmatch(text) else new_request_id()


def from_metadata(metadata: Iterable[tuple[str, str | bytes]], remaining_s: float | None = None) -> CallContext:
    """Reads the context of an incoming call.

    Raises:
        InvalidArgument: A tenant or principal that is no name; a default in its place would mix two tenants' data.
    """
    found = dict(metadata)
    return CallContext(
        sane_request_id(_text(found.get(REQUEST_ID_KEY))),
        _name(found, TENANT_KEY, DEFAULT_TENANT),
        _name(found, PRINCIPAL_KEY, ANONYMOUS),
        None if remaining_s is None else time.monotonic() + remaining_s,
    )


def to_metadata(context: CallContext) -> list[tuple[str, str]]:
    """Returns the metadata that carries a context to the next service; what is not said there is the default."""
    metadata = [(REQUEST_ID_KEY, context.request_id)]
    if context.tenant != DEFAULT_TENANT:
        metadata.append((TENANT_KEY, context.tenant))
    if context.principal != ANONYMOUS:
        metadata.append((PRINCIPAL_KEY, context.principal))
    return metadata


def _name(found: dict[str, str | bytes], key: str, default: str) -> str:
    text = _text(found.get(key))
    if text is None:
        return default
    if not _NAME.fullmatch(text):
        raise InvalidArgument(key, "must be 1 to 256 visible ASCII characters", reason="IDENTITY_INVALID")
    return text


def _text(value: str | bytes | None) -> str | None:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value
