"""Messages that the safety service's tests send and read."""

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING

from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1 import verdict_pb2 as verdict

if TYPE_CHECKING:
    from millrace.safety.v1.safety_service_pb2_grpc import SafetyServiceAsyncStub as Stub


def prompt(*texts: str, profile: str = "", role: verdict.Role = verdict.ROLE_USER) -> pb.CheckInputRequest:
    """A prompt of one role."""
    return pb.CheckInputRequest(profile=profile, segments=[pb.Segment(role=role, text=text) for text in texts])


def answer(*texts: str, profile: str = "") -> pb.CheckOutputRequest:
    """An answer with one choice per text."""
    parts = [pb.OutputPart(choice_index=index, text=text) for index, text in enumerate(texts)]
    return pb.CheckOutputRequest(profile=profile, parts=parts)


def spans(assessment: verdict.Assessment, text: str) -> list[tuple[str, str]]:
    """The findings as category and the very text that they cover."""
    return [(f.category, text[f.span.start : f.span.end]) for f in assessment.findings]


def random_chunks(text: str, rng: random.Random) -> list[str]:
    """Cuts a text at random, half of the time into single code points."""
    largest = rng.choice([1, 1, 3, 17])
    pieces = []
    while text:
        size = rng.randint(1, largest)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def deltas(pieces: Iterable[str], choice: int = 0) -> list[pb.OutputDelta]:
    """Pieces of the text of a choice."""
    return [pb.OutputDelta(choice_index=choice, text=piece) for piece in pieces]


async def screen(
    stub: "Stub", messages: Sequence[Sequence[pb.OutputDelta]], profile: str = "", choices: int = 1
) -> list[pb.OutputEvent]:
    """Sends a generation, one list of deltas a message, and returns all events."""

    async def requests() -> AsyncIterator[pb.StreamCheckOutputRequest]:
        yield pb.StreamCheckOutputRequest(start=pb.StreamStart(profile=profile, choice_count=choices))
        for message in messages:
            yield pb.StreamCheckOutputRequest(deltas=message)

    return [event async for response in stub.StreamCheckOutput(requests()) for event in response.events]


def released(events: Iterable[pb.OutputEvent], choice: int = 0, kind: int = verdict.OUTPUT_KIND_TEXT) -> str:
    """The text that a stream let go for one part."""
    found = (event.released for event in events if event.HasField("released"))
    return "".join(each.text for each in found if each.choice_index == choice and each.kind == kind)
