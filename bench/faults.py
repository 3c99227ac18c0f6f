"""What can go wrong at an upstream, each a script for one request; the wall in tests/faults has every kind by itself.

BEFORE are faults before the first token, AFTER those after some tokens: a caller who reads along has heard a part of
the answer then, so that no other target may take over. AROUND leaves the answer whole and harms the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bench.upstream import Exchange

Fault = Callable[[Exchange, list[str]], Awaitable[None]]
ERROR = '{"error": {"message": "overloaded", "type": "server_error", "param": null, "code": null}}'
RETRY_AFTER = "retry-after-ms: 5"  # short, so that most requests still meet the target and its faults


def _status(status: int, *headers: str) -> Fault:
    async def fault(exchange: Exchange, pieces: list[str]) -> None:
        exchange.whole(status, "application/json", ERROR.encode(), *headers)

    return fault


async def _closed(exchange: Exchange, pieces: list[str]) -> None:
    exchange.cut()


async def _reset(exchange: Exchange, pieces: list[str]) -> None:
    exchange.reset()


async def _cut_after_headers(exchange: Exchange, pieces: list[str]) -> None:
    exchange.head()
    exchange.cut()


async def _html(exchange: Exchange, pieces: list[str]) -> None:
    exchange.whole(200, "text/html", b"<html>Bad gateway</html>")


async def _empty(exchange: Exchange, pieces: list[str]) -> None:
    exchange.head()
    exchange.end()


async def _malformed(exchange: Exchange, pieces: list[str]) -> None:
    exchange.head()
    exchange.data('{"choices": [{"index": 0, "delta": {"content": "')
    exchange.done()


async def _error(exchange: Exchange, pieces: list[str]) -> None:
    exchange.head()
    exchange.data(ERROR)
    exchange.end()


async def _silent(exchange: Exchange, pieces: list[str]) -> None:
    await exchange.hung_up


async def _silent_after_headers(exchange: Exchange, pieces: list[str]) -> None:
    exchange.head()
    await exchange.hung_up


def _later(fault: Fault) -> Fault:
    """Sends a part of the answer first, and lets it arrive."""

    async def later(exchange: Exchange, pieces: list[str]) -> None:
        exchange.head()
        for piece in pieces[: len(pieces) // 2]:
            exchange.token(piece)
        await asyncio.sleep(0.005)
        await fault(exchange, pieces)

    return later


async def _end(exchange: Exchange, pieces: list[str]) -> None:
    exchange.end()


async def _garbage(exchange: Exchange, pieces: list[str]) -> None:
    exchange.data('{"choices": [{"index": 0, "delta": {"content": "')
    exchange.done()


async def _in_band(exchange: Exchange, pieces: list[str]) -> None:
    exchange.data(ERROR)
    exchange.done()


async def _no_done(exchange: Exchange, pieces: list[str]) -> None:
    for piece in pieces[len(pieces) // 2 :]:
        exchange.token(piece)
    exchange.finish(len(pieces))
    exchange.end()


async def _no_finish(exchange: Exchange, pieces: list[str]) -> None:
    for piece in pieces[len(pieces) // 2 :]:
        exchange.token(piece)
    exchange.done()


async def _unasked(exchange: Exchange, pieces: list[str]) -> None:
    """Answers well, and in the same breath once more: the next request must not take that for its own.

    What comes later, while the next request is on its way, no HTTP client can tell from the answer.
    """
    with exchange.together():
        exchange.answer(pieces)
        exchange.answer(["nobody asked for this"])


BEFORE: dict[str, Fault] = {
    "status 429": _status(429, RETRY_AFTER),
    "status 500": _status(500),
    "status 502": _status(502),
    "status 503": _status(503),
    "closed before headers": _closed,
    "reset before headers": _reset,
    "cut after headers": _cut_after_headers,
    "HTML with 200": _html,
    "empty stream": _empty,
    "malformed JSON": _malformed,
    "error in-band": _error,
    "silent": _silent,
    "silent after headers": _silent_after_headers,
}
AFTER: dict[str, Fault] = {
    "closed mid-stream": _later(_closed),
    "reset mid-stream": _later(_reset),
    "ended mid-stream": _later(_end),
    "silent mid-stream": _later(_silent),
    "malformed mid-stream": _later(_garbage),
    "error mid-stream": _later(_in_band),
    "no [DONE]": _later(_no_done),
    "no finish reason": _later(_no_finish),
}
AROUND: dict[str, Fault] = {"answer nobody asked for": _unasked}
EVERY = BEFORE | AFTER | AROUND
