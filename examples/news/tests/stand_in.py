"""A stand-in of Millrace for tests of its callers: the generated servicer with answers that a test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from millrace.inference.v1 import event_pb2, generation_pb2, inference_service_pb2, inference_service_pb2_grpc


@dataclass(frozen=True)
class Refusal:
    """How a call fails."""

    code: grpc.StatusCode
    reason: str
    message: str = "no"
    retry_after_s: int | None = None


@dataclass
class Millrace(inference_service_pb2_grpc.InferenceServiceServicer):
    """Answers Generate, and remembers what it was asked.

    Attributes:
        text: What it writes.
        model: Who writes.
        refusals: How the next calls that may ask a model fail; then they succeed.
        keeps: Whether it has a cache.
        hold: Calls wait until this is set, where there is one.
        asked: Set when a call has come.
        cancelled: Set when a caller has left.
    """

    text: str = "All is well."
    model: str = "pen"
    refusals: list[Refusal] = field(default_factory=list)
    keeps: bool = True
    hold: asyncio.Event | None = None
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    requests: list[inference_service_pb2.GenerateRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    deadlines_s: list[float] = field(default_factory=list)
    kept: dict[bytes, str] = field(default_factory=dict)

    async def Generate(self, request: Any, context: Any) -> Any:
        """Answers from what it has kept, or writes, as the cache policy says."""
        self.requests.append(request)
        self.asked.set()
        self.metadata.append(dict(context.invocation_metadata()))
        self.deadlines_s.append(context.time_remaining())
        try:
            if self.hold is not None:
                await self.hold.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        key = b"".join(message.SerializeToString() for message in request.spec.conversation.messages)
        only_kept = request.spec.cache.mode == generation_pb2.CACHE_MODE_ONLY_IF_CACHED
        if only_kept and key not in self.kept:
            await _abort(context, Refusal(grpc.StatusCode.NOT_FOUND, "NOT_CACHED"))
        if not only_kept and self.refusals:
            await _abort(context, self.refusals.pop(0))
        if only_kept:
            return self._answer(request, self.kept[key], event_pb2.CACHE_OUTCOME_EXACT, 60)
        if self.keeps:
            self.kept[key] = self.text
        return self._answer(request, self.text, event_pb2.CACHE_OUTCOME_MISS, 0)

    def written(self) -> int:
        """Calls that a model had to answer, or would have."""
        return sum(one.spec.cache.mode == generation_pb2.CACHE_MODE_READ_WRITE for one in self.requests)

    def _answer(self, request: Any, text: str, outcome: Any, age_s: int) -> Any:
        cache = event_pb2.CacheEvent(outcome=outcome, age=Duration(seconds=age_s))
        choice = event_pb2.Choice(text=text, finish_reason=event_pb2.FINISH_REASON_STOP)
        generation = event_pb2.Generation(
            request_id=request.request_id, model=self.model, choices=[choice], receipt=event_pb2.Receipt(cache=cache)
        )
        return inference_service_pb2.GenerateResponse(generation=generation)


@asynccontextmanager
async def serving(millrace: Millrace) -> AsyncIterator[str]:
    """Serves on a free port, and yields the target."""
    server = grpc.aio.server()
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(millrace, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def _abort(context: Any, refusal: Refusal) -> None:
    """Fails as Millrace does: one ErrorInfo, and a RetryInfo where it helps."""
    status = status_pb2.Status(code=refusal.code.value[0], message=refusal.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=refusal.reason, domain="millrace"))
    if refusal.retry_after_s is not None:
        delay = Duration(seconds=refusal.retry_after_s)
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    await context.abort_with_status(rpc_status.to_status(status))
