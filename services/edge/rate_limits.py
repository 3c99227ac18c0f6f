"""Response headers that say where the caller's limits stand, on answers and on errors; nothing where there are none.

`X-RateLimit-*` tells of requests, as most clients read it; `x-ratelimit-*-requests` and `-tokens` are OpenAI's. Of
several limits of a kind, the one with the least left is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from millrace.inference.v1 import event_pb2 as pb
from services.edge.exchange import Exchange

_KINDS = {pb.LIMIT_UNIT_REQUESTS: b"requests", pb.LIMIT_UNIT_TOKENS: b"tokens"}
HEADERS = {
    "x-ratelimit-limit": "Most requests that the caller can make in one go, where it is limited.",
    "x-ratelimit-remaining": "How many of them are left.",
    "x-ratelimit-reset": "Seconds until all of them are back.",
    "x-ratelimit-limit-requests": "The same as `x-ratelimit-limit`.",
    "x-ratelimit-remaining-requests": "The same as `x-ratelimit-remaining`.",
    "x-ratelimit-reset-requests": "Time until all of them are back, as `1m30s`.",
    "x-ratelimit-limit-tokens": "Most tokens that the caller can use in one go, where they are limited.",
    "x-ratelimit-remaining-tokens": "How many of them are left, with all that this request may use taken off.",
    "x-ratelimit-reset-tokens": "Time until all of them are back, as `1m30s`.",
}


def set_limits(exchange: Exchange, limits: Iterable[pb.LimitState]) -> None:
    """Sets the headers of the limits, where there are any."""
    least: dict[int, pb.LimitState] = {}
    for one in limits:
        known = least.get(one.unit)
        if one.window != pb.LIMIT_WINDOW_AT_ONCE and (known is None or _rank(one) < _rank(known)):
            least[one.unit] = one
    for unit, kind in _KINDS.items():
        if (state := least.get(unit)) is not None:
            exchange.set_header(b"x-ratelimit-limit-" + kind, b"%d" % state.limit)
            exchange.set_header(b"x-ratelimit-remaining-" + kind, b"%d" % state.remaining)
            exchange.set_header(b"x-ratelimit-reset-" + kind, _go_duration(state.reset))
    if (state := least.get(pb.LIMIT_UNIT_REQUESTS)) is not None:
        exchange.set_header(b"x-ratelimit-limit", b"%d" % state.limit)
        exchange.set_header(b"x-ratelimit-remaining", b"%d" % state.remaining)
        exchange.set_header(b"x-ratelimit-reset", b"%d" % math.ceil(state.reset.seconds + state.reset.nanos / 1e9))


def _rank(state: pb.LimitState) -> tuple[bool, float]:
    """What is told first: a limit by the minute, as OpenAI's headers mean it, and of those the one nearest its end."""
    return state.window != pb.LIMIT_WINDOW_MINUTE, state.remaining / max(1, state.limit)


def _go_duration(span: Duration) -> bytes:
    """A span of time as OpenAI writes it: `350ms`, `8.64s`, `1m30s`, `2h0m0s`."""
    ms = span.seconds * 1000 + span.nanos // 1_000_000
    if ms < 1000:
        return b"%dms" % ms
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = (b"%.3f" % (ms / 1000)).rstrip(b"0").rstrip(b".")
    if hours:
        return b"%dh%dm%ss" % (hours, minutes, seconds)
    return b"%dm%ss" % (minutes, seconds) if minutes else seconds + b"s"
