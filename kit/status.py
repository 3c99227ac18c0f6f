"""Errors on the wire: MillraceError to a gRPC status with google.rpc details, and back.

The details are one ErrorInfo (domain `millrace`) and, as they fit, BadRequest, RetryInfo and QuotaFailure. They travel
in trailing metadata, which peers and proxies cap at 8 KiB as a rule, so everything is clipped to fit: an error that is
too big to arrive helps nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2 as details_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from kit.errors import Code, FieldViolation, MillraceError, Unavailable, error_of

Trailer: TypeAlias = "tuple[str, str | bytes]"

DOMAIN = "millrace"

_DETAILS_KEY = "grpc-status-details-bin"
# Base64 of the details, the message once more and the other headers stay below 8 KiB together.
_DETAILS_BYTES_MAX = 4096
_TEXT_CHARS_MAX = 512
# What a failed call's trailers may weigh in all, so that the transport's own still fit into 8 KiB.
_TRAILERS_BYTES_MAX = 7680
_VIOLATIONS_MAX = 16

_STATUS_CODES: dict[Code, grpc.StatusCode] = {Code(code.value[0]): code for code in grpc.StatusCode}


def status_code(code: Code) -> grpc.StatusCode:
    """Returns grpc's name of a code."""
    return _STATUS_CODES[code]


def code_of(status_code: grpc.StatusCode) -> Code:
    """Returns the code that grpc names so."""
    return Code(status_code.value[0])


def to_proto(error: MillraceError) -> status_pb2.Status:
    """Returns the google.rpc.Status of an error, for answers that hold one per item."""
    status = status_pb2.Status(code=error.code, message=_clip(error.message))
    size = status.ByteSize()
    for detail in _details(error):
        size += detail.ByteSize() + 64
        if size > _DETAILS_BYTES_MAX:
            break
        status.details.add().Pack(detail)
    return status


def to_status(error: MillraceError) -> grpc.Status:
    """Returns the status that carries an error; for `context.abort_with_status`."""
    result: grpc.Status = rpc_status.to_status(to_proto(error))
    return result


def join_trailers(status: grpc.Status, others: Iterable[Trailer]) -> tuple[Trailer, ...]:
    """Returns the trailing metadata of a status with others' beside it, as far as they fit; the shortest come first."""
    room = _TRAILERS_BYTES_MAX - len(status.details.encode()) - sum(map(_trailer_bytes, status.trailing_metadata))
    fitting = []
    for trailer in sorted(others, key=_trailer_bytes):
        room -= _trailer_bytes(trailer)
        if room < 0:
            break
        fitting.append(trailer)
    return (*status.trailing_metadata, *fitting)


def from_rpc_error(error: grpc.aio.AioRpcError) -> MillraceError:
    """Returns the error that a status carried.

    A status without our details (a proxy's, or the transport's own) gets the name of its code as its reason. CANCELLED
    becomes UNAVAILABLE: whoever cancels a call himself gets asyncio.CancelledError and no status, so it is what grpc
    answers to a call that meets a server as it closes.
    """
    code = code_of(error.code())
    if code is Code.CANCELLED:
        return Unavailable("SERVER_STOPPING", "the server is going away; retry")
    found: dict[str, Any] = {"reason": code.name, "message": error.details() or code.name}
    # What a proxy mangled is as good as absent.
    with suppress(DecodeError):
        for detail in _details_of(error):
            _read(detail, found)
    reason, message = found.pop("reason"), found.pop("message")
    return error_of(code, reason, message, **found)


def _details(error: MillraceError) -> Iterable[Any]:
    """Yields the details, the most useful first."""
    metadata = {key: _clip(value) for key, value in error.metadata.items()}
    yield details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    if error.retry_after_ms is not None:
        retry = details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(error.retry_after_ms)
        yield retry
    if error.field_violations:
        request = details_pb2.BadRequest()
        for violation in error.field_violations[:_VIOLATIONS_MAX]:
            request.field_violations.add(field=_clip(violation.field), description=_clip(violation.description))
        yield request
    if error.quota_violations:
        quota = details_pb2.QuotaFailure()
        for subject, description in error.quota_violations[:_VIOLATIONS_MAX]:
            quota.violations.add(subject=_clip(subject), description=_clip(description))
        yield quota


def _details_of(error: grpc.aio.AioRpcError) -> Iterable[AnyMessage]:
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            details: Iterable[AnyMessage] = status_pb2.Status.FromString(value).details
            return details
    return ()


def _trailer_bytes(trailer: Trailer) -> int:
    """What a header weighs on the wire: bytes travel as Base64, and HTTP/2 counts 32 for each."""
    name, value = trailer
    return len(name) + 32 + (len(value) if isinstance(value, str) else len(value) * 4 // 3 + 4)


def _read(detail: AnyMessage, found: dict[str, Any]) -> None:
    """Adds what one detail says to the arguments of the error."""
    if detail.Is(details_pb2.ErrorInfo.DESCRIPTOR):
        info = details_pb2.ErrorInfo.FromString(detail.value)
        found.update(reason=info.reason, metadata=dict(info.metadata))
    elif detail.Is(details_pb2.RetryInfo.DESCRIPTOR):
        found["retry_after_ms"] = details_pb2.RetryInfo.FromString(detail.value).retry_delay.ToMilliseconds()
    elif detail.Is(details_pb2.BadRequest.DESCRIPTOR):
        request = details_pb2.BadRequest.FromString(detail.value)
        found["field_violations"] = [FieldViolation(v.field, v.description) for v in request.field_violations]
    elif detail.Is(details_pb2.QuotaFailure.DESCRIPTOR):
        quota = details_pb2.QuotaFailure.FromString(detail.value)
        found["quota_violations"] = [(v.subject, v.description) for v in quota.violations]


def _clip(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else text[: _TEXT_CHARS_MAX - 1] + "…"
