"""A service of bytes with one method per kind of RPC, whose requests say how to behave.

Requests: `ok` answers once per unary method and three times per stream; `not_found` raises; `bug` raises what nobody
expected; `group` raises inside a task group; `trailers` sets trailing metadata and raises; `wait` answers a stream once
and then waits for `release` or its end; `flood` sends until it is stopped; `who` tells the call's identity as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from kit import identity
from kit.errors import NotFound
from kit.serve import Registration

NAME = "test.echo.v1.EchoService"
KINDS = ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream", "Written")
SECRET = "/var/lib/echo/whatever-the-cause-says"
TRAILERS = (("x-text", "a"), ("x-bytes-bin", b"\xff\x00"))


class EchoService:
    """The servicer; its events tell tests what happened on the server's side."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cleaned = asyncio.Event()
        self.contexts: list[identity.CallContext] = []

    @property
    def registration(self) -> Registration:
        """How a server adds it."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "UnaryUnary": unary(self.unary_unary),
            "UnaryStream": stream(self.unary_stream),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self.stream_unary),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self.stream_stream),
            "Written": stream(self.written),
        }
        handler = grpc.method_handlers_generic_handler(NAME, handlers)
        return Registration(NAME, lambda _, server: server.add_generic_rpc_handlers((handler,)), self)

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        """Answers once."""
        _set_trailers(request, context)
        return await anext(self._answers(request, 1))

    async def unary_stream(self, request: bytes, context: Any) -> AsyncGenerator[bytes, None]:
        """Yields the answers."""
        _set_trailers(request, context)
        # A generator does not close another that it iterates over: whoever starts one closes it.
        async with aclosing(self._answers(request, 3)) as answers:
            async for message in answers:
                yield message

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Answers the last request once."""
        request = [request async for request in requests][-1]
        return await anext(self._answers(request, 1))

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncGenerator[bytes, None]:
        """Yields the answers to each request."""
        async for request in requests:
            async with aclosing(self._answers(request, 3)) as answers:
                async for message in answers:
                    yield message

    async def written(self, request: bytes, context: Any) -> None:
        """Writes the answers in place of yielding them."""
        async with aclosing(self._answers(request, 3)) as answers:
            async for message in answers:
                await context.write(message)

    async def _answers(self, request: bytes, count: int) -> AsyncGenerator[bytes, None]:
        self.contexts.append(identity.current())
        self.started.set()
        try:
            await _raise(request)
            if request == b"wait":
                if count > 1:
                    yield b"waiting"
                await self.release.wait()
            while request == b"flood":
                yield b"x" * 65536
            for _ in range(count):
                yield _who() if request == b"who" else request
        finally:
            self.cleaned.set()


def _set_trailers(request: bytes, context: Any) -> None:
    if request == b"trailers":
        context.set_trailing_metadata(TRAILERS)


async def _raise(request: bytes) -> None:
    if request in (b"not_found", b"trailers"):
        raise NotFound("ECHO_GONE", "there is no such echo", metadata={"echo": "x"})
    if request == b"bug":
        raise ValueError(SECRET)
    if request == b"group":
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_raise(b"not_found"))


def _who() -> bytes:
    context = identity.current()
    return json.dumps(
        {
            "request_id": context.request_id,
            "tenant": context.tenant,
            "principal": context.principal,
            "left_s": context.remaining_s(-1),
        }
    ).encode()


def start(channel: grpc.aio.Channel, kind: str, request: bytes, **options: Any) -> Any:
    """Starts a call of a kind and returns grpc's call object."""
    calls = {
        "UnaryUnary": channel.unary_unary,
        "UnaryStream": channel.unary_stream,
        "StreamUnary": channel.stream_unary,
        "StreamStream": channel.stream_stream,
        "Written": channel.unary_stream,
    }[kind](f"/{NAME}/{kind}")

    async def requests() -> AsyncIterator[bytes]:
        yield request

    return calls(requests() if kind.startswith("Stream") else request, **options)


async def collect(call: Any) -> list[bytes]:
    """Returns the answers of a call of any kind."""
    if isinstance(call, grpc.aio.UnaryUnaryCall | grpc.aio.StreamUnaryCall):
        return [await call]
    return [message async for message in call]


async def call_for_ever(channel: grpc.aio.Channel) -> None:
    """Calls until a call fails: how a client meets a server that goes away."""
    while True:
        await collect(start(channel, "UnaryUnary", b"ok"))
