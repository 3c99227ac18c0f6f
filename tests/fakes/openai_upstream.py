"""An OpenAI-compatible upstream on a real socket, told by a `Reply` per model what to say and how to fail.

It speaks HTTP by hand, because what it must be able to do no HTTP server offers: end a body in the middle, split a
character over two segments, fall silent, and notice at once that its client has gone.
"""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

DEADLINE_S = 10.0
CREATED = 1_700_000_000
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}
Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What to say, and where to go wrong; counts are of `words`.

    Attributes:
        words: The pieces of the text, one chunk each.
        calls: Tool calls as (id, name, fragments of the arguments).
        finish: Finish reason; None leaves it out.
        usage: Whether usage is told when it is asked for.
        done: Whether a stream ends with [DONE].
        cut_after: Closes the connection after so many words.
        stall_after: Says nothing more after so many words, for ever.
        gate_after: Waits for `Asked.gate` after so many words.
        fault_after: Sends `fault` in place of the word after so many.
        fault: The payload of a `data:` line, malformed or an error in-band.
        status: With `error` as envelope, for anything but 200.
        content_type: In place of the right one.
        newline: What ends a line.
        comments: Whether comment lines stand between events.
        segment_bytes: Sends in pieces of so many bytes.
        body: In place of everything else that a whole answer would be.
    """

    words: tuple[str, ...] = ("Hello", ",", " world", "!")
    reasoning: tuple[str, ...] = ()
    refusal: tuple[str, ...] = ()
    calls: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    finish: str | None = "stop"
    usage: bool = True
    done: bool = True
    cut_after: int | None = None
    stall_after: int | None = None
    gate_after: int | None = None
    fault_after: int | None = None
    fault: str = '{"error": {"message": "overloaded", "type": "server_error"}}'
    status: int = 200
    error: Body = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    newline: str = "\n"
    comments: bool = False
    segment_bytes: int | None = None
    body: bytes | None = None


@dataclass(eq=False)
class Asked:
    """A request, and what became of it."""

    path: str
    headers: dict[str, str]
    body: Body
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


class _Cut(Exception):
    """The connection was ended on purpose."""


class OpenAIUpstream:
    """The server; `replies` says what each model answers, `asked` what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.replies: dict[str, Reply] = {}
        self.asked: list[Asked] = []
        self.connection_count = 0
        self._connections: set[_Connection] = set()
        self._arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def stop(self) -> None:
        """Closes every connection and stops listening."""
        for connection in list(self._connections):
            connection.close()
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    async def next(self, number: int = 1) -> Asked:
        """The request of this number, from 1, as soon as it is there."""
        async with asyncio.timeout(DEADLINE_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.asked) >= number)
        return self.asked[number - 1]

    async def arrive(self, asked: Asked) -> None:
        """Notes a request."""
        async with self._arrived:
            self.asked.append(asked)
            self._arrived.notify_all()

    def opened(self, connection: _Connection) -> None:
        """Notes a connection."""
        self.connection_count += 1
        self._connections.add(connection)

    def closed(self, connection: _Connection) -> None:
        """Forgets a connection."""
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered by a task."""

    def __init__(self, upstream: OpenAIUpstream) -> None:
        self._upstream = upstream
        self._data = b""
        self._asked: Asked | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._upstream.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.closed(self)
        if self._asked:
            self._asked.hung_up.set()
        if self._task:
            self._task.cancel()

    def close(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, separator, rest = self._data.partition(b"\r\n\r\n")
        if not separator:
            return
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(rest) < size:
            return
        self._data = rest[size:]
        body = json.loads(rest[:size]) if size else {}
        self._asked = Asked(first.split(" ")[1], headers, body)
        self._task = asyncio.create_task(self._answer(self._asked))

    async def _answer(self, asked: Asked) -> None:
        await self._upstream.arrive(asked)
        reply = self._upstream.replies.get(asked.body.get("model", ""), Reply())
        try:
            if reply.status != 200:
                await self._whole(json.dumps({"error": reply.error}).encode(), reply)
            elif asked.path.endswith("/models"):
                await self._whole(json.dumps({"object": "list", "data": [_MODEL]}).encode(), reply)
            elif asked.path.endswith("/embeddings"):
                await self._pause(-1, asked, reply)
                await self._whole(reply.body or json.dumps(_embeddings(asked.body, reply)).encode(), reply)
            elif asked.body.get("stream"):
                await self._stream(asked, reply)
            else:
                await self._pause(0, asked, reply)
                await self._whole(reply.body or json.dumps(_completion(asked, reply)).encode(), reply)
            self._asked = None  # over: a client that hangs up now hangs up on nobody
        except _Cut:
            self._transport.close()

    async def _whole(self, body: bytes, reply: Reply) -> None:
        await self._head(reply, "application/json", f"content-length: {len(body)}")
        await self._send(body[: len(body) // 2] if reply.cut_after is not None else body, reply)
        if reply.cut_after is not None:
            raise _Cut

    async def _stream(self, asked: Asked, reply: Reply) -> None:
        await self._pause(-1, asked, reply)
        await self._head(reply, "text/event-stream", "transfer-encoding: chunked")
        for number, payload in _payloads(asked, reply):
            await self._pause(number, asked, reply)
            lines = [": keep-alive", "", f"data: {payload}"] if reply.comments else [f"data: {payload}"]
            event = "".join(line + reply.newline for line in [*lines, ""]).encode()
            await self._send(b"%x\r\n%b\r\n" % (len(event), event), reply)
        self._transport.write(b"0\r\n\r\n")

    async def _pause(self, number: int, asked: Asked, reply: Reply) -> None:
        """Does before a word what the reply says: goes away, falls silent, or waits to be let on."""
        if reply.cut_after == number:
            raise _Cut
        if reply.stall_after == number:
            asked.began.set()
            await asyncio.Event().wait()
        if reply.gate_after == number:
            asked.began.set()
            await asked.gate.wait()

    async def _head(self, reply: Reply, content_type: str, framing: str) -> None:
        lines = [
            f"HTTP/1.1 {reply.status} {REASONS.get(reply.status, 'Status')}",
            f"content-type: {reply.content_type or content_type}",
            framing,
            *(f"{name}: {value}" for name, value in reply.headers.items()),
        ]
        self._transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def _send(self, data: bytes, reply: Reply) -> None:
        size = reply.segment_bytes or len(data)
        for start in range(0, len(data), size):
            self._transport.write(data[start : start + size])
            await asyncio.sleep(0)  # lets the loop write, so that a word is a segment


def _payloads(asked: Asked, reply: Reply) -> Iterator[tuple[int, str]]:
    """The payloads of a stream, each with the number of words before it."""
    count, n = 0, asked.body.get("n", 1)
    for index in range(n):
        for delta in _deltas(asked, reply):
            if count == reply.fault_after:
                yield count, reply.fault
            yield count, _chunk(asked, [{"index": index, "finish_reason": None, **delta}])
            count += 1
    for index in range(n) if reply.finish else ():
        empty: Body = {"text": ""} if _is_legacy(asked) else {"delta": {}}
        yield count, _chunk(asked, [{"index": index, "finish_reason": reply.finish, "logprobs": None, **empty}])
    if reply.usage and (asked.body.get("stream_options") or {}).get("include_usage"):
        yield count, _chunk(asked, [], _usage(count))
    if reply.done:
        yield count, "[DONE]"


def _deltas(asked: Asked, reply: Reply) -> Iterator[Body]:
    if _is_legacy(asked):
        yield from ({"text": word, "logprobs": None} for word in reply.words)
        return
    for kind, texts in (("reasoning_content", reply.reasoning), ("refusal", reply.refusal)):
        yield from ({"delta": {kind: text}} for text in texts)
    for position, word in enumerate(() if reply.calls else reply.words):
        role = {"role": "assistant"} if position == 0 else {}
        yield {"delta": {**role, "content": word}, "logprobs": _logprobs([word], asked)}
    for number, (id_, name, fragments) in enumerate(reply.calls):
        head = {"index": number, "id": id_, "type": "function", "function": {"name": name, "arguments": ""}}
        yield {"delta": {"tool_calls": [head]}}
        for fragment in fragments:
            yield {"delta": {"tool_calls": [{"index": number, "function": {"arguments": fragment}}]}}


def _chunk(asked: Asked, choices: list[Body], usage: Body | None = None) -> str:
    kind = "text_completion" if _is_legacy(asked) else "chat.completion.chunk"
    return json.dumps(_envelope(asked, kind, choices) | {"usage": usage}, ensure_ascii=False)


def _completion(asked: Asked, reply: Reply) -> Body:
    choices = [_choice(index, asked, reply) for index in range(asked.body.get("n", 1))]
    kind = "text_completion" if _is_legacy(asked) else "chat.completion"
    usage = {"usage": _usage(len(reply.words) * len(choices))} if reply.usage else {}
    return _envelope(asked, kind, choices) | usage


def _choice(index: int, asked: Asked, reply: Reply) -> Body:
    choice: Body = {"index": index, "finish_reason": reply.finish, "logprobs": _logprobs(reply.words, asked)}
    if _is_legacy(asked):
        return choice | {"text": "".join(reply.words)}
    words = None if reply.calls else "".join(reply.words)
    message: Body = {"role": "assistant", "content": words, "refusal": None}
    if reply.reasoning:
        message["reasoning_content"] = "".join(reply.reasoning)
    if reply.refusal:
        message["refusal"] = "".join(reply.refusal)
    if reply.calls:
        message["tool_calls"] = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": "".join(fragments)}}
            for id_, name, fragments in reply.calls
        ]
    return choice | {"message": message}


def _envelope(asked: Asked, kind: str, choices: list[Body]) -> Body:
    return {
        "id": "cmpl-1", "object": kind, "created": CREATED, "model": f"{asked.body['model']}-0613",
        "system_fingerprint": "fp_1", "choices": choices,
    }  # fmt: skip


def _logprobs(words: tuple[str, ...] | list[str], asked: Asked) -> Body | None:
    if asked.body.get("logprobs") is not True:
        return None
    tops = [{"token": "other", "logprob": -2.0, "bytes": list(b"other")}] * min(1, asked.body.get("top_logprobs", 0))
    content = [{"token": word, "logprob": -0.25, "bytes": list(word.encode()), "top_logprobs": tops} for word in words]
    return {"content": content, "refusal": None}


def _usage(completion: int) -> Body:
    return {
        "prompt_tokens": 11, "completion_tokens": completion, "total_tokens": 11 + completion,
        "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 0},
    }  # fmt: skip


_MODEL = {"id": "any", "object": "model", "created": CREATED, "owned_by": "fake"}


def _embeddings(body: Body, reply: Reply) -> Body:
    """Each text's vector is its length, a half and minus one, cut to the wanted length; last text first."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data = []
    for index, text in reversed(list(enumerate(texts))):
        vector: Any = [float(len(text)), 0.5, -1.0][: body.get("dimensions", 3)]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"usage": {"prompt_tokens": len(texts), "total_tokens": len(texts)}} if reply.usage else {}
    return {"object": "list", "model": body["model"], "data": data, **usage}


def _is_legacy(asked: Asked) -> bool:
    return not asked.path.endswith("/chat/completions")
