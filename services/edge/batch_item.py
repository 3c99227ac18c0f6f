"""Reads one item of a batch: the answer, or the error that stands for it."""

from __future__ import annotations

import re
from dataclasses import replace

import grpc
from google.rpc import status_pb2

from kit.errors import Code, MillraceError
from kit.status import from_rpc_error, status_code
from millrace.inference.v1 import event_pb2
from millrace.inference.v1 import inference_service_pb2 as pb

_DETAILS_KEY = "grpc-status-details-bin"


def generation_of(item: pb.BatchItem, index: int) -> event_pb2.Generation:
    """The answer to one spec of a batch.

    Raises:
        MillraceError: Why there is none; its fields say of which spec.
    """
    if item.WhichOneof("result") == "error":
        raise of_spec(error_of_item(item.error), index)
    return item.generation


def of_spec(error: MillraceError, index: int) -> MillraceError:
    """The error of one generation of several, whose fields say which one it is."""
    error.field_violations = tuple(
        replace(one, field=re.sub(r"^spec\b", f"specs[{index}]", one.field)) for one in error.field_violations
    )
    return error


def error_of_item(error: pb.ItemError) -> MillraceError:
    """The error that an item carries, read exactly as one that failed a whole call."""
    status = status_pb2.Status(code=error.code, message=error.message, details=error.details)
    trailers = grpc.aio.Metadata((_DETAILS_KEY, status.SerializeToString()))
    code = status_code(Code(error.code))
    return from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=error.message))
