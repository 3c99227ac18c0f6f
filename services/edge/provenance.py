"""Response headers that say where an answer came from: model, target, cache."""

from __future__ import annotations

from urllib.parse import quote

from millrace.inference.v1 import event_pb2 as pb
from services.edge.exchange import Exchange

CACHE_OUTCOMES = {
    pb.CACHE_OUTCOME_EXACT: b"exact",
    pb.CACHE_OUTCOME_SEMANTIC: b"semantic",
    pb.CACHE_OUTCOME_STALE: b"stale",
    pb.CACHE_OUTCOME_MISS: b"miss",
    pb.CACHE_OUTCOME_BYPASS: b"bypass",
    pb.CACHE_OUTCOME_UNAVAILABLE: b"unavailable",
}
HITS = (pb.CACHE_OUTCOME_EXACT, pb.CACHE_OUTCOME_SEMANTIC, pb.CACHE_OUTCOME_STALE)


def set_all(exchange: Exchange, answer: pb.Generation) -> None:
    """Sets the headers of a complete answer."""
    set_model(exchange, answer.model)
    set_target(exchange, answer.receipt.target)
    set_cache(exchange, answer.receipt.cache.outcome)


def set_model(exchange: Exchange, model: str) -> None:
    """Sets the public name of the model that answers."""
    exchange.model = model
    _set(exchange, b"x-millrace-model", model)


def set_target(exchange: Exchange, target: str) -> None:
    """Sets the target that answers, or was tried last so far; a cache hit has none."""
    if target:
        _set(exchange, b"x-millrace-target", target)


def set_cache(exchange: Exchange, outcome: pb.CacheOutcome) -> None:
    """Sets how the cache took part, where it is known."""
    if word := CACHE_OUTCOMES.get(outcome):
        exchange.set_header(b"x-millrace-cache", word)


def is_hit(answer: pb.Generation) -> bool:
    """Whether the answer came from the cache."""
    return answer.receipt.cache.outcome in HITS


def _set(exchange: Exchange, name: bytes, value: str) -> None:
    """Sets a header to a name; header values are visible ASCII, so anything else is percent-encoded."""
    if not (value.isascii() and value.isprintable()):
        value = quote(value)
    exchange.set_header(name, value.encode())
