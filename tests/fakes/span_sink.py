"""Takes spans as they end and lets a test wait for one, since a server's span ends after the client has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Status

from kit.spans import Span

DEADLINE_S = 5.0


class SpanSink:
    """Keeps the spans that it gets, as the SDK's readable ones. They must end on the loop's own thread."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._arrived = asyncio.Event()

    def export(self, spans: Sequence[Span]) -> None:
        """Keeps the spans."""
        self.spans.extend(readable(span) for span in spans)
        self._arrived.set()

    async def one(self, kind: SpanKind) -> ReadableSpan:
        """Returns the one span of a kind, waiting for it."""
        return (await self.wait(lambda span: span.kind is kind))[0]

    async def wait(self, wanted: Callable[[ReadableSpan], bool], count: int = 1) -> list[ReadableSpan]:
        """Returns the spans that a test wants, once there are as many as it expects."""
        async with asyncio.timeout(DEADLINE_S):
            while len(found := [span for span in self.spans if wanted(span)]) < count:
                self._arrived.clear()
                await self._arrived.wait()
        assert len(found) == count
        return found


def readable(span: Span) -> ReadableSpan:
    """The same span as the SDK has it."""
    return ReadableSpan(
        span.name,
        span.context,
        span.parent,
        Resource.get_empty(),
        {key: tuple(value) if isinstance(value, list) else value for key, value in span.attributes.items()},
        kind=span.kind,
        status=Status(span.status_code, span.status_text or None),
        start_time=span.start_time,
        end_time=span.end_time,
    )
