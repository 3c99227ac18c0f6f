"""The four ways to ask for an answer: over the edge and over gRPC, streamed and whole.

They believe nothing that the wire did not say: an answer is finished only by its own terminal event. They never retry.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import grpc

from kit.dial import dial
from kit.status import from_rpc_error
from millrace.inference.v1 import generation_pb2 as generation
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1.event_pb2 import FINISH_REASON_STOP
from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

if TYPE_CHECKING:  # Exists for type checkers only.
    from millrace.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

FULL_NAME = "millrace.inference.v1.InferenceService"
MODEL = "bench"


@dataclass(slots=True, eq=False)
class Heard:
    """What a caller has heard of one answer.

    Attributes:
        text: The answer so far.
        begun: Set with the first piece of it.
        finished: Whether it ended as a complete answer does.
        error: The reason of a failure that was told as one; empty where none was.
        retry_after_s: When to come back, where that was told.
        broken: What went wrong without being told: a connection that ended, an answer that makes no sense.
    """

    text: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    finished: bool = False
    error: str = ""
    retry_after_s: float | None = None
    broken: str = ""

    def add(self, text: str) -> None:
        """Hears a piece."""
        self.text += text
        if text:
            self.begun.set()


class Caller(Protocol):
    """Asks and listens; a cancelled `ask` hangs up."""

    name: str
    streamed: bool

    async def ask(self, question: str, heard: Heard, timeout_s: float, priority: int = 0) -> None:
        """Asks, and writes into `heard` what comes; over the edge there are no priorities."""
        ...


class EdgeCaller:
    """Speaks OpenAI's protocol."""

    def __init__(self, session: aiohttp.ClientSession, url: str, streamed: bool, model: str = MODEL) -> None:
        self.name = "edge, streamed" if streamed else "edge, whole"
        self.streamed, self._model = streamed, model
        self._session, self._url = session, f"{url}/v1/chat/completions"

    async def ask(self, question: str, heard: Heard, timeout_s: float, priority: int = 0) -> None:
        """See `Caller.ask`."""
        messages = [{"role": "user", "content": question}]
        body = {"model": self._model, "messages": messages, "stream": self.streamed}
        headers = {"X-Request-Timeout-Ms": str(int(timeout_s * 1000))}
        try:
            async with self._session.post(self._url, json=body, headers=headers) as answer:
                if answer.status != 200:
                    _refused(heard, answer, json.loads(await answer.read()))
                elif self.streamed:
                    await _read_stream(answer, heard)
                else:
                    choice = json.loads(await answer.read())["choices"][0]
                    heard.add(choice["message"]["content"])
                    heard.finished = choice["finish_reason"] == "stop"
        except (aiohttp.ClientError, ValueError, KeyError) as error:
            heard.broken = repr(error)


class GrpcCaller:
    """Calls the inference service itself."""

    def __init__(self, stub: InferenceServiceAsyncStub, streamed: bool, model: str = MODEL) -> None:
        self.name = "gRPC, streamed" if streamed else "gRPC, whole"
        self.streamed, self._model = streamed, model
        self._stub = stub

    async def ask(self, question: str, heard: Heard, timeout_s: float, priority: int = 0) -> None:
        """See `Caller.ask`."""
        parts = [generation.ContentPart(text=question)]
        messages = [generation.Message(role=generation.ROLE_USER, parts=parts)]
        conversation = generation.Conversation(messages=messages)
        routing = generation.RoutingPolicy(priority=priority)
        spec = generation.GenerationSpec(model=self._model, conversation=conversation, routing=routing)
        try:
            await (self._stream if self.streamed else self._whole)(spec, heard, timeout_s)
        except grpc.aio.AioRpcError as failed:
            error = from_rpc_error(failed)
            heard.error = error.reason
            heard.retry_after_s = None if error.retry_after_ms is None else error.retry_after_ms / 1000

    async def _whole(self, spec: generation.GenerationSpec, heard: Heard, timeout_s: float) -> None:
        answer = await self._stub.Generate(pb.GenerateRequest(spec=spec), timeout=timeout_s)
        choice = answer.generation.choices[0]
        heard.add(choice.text)
        heard.finished = choice.finish_reason == FINISH_REASON_STOP

    async def _stream(self, spec: generation.GenerationSpec, heard: Heard, timeout_s: float) -> None:
        call = self._stub.StreamGenerate(pb.StreamGenerateRequest(spec=spec), timeout=timeout_s)
        stopped = completed = False
        try:
            async for response in call:
                if response.HasField("delta"):
                    heard.add(response.delta.text)
                elif response.HasField("choice_finished"):
                    stopped = response.choice_finished.finish_reason == FINISH_REASON_STOP
                completed = response.HasField("completed")
            heard.finished = stopped and completed
        finally:
            call.cancel()


async def _read_stream(answer: aiohttp.ClientResponse, heard: Heard) -> None:
    """Reads server-sent events up to the last; an error object before the end is one that was told."""
    stopped = False
    async for line in answer.content:
        payload = line.removeprefix(b"data: ").strip()
        if payload == b"[DONE]":
            heard.finished = stopped
        elif line.startswith(b"data: "):
            event = json.loads(payload)
            if "error" in event:
                heard.error = event["error"]["code"].upper()
                return
            for choice in event["choices"]:
                heard.add(choice["delta"].get("content") or "")
                stopped = stopped or choice["finish_reason"] == "stop"


def _refused(heard: Heard, answer: aiohttp.ClientResponse, body: Any) -> None:
    heard.error = str(body["error"]["code"]).upper()
    if after_s := answer.headers.get("retry-after"):
        heard.retry_after_s = float(after_s)


@asynccontextmanager
async def callers(url: str, inference: str) -> AsyncIterator[list[Caller]]:
    """All four, sharing a pool of connections and a channel.

    Args:
        url: The edge.
        inference: Address of the inference service.
    """
    pool = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    channel = dial(inference, service=FULL_NAME)
    async with channel, aiohttp.ClientSession(connector=pool, timeout=timeout, read_bufsize=2**20) as session:
        stub: InferenceServiceAsyncStub = InferenceServiceStub(channel)
        yield [
            *(EdgeCaller(session, url, streamed) for streamed in (True, False)),
            *(GrpcCaller(stub, streamed) for streamed in (True, False)),
        ]
