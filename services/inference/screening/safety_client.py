"""The safety service as the pipeline sees it: `SafetyPort` over gRPC."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Any

import grpc

from kit import identity, status
from kit.dial import REPLICA_WAITS_S
from kit.errors import MillraceError, Unavailable
from millrace.safety.v1 import safety_service_pb2 as pb2
from millrace.safety.v1 import safety_service_pb2_grpc, verdict_pb2
from services.inference.events import Finding, Redacted, Verdict
from services.inference.generation import Role
from services.inference.screening.gathering import Awaited, Gathering
from services.inference.screening.rejudging import Rejudged
from services.inference.screening.restoring import WayBack
from services.inference.screening.safety_port import Assessment, ChoiceJudged, Judged, OutputPiece, Released
from services.inference.screening.segments import Segment

ROLES = {
    Role.SYSTEM: verdict_pb2.ROLE_SYSTEM,
    Role.DEVELOPER: verdict_pb2.ROLE_SYSTEM,
    Role.USER: verdict_pb2.ROLE_USER,
    Role.ASSISTANT: verdict_pb2.ROLE_ASSISTANT,
    Role.TOOL: verdict_pb2.ROLE_TOOL,
}
KINDS = {
    "text": verdict_pb2.OUTPUT_KIND_TEXT,
    "reasoning": verdict_pb2.OUTPUT_KIND_REASONING,
    "refusal": verdict_pb2.OUTPUT_KIND_REFUSAL,
    "tool_arguments": verdict_pb2.OUTPUT_KIND_TOOL_ARGUMENTS,
    "tool_name": verdict_pb2.OUTPUT_KIND_TOOL_NAME,
}
KIND_NAMES = {number: name for name, number in KINDS.items()}
_LATE_WRITE = "Internal error from Core"


class SafetyClient:
    """Calls safety within its own deadline, never longer than the call's."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        self._stub = safety_service_pb2_grpc.SafetyServiceStub(channel)
        self._timeout_s = timeout_s

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        """See `SafetyPort.check_input`."""
        request = pb2.CheckInputRequest(
            profile=profile, segments=[pb2.Segment(role=ROLES[one.role], text=one.text) for one in segments]
        )
        answer = await self._call(self._stub.CheckInput, request)
        return _assessment(answer.assessment, answer.segments, answer.placeholders)

    async def check_output(self, profile: str, pieces: Sequence[OutputPiece]) -> Assessment:
        """See `SafetyPort.check_output`."""
        parts = [
            pb2.OutputPart(
                choice_index=one.choice_index, kind=KINDS[one.kind], tool_call_index=_call_index(one), text=one.text
            )
            for one in pieces
        ]
        answer = await self._call(self._stub.CheckOutput, pb2.CheckOutputRequest(profile=profile, parts=parts))
        return _assessment(answer.assessment, answer.parts)

    async def scores(self, profile: str, text: str) -> tuple[dict[str, tuple[float, bool]], str]:
        """The score of each category for one text, with whether it is flagged, and the policy's version."""
        segments = [pb2.Segment(role=verdict_pb2.ROLE_USER, text=text)]
        answer = await self._call(self._stub.CheckInput, pb2.CheckInputRequest(profile=profile, segments=segments))
        said = answer.assessment
        return {one.category: (one.score, one.flagged) for one in said.scores}, said.policy_version

    def stream_output(self, profile: str, choice_count: int) -> Rejudged:
        """See `SafetyPort.stream_output`."""

        def call() -> SafetyStream:
            opened = self._stub.StreamCheckOutput(timeout=identity.remaining_s(86_400))
            return SafetyStream(opened, pb2.StreamStart(profile=profile, choice_count=choice_count))

        return Rejudged(call)

    async def _call(self, method: Any, request: Any) -> Any:
        """Asks another replica where one is lost and there is time to: a judgement may be made twice."""
        ends_at = time.monotonic() + identity.at_most_s(self._timeout_s)
        waits_s = iter((*REPLICA_WAITS_S, math.inf))
        while True:
            try:
                return await method(request, timeout=max(0.0, ends_at - time.monotonic()))
            except grpc.aio.AioRpcError as error:
                wait_s = next(waits_s)
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() + wait_s >= ends_at:
                    raise status.from_rpc_error(error) from error
            await asyncio.sleep(wait_s)


