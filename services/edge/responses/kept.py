"""What is kept of a response beside the work itself: it travels with its job's item and comes back with it."""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from millrace.inference.v1 import job_pb2
from services.edge.jobs.identifiers import RESPONSE
from services.edge.responses import answer
from services.edge.responses.answer import Response
from services.edge.responses.request import ResponseRequest


class Kept(Struct):
    """The response as it began, its own input and what went before it."""

    response: Response
    input: list[Raw]
    before: list[Raw]


_decode = msgspec.json.Decoder(Kept).decode


def pack(body: ResponseRequest, items: list[Raw], before: list[Raw]) -> bytes:
    """What an item carries; the id is its job's to give."""
    return msgspec.json.encode(Kept(answer.begun(body, "", is_kept=True), items, before))


def unpack(item: job_pb2.JobItem) -> Kept:
    """What an item carries."""
    return _decode(item.attachment)


def begun(item: job_pb2.JobItem, name: str, status: answer.Status) -> Response:
    """The response of an item as it began, under a name."""
    return msgspec.structs.replace(unpack(item).response, id=RESPONSE + name, status=status)
