"""Relays a generation's events as server-sent events.

The answer's status is held back until the first visible event or heartbeat, so that what fails before it is a proper
HTTP error. Every OK stream ends with `completed`, or it is not OK. Where the server goes away before the client was
told anything, another one is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Protocol

from kit.errors import MillraceError, Unavailable
from millrace.inference.v1 import event_pb2, generation_pb2
from millrace.inference.v1 import inference_service_pb2 as pb
from services.edge.batch_item import of_spec
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
    last = await asked_again(
        exchange, lambda: relayed.run(inference.stream(exchange, spec)), lambda: not relayed.is_told
    )
    await exchange.end_stream(last)


async def relay_all(
    exchange: Exchange,
    inference: InferenceClient,
    specs: Sequence[generation_pb2.GenerationSpec],
    frames: Sequence[Frames],
    end: Callable[[], bytes],
    concurrency: int,
) -> None:
    """Answers a request with several streamed generations, as events come; its headers are of the first to begin.

    Args:
        exchange: Who is told.
        inference: Generates.
        specs: What is wanted; each counts as a request.
        frames: Of each generation; they tell one stream.
        end: Makes the last event, once all are complete.
        concurrency: Most generations at once.
    Raises:
        MillraceError: One of them failed, which ends the others; the answer may have begun.
    """
    exchange.expect_stream(frames[0].failed)
    slots, begun = asyncio.Semaphore(concurrency), list[_Relayed]()

    async def relay_part(index: int) -> None:
        async with slots:
            relayed = _Relayed(exchange, frames[index], begun)
            stream = partial(inference.stream, exchange, specs[index], index)
            try:
                last = await asked_again(exchange, lambda: relayed.run(stream()), lambda: not relayed.is_told)
            except MillraceError as error:
                raise of_spec(error, index) from None
            await exchange.write(last)

    try:
        async with inference.attended(exchange), asyncio.TaskGroup() as group:
            for index in range(len(specs)):
                group.create_task(relay_part(index))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    await exchange.end_stream(end())


class _Relayed:
    """One generation on its way to the client.

    Args:
        exchange: Who is told.
        frames: Of the generation.
        begun: Those that share the answer and have begun: its headers are those of the first.
    Attributes:
        is_told: A piece of the answer was made, and mostly sent; comments that keep a stream alive are none.
    """

    __slots__ = ("_begun", "_exchange", "_frames", "_made", "is_told")

    def __init__(self, exchange: Exchange, frames: Frames, begun: list[_Relayed] | None = None) -> None:
        self._exchange, self._frames, self.is_told = exchange, frames, False
        self._begun = [] if begun is None else begun

    async def run(self, stream: EventStream) -> bytes:
        """Relays all events but the last, whose frame is returned once the call has ended well."""
        async with stream as events:
            return await self._tell(events)

    async def _tell(self, events: AsyncIterator[pb.StreamGenerateResponse]) -> bytes:
        exchange, frames = self._exchange, self._frames
        last, held, is_complete = b"", b"", False
        self._made: set[int] = set()
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
                    last, is_complete = frames.completed(response.completed), True
                    continue
                case "started":
                    frames.open(response.started)
                    self._set_step(response)
                    continue
                case "cache" | "attempt":
                    self._set_step(response)
                    continue
                case _:
                    continue
            if not exchange.status:
                await exchange.start_stream()
            if chunk:
                self.is_told = True
                await exchange.write(held + chunk)
                held = b""
        if not is_complete:
            raise Unavailable("STREAM_TRUNCATED", "The answer ended before it was complete.")
        await exchange.start_stream()
        return held + last

    def _set_step(self, response: pb.StreamGenerateResponse) -> None:
        if not self._begun:
            self._begun.append(self)
        if self._begun[0] is self:
            set_step(self._exchange, response, self._made)
