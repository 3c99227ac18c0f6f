"""The query of a URL: read into a struct, strictly, like a body."""

from __future__ import annotations

from typing import TypeVar
from urllib.parse import parse_qsl

import msgspec

from services.edge.body import fault_of
from services.edge.exchange import Exchange
from services.edge.fault import Fault

T = TypeVar("T")
_FIELDS_MAX = 32


def read(exchange: Exchange, model: type[T]) -> T:
    """Reads the query into a struct that forbids unknown fields; numbers come as text.

    Raises:
        Fault: 400, naming the parameter.
    """
    try:
        pairs = parse_qsl(exchange.query.decode("ascii"), True, errors="strict", max_num_fields=_FIELDS_MAX)
    except (UnicodeDecodeError, ValueError):
        raise Fault.invalid("The query of the URL cannot be read.") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise Fault.invalid("Send each parameter of the query once.")
    try:
        return msgspec.convert(given, model, strict=False)
    except msgspec.ValidationError as error:
        raise fault_of(error, model, given) from None
