"""Noting, as a request begins, which trace is its own and whose it is: its spans come in only when they have ended."""

from __future__ import annotations

import time

from kit.spans import Span
from services.edge.exchange import Exchange
from services.edge.traces.owners import Owners
from services.edge.traces.store import Request, Root, TraceStore


class TraceNotes:
    """Tells a store of requests.

    Args:
        store: Is told.
        owners: Tell whose they are.
    """

    def __init__(self, store: TraceStore, owners: Owners) -> None:
        self._store, self._owners = store, owners

    def begin(self, exchange: Exchange, span: Span, is_joined: bool) -> None:
        """Notes a request, whose own span has just begun."""
        name = f"{exchange.method} {exchange.path}"
        root = Root(bytes.fromhex(span.span_hex), name, time.time_ns(), is_joined)
        request = Request(bytes.fromhex(span.trace_hex), self._owners.of(exchange), root)
        self._store.begin(exchange.request_id, request)
