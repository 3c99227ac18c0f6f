"""Reads requests of the contract into the service's own terms, and refuses those that break a stated limit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kit import identity
from kit.errors import FailedPrecondition, InvalidArgument
from millrace.safety.v1 import safety_service_pb2 as pb
from millrace.safety.v1.verdict_pb2 import Role
from services.safety.anonymising import Placeholder
from services.safety.checking import Text
from services.safety.reading import looks_like_json
from services.safety.stream import TOOL_CALLS_MAX, Delta, OutputKind, PartKey

TEXTS_MAX = 2048
CODE_POINTS_MAX = 1_000_000
CHOICES_MAX = 128
DELTAS_MAX = 256
PLACEHOLDERS_MAX = 10_000
_REQUEST_ID_MAX = 128


class _Named(Protocol):
    request_id: str


def request_id(request: _Named) -> str:
    """The id that a request gives itself, or that of its call."""
    if len(request.request_id) > _REQUEST_ID_MAX:
        raise InvalidArgument("request_id", f"must have at most {_REQUEST_ID_MAX} characters")
    return request.request_id or identity.current().request_id


def segments(request: pb.CheckInputRequest) -> list[Text]:
    """The texts of a prompt, and which of them were retrieved."""
    for index, segment in enumerate(request.segments):
        if segment.role not in _ROLES:
            raise InvalidArgument(f"segments[{index}].role", "must be given: SYSTEM, USER, ASSISTANT, TOOL or DOCUMENT")
    texts = _bounded("segments", [segment.text for segment in request.segments])
    return [
        Text(text, segment.role in _RETRIEVED, looks_like_json(text))
        for text, segment in zip(texts, request.segments, strict=True)
    ]


def parts(request: pb.CheckOutputRequest) -> tuple[list[PartKey], list[Text]]:
    """The parts of an answer and their texts."""
    keys = [part_key(f"parts[{index}]", part, CHOICES_MAX) for index, part in enumerate(request.parts)]
    texts = _bounded("parts", [part.text for part in request.parts])
    return keys, [
        Text(text, is_json=key.kind is OutputKind.TOOL_ARGUMENTS) for key, text in zip(keys, texts, strict=True)
    ]


def texts(request: pb.RedactRequest | pb.RestoreRequest) -> list[str]:
    """The texts to redact or restore."""
    return _bounded("texts", list(request.texts))


def placeholders(request: pb.RedactRequest | pb.RestoreRequest) -> list[Placeholder]:
    """The placeholders that a caller brings along."""
    if len(request.placeholders) > PLACEHOLDERS_MAX:
        raise InvalidArgument("placeholders", f"must be at most {PLACEHOLDERS_MAX}")
    return [Placeholder(p.token, p.original, p.category) for p in request.placeholders]


def choice_count(start: pb.StreamStart) -> int:
    """How many choices a stream has."""
    if not 0 <= start.choice_count <= CHOICES_MAX:
        raise InvalidArgument("start.choice_count", f"must be 1 to {CHOICES_MAX}")
    return start.choice_count or 1


def start(request: pb.StreamCheckOutputRequest) -> pb.StreamStart:
    """How a stream is to be judged, from its first message."""
    if not request.HasField("start"):
        raise FailedPrecondition("STREAM_NOT_STARTED", "the first message must hold `start`")
    return request.start


def refuse_start(request: pb.StreamCheckOutputRequest) -> None:
    """Refuses a second `start`."""
    if request.HasField("start"):
        raise InvalidArgument("start", "must be in the first message only")


def deltas(request: pb.StreamCheckOutputRequest) -> list[Delta]:
    """What a message of a stream brings."""
    if len(request.deltas) > DELTAS_MAX:
        raise InvalidArgument("deltas", f"must be at most {DELTAS_MAX} in one message")
    return [
        Delta(
            _known_key(delta) or part_key(f"deltas[{index}]", delta, CHOICES_MAX),
            delta.text,
            delta.end_of_part,
            delta.end_of_choice,
        )
        for index, delta in enumerate(request.deltas)
    ]


def _known_key(delta: pb.OutputDelta) -> PartKey | None:
    """The key of a part that most deltas belong to; None where it must be made, or refused."""
    return None if delta.HasField("tool_call_index") else _KNOWN_KEYS.get((delta.choice_index, delta.kind))


def part_key(field: str, part: pb.OutputPart | pb.OutputDelta, choices_max: int) -> PartKey:
    """Names the part of an answer that a message speaks of."""
    if not 0 <= part.choice_index < choices_max:
        raise InvalidArgument(f"{field}.choice_index", f"must be 0 to {choices_max - 1}")
    kind = _KINDS.get(part.kind)
    if kind is None:
        raise InvalidArgument(f"{field}.kind", "must be TEXT, REASONING, REFUSAL, TOOL_ARGUMENTS or TOOL_NAME")
    if kind not in (OutputKind.TOOL_ARGUMENTS, OutputKind.TOOL_NAME):
        if part.HasField("tool_call_index"):
            raise InvalidArgument(f"{field}.tool_call_index", "goes with tool calls only")
        return PartKey(part.choice_index, kind)
    if not 0 <= part.tool_call_index < TOOL_CALLS_MAX:
        raise InvalidArgument(f"{field}.tool_call_index", f"must be 0 to {TOOL_CALLS_MAX - 1}")
    return PartKey(part.choice_index, kind, part.tool_call_index)


def _bounded(field: str, found: Sequence[str]) -> list[str]:
    if not 0 < len(found) <= TEXTS_MAX:
        raise InvalidArgument(field, f"must be 1 to {TEXTS_MAX}")
    if sum(map(len, found)) > CODE_POINTS_MAX:
        raise InvalidArgument(field, f"must hold at most {CODE_POINTS_MAX} code points together")
    return list(found)


_RETRIEVED = frozenset({Role.ROLE_TOOL, Role.ROLE_DOCUMENT})
_ROLES = frozenset(Role.values()) - {Role.ROLE_UNSPECIFIED}
_KINDS = {0: OutputKind.TEXT, **{int(kind): kind for kind in OutputKind}}
# Parts of the first choices, which is all that most streams have.
_KNOWN_KEYS = {
    (choice, number): PartKey(choice, kind)
    for choice in range(8)
    for number, kind in _KINDS.items()
    if kind not in (OutputKind.TOOL_ARGUMENTS, OutputKind.TOOL_NAME)
}
