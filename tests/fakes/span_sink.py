"""Takes spans as they end and lets a test wait for one, since a server's span ends after the client has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

DEADLINE_S = 5.0


class SpanSink(SpanExporter):
    """An exporter that keeps what it gets. Spans must end on the loop's own thread."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._arrived = asyncio.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keeps the spans."""
        self.spans.extend(spans)
        self._arrived.set()
        return SpanExportResult.SUCCESS

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
