"""Recording: the form in which an answer is kept, opaque to the cache.

An answer is kept as chunks, a chunk is a list of batches, a batch is what was ready together when the answer was made:
so a replay has the boundaries of the original, and a piece that was sent early is a piece of the entry. The first batch
begins with a `Heading`, the last one ends with an `Ending`; without it an answer is incomplete and nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from services.inference.events import Direction, Event, Receipt, SafetyEvent
from services.inference.generation import ChoiceFinished, Delta, EngineEvent, FinishReason, Usage


class Heading(msgspec.Struct, frozen=True, tag_field="is", tag="heading", omit_defaults=True):
    """What must be known before the first delta: the version of the policy that judged the prompt."""

    policy_version: str = ""


class Ending(msgspec.Struct, frozen=True, tag_field="is", tag="ending", omit_defaults=True):
    """What is known when the answer is complete: all that a receipt needs."""

    usage: Usage = Usage()
    policy_version: str = ""
    target: str = ""
    target_model: str = ""
    system_fingerprint: str = ""


KeptEvent = Heading | Delta | ChoiceFinished | SafetyEvent | Ending
KeptBatch = Sequence[KeptEvent]

_KEPT = (Delta, ChoiceFinished, Heading, Ending)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[list[KeptEvent]]).decode


class Recorded(msgspec.Struct, frozen=True):
    """A complete answer as it was kept; what it says is in `batches`, heading and ending left out."""

    batches: Sequence[KeptBatch]
    ending: Ending

    @property
    def events(self) -> list[KeptEvent]:
        """All of it, in order."""
        return [event for batch in self.batches for event in batch]


def ending(receipt: Receipt, policy_version: str) -> Ending:
    """The end of an answer, as its receipt tells it."""
    return Ending(receipt.usage, policy_version, receipt.target, receipt.target_model, receipt.system_fingerprint)


def may_be_kept(event: Event | EngineEvent) -> bool:
    """Whether an answer with this event may be given to others: not one that was cut, nor one left unscreened."""
    if isinstance(event, ChoiceFinished):
        return event.finish_reason not in (FinishReason.CONTENT_FILTER, FinishReason.DEADLINE)
    return not (isinstance(event, SafetyEvent) and event.unscreened)


def chunk(batches: Iterable[Sequence[object]]) -> bytes:
    """Batches as they are kept; what belongs to one request only (attempts, judgements of its prompt) is left out."""
    return _encode([kept for batch in batches if (kept := [event for event in batch if _is_kept(event)])])


def read_chunk(data: bytes) -> list[list[KeptEvent]] | None:
    """Reads a chunk; None where its form is not this one's, which is a miss and no error."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def read(chunks: Iterable[bytes]) -> Recorded | None:
    """Reads a kept answer; None where it is none in this form, or not complete."""
    batches: list[KeptBatch] = []
    for data in chunks:
        found = read_chunk(data)
        if found is None:
            return None
        batches += found
    last = batches[-1][-1] if batches and batches[-1] else None
    if not isinstance(last, Ending):
        return None
    said = ([event for event in batch if not isinstance(event, Heading | Ending)] for batch in batches)
    return Recorded([batch for batch in said if batch], last)


def _is_kept(event: object) -> bool:
    if isinstance(event, SafetyEvent):
        return event.direction is Direction.OUTPUT  # prompts are judged anew
    return isinstance(event, _KEPT)
