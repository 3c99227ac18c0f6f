"""The lines of a batch's files: what is asked for, read; and what was answered, written, both as OpenAI does.

A line that is no request at all refuses the whole file, by its number. A request whose body is wrong is one that fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from kit.errors import Code, InvalidArgument, MillraceError
from kit.status import to_proto
from millrace.inference.v1 import inference_service_pb2 as pb
from millrace.inference.v1 import job_pb2
from services.edge.batch_item import error_of_item
from services.edge.body import BodyReader
from services.edge.controls import apply_controls
from services.edge.exchange import Exchange
from services.edge.fault import Fault
from services.edge.jobs.job_client import JobClient
from services.edge.openai import answer, chat_request, completion_request, spec
from services.edge.openai.embeddings import HINTS as EMBEDDING_HINTS
from services.edge.openai.embeddings import EmbeddingRequest, embed_request, embedding_list
from services.edge.responses import answer as response_answer
from services.edge.responses import kept
from services.edge.responses import request as response_request

LINE_COUNT_MAX = 50_000
SLICE_S = 0.01  # of reading: nobody else waits for longer
_BOM = b"\xef\xbb\xbf"
_CHAT = BodyReader(chat_request.ChatRequest, chat_request.REFUSED)
_COMPLETION = BodyReader(completion_request.CompletionRequest, completion_request.REFUSED, completion_request.HINTS)
_EMBEDDING = BodyReader(EmbeddingRequest, hints=EMBEDDING_HINTS)
_RESPONSE = BodyReader(response_request.ResponseRequest, response_request.REFUSED)
_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


class RequestLine(Struct, forbid_unknown_fields=True):
    """One request of a batch."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: str
    body: Raw


_LINE = BodyReader(RequestLine)


async def works(data: bytes, endpoint: str, exchange: Exchange) -> list[job_pb2.JobWork]:
    """The items that a file asks for; what else the process serves goes on meanwhile.

    Raises:
        Fault: 400, naming the line that is no request for this endpoint.
    """
    found: list[job_pb2.JobWork] = []
    seen: set[str] = set()
    clock = asyncio.get_running_loop().time
    began = clock()
    for number, text in enumerate(BytesIO(data), 1):
        if clock() - began > SLICE_S:
            await asyncio.sleep(0)
            began = clock()
        if not text.strip():
            continue
        line = _line(text.removeprefix(_BOM) if number == 1 else text, number, endpoint)
        if line.custom_id in seen:
            raise _bad(number, f"custom_id {line.custom_id[:64]!r} comes twice")
        if len(found) == LINE_COUNT_MAX:
            raise _bad(number, f"a batch has at most {LINE_COUNT_MAX} requests")
        seen.add(line.custom_id)
        found.append(_work(line, endpoint, exchange))
    if not found:
        raise Fault.invalid("The file has no requests.", "input_file_id", "empty_file")
    return found


def _line(text: bytes, number: int, endpoint: str) -> RequestLine:
    try:
        line = _LINE.read(text)
    except Fault as fault:
        raise _bad(number, fault.message.removesuffix(".")) from None
    if "\0" in line.custom_id:
        raise _bad(number, "custom_id must not hold the character NUL")
    if line.url != endpoint:
        raise _bad(number, f"url must be the batch's endpoint, {endpoint}")
    return line


def _bad(number: int, why: str) -> Fault:
    return Fault.invalid(f"Line {number}: {why}.", "input_file_id", "invalid_line")


def _work(line: RequestLine, endpoint: str, exchange: Exchange) -> job_pb2.JobWork:
    """An item; a body that is wrong is told in its place among the errors."""
    try:
        work = _ASKED[endpoint](bytes(line.body), exchange)
    except Fault as fault:
        work = job_pb2.JobWork(refused=_refused(fault))
    work.label = line.custom_id
    return work


def _refused(fault: Fault) -> pb.ItemError:
    """A fault as an item's error, from which the same fault is made again when it is told."""
    error = MillraceError(Code.INVALID_ARGUMENT, (fault.code or "invalid_value").upper(), fault.message)
    if fault.param:
        error = InvalidArgument(fault.param, fault.message.removeprefix(f"{fault.param}: "))
    said = to_proto(error)
    return pb.ItemError(code=said.code, message=said.message, details=said.details)


