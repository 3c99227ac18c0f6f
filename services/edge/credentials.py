"""What a request shows of its caller, handed to inference, which alone decides what it is worth.

The edge keeps no key and knows none. It only refuses what cannot or must not be handed on: a key in a URL, which stands
in the logs of every proxy and in histories, and headers that no metadata can carry.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from kit.identity import CLIENT_ID_KEY
from services.edge.exchange import Exchange
from services.edge.fault import CHALLENGE, Fault

_KINDS = {b"authorization": "authorization", b"x-api-key": "x-api-key"}
_BYTES_MAX = 4_096  # as inference has it; a token with many scopes has less
_CLIENT_ID = b"x-client-id"
_CLIENT_ID_FORM = re.compile(rb"[\x21-\x7e]{1,128}")
_VISIBLE = re.compile(rb"[\x20-\x7e]*")
_KEY = re.compile(r"mr_[\w-]{40}|eyJ[\w-]+\.eyJ")
_NAMED = re.compile(r"(?i)(?:^|&)(?:api[_-]?key|x-api-key|access[_-]?token|authorization|auth)=")


def metadata_of(exchange: Exchange) -> list[tuple[str, str]]:
    """Returns the metadata that says whose a request is: its credentials as they came, and the client's id.

    The id is always there: it tells inference that a call is not the edge's own.

    Raises:
        Fault: A credential or the id is not fit for a header.
    """
    given = exchange.headers.get(_CLIENT_ID)
    if given is None:
        metadata = address_of(exchange)
    elif _CLIENT_ID_FORM.fullmatch(given):
        metadata = [(CLIENT_ID_KEY, given.decode())]
    else:
        raise Fault.invalid("Expected 1 to 128 visible ASCII characters.", "X-Client-Id")
    if b"authorization" in exchange.headers or b"x-api-key" in exchange.headers:
        metadata += [(_KINDS[name], _checked(value)) for name, value in exchange.raw_headers if name in _KINDS]
    return metadata


def address_of(exchange: Exchange) -> list[tuple[str, str]]:
    """Returns metadata that names the client by its address alone, which it cannot choose."""
    return [(CLIENT_ID_KEY, exchange.address or "unknown")]


def refuse_in_url(exchange: Exchange) -> None:
    """Refuses a request whose URL holds a key.

    Raises:
        Fault: 400 `key_in_url`.
    """
    query = unquote(exchange.query.decode("latin-1")) if exchange.query else ""
    if _KEY.search(exchange.path) or (query and (_NAMED.search(query) or _KEY.search(query))):
        message = "Send keys in a header, never in a URL; if this one is real, revoke it: proxies may have logged it."
        raise Fault(400, message, code="key_in_url")


def _checked(value: bytes) -> str:
    if len(value) > _BYTES_MAX:
        raise Fault(431, f"A credential has at most {_BYTES_MAX} bytes.", code="header_too_large")
    if not _VISIBLE.fullmatch(value):
        message = "A credential has only visible ASCII characters."
        raise Fault(401, message, code="invalid_api_key", headers=(CHALLENGE,))
    return value.decode()
