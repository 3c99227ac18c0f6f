"""What upstreams say, as bytes: heads, events, whole answers, and the pieces of them that faults are made of."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

WORDS = ("Grüße", " aus", " Oslo", ".")
TEXT = "".join(WORDS)
USAGE = {"prompt_tokens": 7, "completion_tokens": len(WORDS), "total_tokens": 7 + len(WORDS)}
STREAM, JSON = "text/event-stream", "application/json"
CHUNKED = "Transfer-Encoding: chunked"
DONE = b"data: [DONE]\n\n"
LAST_PIECE = b"0\r\n\r\n"


def head(
    status: int = 200, content_type: str = STREAM, *, framing: str = "Transfer-Encoding: chunked", **more: str
) -> bytes:
    """A status line and headers; underscores in the names of further headers stand for dashes."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}", framing]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return "\r\n".join((*lines, "", "")).encode()


def whole(body: bytes, status: int = 200, content_type: str = JSON, **more: str) -> bytes:
    """An answer in one piece."""
    return head(status, content_type, framing=f"Content-Length: {len(body)}", **more) + body


def error(
    status: int, message: str = "said the upstream", *, headers: dict[str, str] | None = None, **more: Any
) -> bytes:
    """An error as a status with OpenAI's envelope."""
    return whole(json.dumps({"error": {"message": message, **more}}).encode(), status, **(headers or {}))


def piece(data: bytes) -> bytes:
    """A piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(payload: dict[str, Any] | str | bytes) -> bytes:
    """A server-sent event."""
    data = json.dumps(payload, ensure_ascii=False) if isinstance(payload, dict) else payload
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else data.encode())


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """An event that holds a chunk of one choice."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "model": "m", "choices": [choice], **more})


def words(count: int | None = None) -> list[bytes]:
    """The first events of the answer, one a word."""
    return [chunk({"content": word}) for word in WORDS[:count]]


def usage(**counts: int) -> bytes:
    """The event that holds the usage."""
    return event({"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": counts or USAGE})


def end() -> list[bytes]:
    """The last events of the answer."""
    return [chunk(finish="stop"), usage(), DONE]


def stream(events: Iterable[bytes], **more: str) -> list[bytes]:
    """A chunked stream that is complete as HTTP, whatever its events say: a step for the head and for each event."""
    return [head(200, STREAM, **more), *(piece(one) for one in events), LAST_PIECE]


def good() -> list[bytes]:
    """A stream as it should be."""
    return stream([chunk({"role": "assistant", "content": ""}), *words(), *end()])


def completion(finish_reason: str | None = "stop", usage: Mapping[str, int] | None = USAGE) -> bytes:
    """A whole answer as it should be, or with something left out."""
    message = {"role": "assistant", "content": TEXT}
    choices = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    return whole(json.dumps({"object": "chat.completion", "model": "m", "choices": choices, "usage": usage}).encode())