def _chat(raw: bytes, exchange: Exchange) -> job_pb2.JobWork:
    body = _CHAT.read(raw)
    _refuse_stream(body.stream)
    return job_pb2.JobWork(generation=apply_controls(exchange, spec.chat_spec(body)))


def _completion(raw: bytes, exchange: Exchange) -> job_pb2.JobWork:
    body = _COMPLETION.read(raw)
    _refuse_stream(body.stream)
    asked = spec.completion_specs(body)
    if len(asked) > 1:
        raise Fault.invalid("One prompt to a request in batches.", "prompt", "unsupported_parameter")
    return job_pb2.JobWork(generation=apply_controls(exchange, asked[0]))


def _embedding(raw: bytes, exchange: Exchange) -> job_pb2.JobWork:
    body = _EMBEDDING.read(raw)
    return job_pb2.JobWork(embedding=embed_request(body, ""), attachment=(body.encoding_format or "").encode())


def _response_work(raw: bytes, exchange: Exchange) -> job_pb2.JobWork:
    body = _RESPONSE.read(raw)
    _refuse_stream(body.stream)
    for field in ("background", "previous_response_id"):
        if getattr(body, field):
            raise Fault.invalid("Not in batches.", field, "unsupported_parameter")
    items = response_request.input_items(body)
    asked = apply_controls(exchange, response_request.generation_spec(body, items))
    return job_pb2.JobWork(generation=asked, attachment=kept.pack(body, items, []))


def _refuse_stream(stream: bool | None) -> None:
    if stream:
        raise Fault.invalid("Answers of batches are files.", "stream", "unsupported_parameter")


_ASKED: dict[str, Callable[[bytes, Exchange], job_pb2.JobWork]] = {
    "/v1/chat/completions": _chat,
    "/v1/completions": _completion,
    "/v1/embeddings": _embedding,
    "/v1/responses": _response_work,
}
ENDPOINTS = tuple(_ASKED)


class LineResponse(Struct):
    """An HTTP answer as it would have been."""

    status_code: int
    request_id: str
    body: Any


class LineError(Struct):
    """Why a request was not made."""

    code: str
    message: str


class AnswerLine(Struct):
    """The outcome of one request."""

    id: str
    custom_id: str
    response: LineResponse | None
    error: LineError | None


_NOT_MADE: dict[int, LineError] = {
    job_pb2.JOB_STATE_CANCELLED: LineError("batch_cancelled", "The batch was cancelled before this request was done."),
    job_pb2.JOB_STATE_EXPIRED: LineError("batch_expired", "The batch's time was over before this request was done."),
}
_DONE = (job_pb2.JOB_STATE_COMPLETED,)
_NOT_DONE = (job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED, job_pb2.JOB_STATE_EXPIRED)


async def lines(
    inference: JobClient, exchange: Exchange, job: job_pb2.Job, *, with_errors: bool
) -> AsyncIterator[bytes]:
    """The lines of a batch's output file, or of its error file."""
    endpoint = job.labels["endpoint"]
    async for item in inference.items(exchange, job.job_id, _NOT_DONE if with_errors else _DONE):
        request_id = f"{job.job_id}.{item.index}"
        response, error = _response(item, request_id, endpoint), None
        if response is None:
            error = _NOT_MADE.get(item.state, _NOT_MADE[job_pb2.JOB_STATE_EXPIRED])
        line = AnswerLine(f"batch_req_{job.job_id}_{item.index}", item.label, response, error)
        yield _encode(line) + b"\n"


def _response(item: job_pb2.JobItem, request_id: str, endpoint: str) -> LineResponse | None:
    if item.HasField("answer"):
        one = item.answer
        body: Any = answer.chat_completion(one)
        if endpoint == "/v1/completions":
            body = answer.text_completion(one.request_id, [one])
        elif endpoint == "/v1/responses":
            body = response_answer.answered(kept.begun(item, one.request_id, "completed"), one)
        return LineResponse(200, request_id, body)
    if item.HasField("vectors"):
        return LineResponse(200, request_id, embedding_list(item.vectors, as_base64=item.attachment == b"base64"))
    if item.HasField("error") and item.state not in _NOT_MADE:
        fault = Fault.of(error_of_item(item.error), route=endpoint)
        return LineResponse(fault.status, request_id, Raw(fault.body()))
    return None
