"""The contract's face of the service: translates a request in, calls, translates the answer out. It decides nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable

import grpc

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import safety_service_pb2_grpc as pb_grpc
from services.safety import request_wire, response_wire
from services.safety.anonymising import anonymise, restore
from services.safety.holding import HoldTimer
from services.safety.policy import Direction, Verdict
from services.safety.safety import Safety
from services.safety.screening import Screening
from services.safety.stream import Event, Judged, OutputStream

_log = logging.getLogger(__name__)

_Context = grpc.aio.ServicerContext[object, object]


class SafetyServicer(pb_grpc.SafetyServiceServicer):
    """Serves millrace.safety.v1.SafetyService."""

    def __init__(self, safety: Safety, clock: Callable[[], float] = time.monotonic) -> None:
        self._safety = safety
        self._clock = clock

    async def CheckInput(self, request: pb.CheckInputRequest, context: _Context) -> pb.CheckInputResponse:
        """Judges the segments of a prompt."""
        request_id = request_wire.request_id(request)
        screening = self._safety.screening(request.profile, Direction.INPUT)
        texts = request_wire.segments(request)
        screened, placeholders = anonymise(await self._safety.check(screening, texts))
        _report(screening, request_id, (f.category for text in screened for f in text.findings))
        findings = response_wire.segment_findings(screened)
        return pb.CheckInputResponse(
            request_id=request_id,
            assessment=response_wire.assessment(screening, findings),
            segments=map(response_wire.screened_text, screened),
            placeholders=map(response_wire.placeholder, placeholders),
        )

    async def CheckOutput(self, request: pb.CheckOutputRequest, context: _Context) -> pb.CheckOutputResponse:
        """Judges the parts of a finished answer."""
        request_id = request_wire.request_id(request)
        screening = self._safety.screening(request.profile, Direction.OUTPUT)
        keys, texts = request_wire.parts(request)
        screened = await self._safety.check(screening, texts)
        _report(screening, request_id, (f.category for text in screened for f in text.findings))
        findings = response_wire.part_findings(keys, screened)
        return pb.CheckOutputResponse(
            request_id=request_id,
            assessment=response_wire.assessment(screening, findings),
            parts=map(response_wire.screened_text, screened),
        )

    async def StreamCheckOutput(  # type: ignore[override]  # It writes by itself, at its own times.
        self, request_iterator: AsyncIterator[pb.StreamCheckOutputRequest], context: _Context
    ) -> None:
        """Judges an answer while it is generated."""
        first = await anext(request_iterator, pb.StreamCheckOutputRequest())
        start = request_wire.start(first)
        request_id = request_wire.request_id(start)
        screening = self._safety.screening(start.profile, Direction.OUTPUT)
        stream = OutputStream(screening, request_wire.choice_count(start), self._clock)
        categories: Counter[str] = Counter()
        turn = asyncio.Lock()  # text that has waited too long leaves between two messages of the caller

        async def read() -> pb.StreamCheckOutputRequest | None:
            # The iterator of requests is a generator around this, which costs as much again as judging a token.
            message = await context.read()
            return message if isinstance(message, pb.StreamCheckOutputRequest) else None

        async def tell(events: list[Event]) -> None:
            if events:
                categories.update(_categories(events))
                await context.write(response_wire.stream_response(events))

        async def release() -> None:
            async with turn:
                await tell(await stream.release_overdue())

        timer = HoldTimer(lambda: stream.due_s, release, self._clock)
        request: pb.StreamCheckOutputRequest | None = first
        try:
            while request is not None:
                deltas = request_wire.deltas(request)
                if turn.locked() or not stream.keep(deltas):
                    async with turn:
                        await tell(await stream.push(deltas))
                timer.look()
                request = await read()
                if request is not None:
                    request_wire.refuse_start(request)
            async with turn:
                timer.cancel()
                events = await stream.finish()
        finally:
            timer.cancel()
        categories.update(_categories(events))
        _report(screening, request_id, categories.elements())
        completed = pb.StreamCompleted(assessment=response_wire.assessment(screening))
        last = pb.OutputEvent(completed=completed)
        await context.write(response_wire.stream_response(events, [last]))

    async def Redact(self, request: pb.RedactRequest, context: _Context) -> pb.RedactResponse:
        """Replaces personal data by numbered placeholders."""
        request_id = request_wire.request_id(request)
        known = request_wire.placeholders(request)
        texts, placeholders = await self._safety.anonymiser.redact(
            request_wire.texts(request), request.categories, known
        )
        return pb.RedactResponse(
            request_id=request_id, texts=texts, placeholders=map(response_wire.placeholder, placeholders)
        )

    async def Restore(self, request: pb.RestoreRequest, context: _Context) -> pb.RestoreResponse:
        """Puts originals back."""
        request_id = request_wire.request_id(request)
        texts, count = restore(request_wire.texts(request), request_wire.placeholders(request))
        return pb.RestoreResponse(request_id=request_id, texts=texts, restored_count=count)

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: _Context) -> pb.ListPoliciesResponse:
        """Lists the profiles in force."""
        policies = self._safety.policies
        listed = [
            response_wire.policy(profile, policies.version, self._safety.hold(profile))
            for profile in policies.profiles.values()
        ]
        detectors = [
            response_wire.detector(each, policies.backends.get(name)) for name, each in self._safety.detectors.items()
        ]
        return pb.ListPoliciesResponse(policies=listed, version=policies.version, detectors=detectors)


def _categories(events: Iterable[Event]) -> Iterable[str]:
    return (event.finding.category for event in events if isinstance(event, Judged))


def _report(screening: Screening, request_id: str, categories: Iterable[str]) -> None:
    """Logs a verdict that somebody may ask about: categories and counts, never the text."""
    if screening.verdict is Verdict.ALLOW:
        return
    _log.info(
        "screened",
        extra={
            "screened_request_id": request_id,
            "verdict": screening.verdict.name,
            "direction": screening.direction.name,
            "profile": screening.profile.name,
            "categories": dict(Counter(categories)),
        },
    )