class SafetyStream:
    """One StreamCheckOutput call; see `OutputStream`."""

    def __init__(self, call: Any, start: pb2.StreamStart) -> None:
        self._call = call
        self._start: pb2.StreamStart | None = start
        self._gathering = Gathering()
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._late: set[asyncio.Task[None]] = set()  # writes that nobody awaits

    async def send(self, pieces: Sequence[OutputPiece]) -> None:
        """Hands pieces over, those that cannot matter yet with later ones; `start` goes with the first."""
        if self._gathering.take(pieces):
            await self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._gathering.gather_s, self._send_late)

    async def _send(self) -> None:
        """Sends what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        async with self._writing:
            await self._write_pieces(self._gathering.give())

    def _send_late(self) -> None:
        """Sends what has waited long enough, or matters because of what safety said."""
        late = asyncio.ensure_future(self._send())
        self._late.add(late)
        late.add_done_callback(self._sent_late)

    def _sent_late(self, late: asyncio.Task[None]) -> None:
        self._late.discard(late)
        if not late.cancelled():
            late.exception()  # whoever reads the call hears of it, too

    async def _write_pieces(self, pieces: Sequence[OutputPiece]) -> None:
        deltas = [
            pb2.OutputDelta(
                choice_index=one.choice_index,
                kind=KINDS[one.kind],
                tool_call_index=_call_index(one),
                text=one.text,
                end_of_part=one.end_of_part,
                end_of_choice=one.end_of_choice,
            )
            for one in _joined(pieces)
        ]
        for first in range(0, len(deltas), 256):
            await self._write(deltas[first : first + 256])

    async def _write(self, deltas: list[pb2.OutputDelta]) -> None:
        start, self._start = self._start, None
        try:
            await self._call.write(pb2.StreamCheckOutputRequest(start=start, deltas=deltas))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error
        except (asyncio.InvalidStateError, grpc.aio.UsageError) as error:  # the call is over: reading it tells why
            raise Unavailable("SAFETY_ENDED", "the safety service ended its stream") from error

    async def done(self) -> None:
        """Half-closes."""
        await self._send()
        if self._start is not None:
            await self._write([])
        try:
            await self._call.done_writing()
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error

    async def __aiter__(self) -> AsyncIterator[Sequence[Released | Judged | ChoiceJudged | Assessment]]:
        try:
            async for answer in self._call:
                if sum(self._gathering.tell(_awaited(one)) for one in answer.awaited):
                    self._send_late()
                if answer.events:
                    yield [_event(one) for one in answer.events]
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from error

    def cancel(self) -> None:
        """Ends the call; harmless when it is over."""
        if self._timer is not None:
            self._timer.cancel()
        for late in self._late:
            late.cancel()
        self._call.cancel()


def _joined(pieces: Sequence[OutputPiece]) -> Iterator[OutputPiece]:
    """Joins neighbours of one part: tokens that were gathered are one text, and each delta costs both sides."""
    for (choice_index, kind, tool_call_index, ends), run in groupby(pieces, _part_and_end):
        if ends:
            yield from run
        else:
            yield OutputPiece(choice_index, kind, "".join([one.text for one in run]), tool_call_index)


def _part_and_end(one: OutputPiece) -> tuple[int, str, int, bool]:
    return one.choice_index, one.kind, one.tool_call_index, one.end_of_part or one.end_of_choice


def _failure(error: grpc.aio.AioRpcError) -> MillraceError:
    """What a stream failed with. A write into a connection that is gone makes grpc's own client call it INTERNAL."""
    if error.code() is grpc.StatusCode.INTERNAL and error.details() == _LATE_WRITE:
        return Unavailable("SAFETY_ENDED", "the safety service ended its stream")
    return status.from_rpc_error(error)


def _call_index(piece: OutputPiece) -> int | None:
    return piece.tool_call_index if piece.kind.startswith("tool_") else None


def _awaited(one: pb2.Awaited) -> Awaited:
    gather_s = one.gather_max.ToTimedelta().total_seconds()
    # A kind of a later version is no part of any answer.
    kind = KIND_NAMES.get(one.kind, "")
    return Awaited(one.choice_index, kind, one.least_through, one.most_through, one.stops, gather_s)


def _event(event: pb2.OutputEvent) -> Released | Judged | ChoiceJudged | Assessment:
    match event.WhichOneof("event"):
        case "released":
            one = event.released
            return Released(one.choice_index, KIND_NAMES[one.kind], one.tool_call_index, one.text, one.released_through)
        case "judgement":
            found = event.judgement.finding
            return Judged(found.choice_index, KIND_NAMES[found.kind], Verdict(found.action), _finding(found))
        case "choice_done":
            return ChoiceJudged(event.choice_done.choice_index, Verdict(event.choice_done.verdict))
        case "completed":
            return _assessment(event.completed.assessment, ())
        case _:
            raise Unavailable("SAFETY_UNKNOWN_EVENT", "the safety service is newer than this one")


def _assessment(
    said: verdict_pb2.Assessment, texts: Sequence[pb2.ScreenedText], placeholders: Sequence[pb2.Placeholder] = ()
) -> Assessment:
    return Assessment(
        Verdict(said.verdict),
        tuple(_finding(one) for one in said.findings if one.action > verdict_pb2.VERDICT_ALLOW),
        tuple(Verdict(one.verdict) for one in texts),
        tuple(one.replacement if one.HasField("replacement") else None for one in texts),
        said.policy_version,
        any(run.failed_open for run in said.runs),
        WayBack((one.token, one.original) for one in placeholders) if placeholders else None,
    )


def _finding(one: verdict_pb2.Finding) -> Finding:
    span = one.span
    said = (one.category, one.score, one.detector, span.start, span.end, one.segment_index, Verdict(one.action))
    # Who joined two texts replaces what lies over their seam.
    is_replaced = one.direction == verdict_pb2.DIRECTION_INPUT and one.placeholder
    return Redacted(*said, one.placeholder) if is_replaced else Finding(*said)
