"""Relays a generation's events as server-sent events.

The answer's status is held back until the first visible event or heartbeat, so that what fails before it is a proper
HTTP error. Every OK stream ends with `completed`, or it is not OK. Where the server goes away before the client was
told anything, another one is asked, once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from kit.errors import Unavailable
from millrace.inference.v1 import event_pb2, generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.inference_client import EventStream, InferenceClient, asked_again
from services.edge.provenance import set_step


class Frames(Protocol):
    """Turns events into the bytes that a client gets."""

    def open(self, started: event_pb2.Started) -> None:
        """Takes what later frames need, and begins anew; always first."""

    def delta(self, delta: event_pb2.Delta) -> bytes:
        """A choice grew; may be nothing to say."""

    def finished(self, finished: event_pb2.ChoiceFinished) -> bytes:
        """A choice ended; may be nothing to say."""

    def judged(self, judged: event_pb2.SafetyEvent) -> bytes:
        """Safety has something to say; may be nothing to tell as yet."""

    def completed(self, completed: event_pb2.Completed) -> bytes:
        """The answer is complete."""

    def failed(self, fault: Fault) -> bytes:
        """The answer broke."""


async def relay(
    exchange: Exchange, inference: InferenceClient, spec: generation_pb2.GenerationSpec, frames: Frames
) -> None:
    """Answers a request with a streamed generation.

    Raises:
        MillraceError: Inference failed, or ended without `completed`; the answer may have begun.
    """
    exchange.expect_stream(frames.failed)
    relayed = _Relayed(exchange, frames)
    last = await asked_again(lambda: relayed.run(inference.stream(exchange, spec)), lambda: not relayed.is_told)
    await exchange.end_stream(last)


class _Relayed:
    """One generation on its way to the client.

    Attributes:
        is_told: A piece of the answer was made, and mostly sent; comments that keep a stream alive are none.
    """

    __slots__ = ("_exchange", "_frames", "is_told")

    def __init__(self, exchange: Exchange, frames: Frames) -> None:
        self._exchange, self._frames, self.is_told = exchange, frames, False

    async def run(self, stream: EventStream) -> bytes:
        """Relays all events but the last, whose frame is returned once the call has ended well."""
        async with stream as events:
            return await self._relay(events)

    async def _relay(self, events: AsyncIterator[pb.StreamGenerateResponse]) -> bytes:
        exchange, frames = self._exchange, self._frames
        last = held = b""
        made: set[int] = set()
        async for response in events:
            match response.WhichOneof("event"):
                case "delta":
                    chunk = frames.delta(response.delta)
                case "choice_finished":
                    # What follows comes at once, so that both fit into one write.
                    self.is_told = True
                    held += frames.finished(response.choice_finished)
                    continue
                case "safety":
                    held += frames.judged(response.safety)
                    continue
                case "completed":
                    last = frames.completed(response.completed)
                    continue
                case "started":
                    frames.open(response.started)
                    set_step(exchange, response, made)
                    continue
                case "cache" | "attempt":
                    set_step(exchange, response, made)
                    continue
                case _:
                    continue
            if not exchange.status:
                await exchange.start_stream()
            if chunk:
                self.is_told = True
                await exchange.write(held + chunk)
                held = b""
        if not last:
            raise Unavailable("STREAM_TRUNCATED", "The answer ended before it was complete.")
        await exchange.start_stream()
        return held + last
