from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from kit.errors import Code, FieldViolation, MillraceError, ResourceExhausted
from kit.status import DOMAIN, code_of, from_rpc_error, join_trailers, status_code, to_status


def _over_the_wire(error: MillraceError) -> MillraceError:
    status = to_status(error)
    trailing = grpc.aio.Metadata(*status.trailing_metadata)
    return from_rpc_error(grpc.aio.AioRpcError(status.code, None, trailing, status.details))


@pytest.mark.parametrize("code", [code for code in Code if code not in (Code.OK, Code.CANCELLED)])
def test_an_error_survives_a_hop(code: Code) -> None:
    """Everything that an error holds is there on the other side."""
    error = MillraceError(
        code,
        "WHY_NOT",
        "because",
        retry_after_ms=1500,
        field_violations=[FieldViolation("a.b[0]", "too long"), FieldViolation("c", "missing")],
        quota_violations=[("tenant:acme", "60 requests a minute")],
        metadata={"categories": "hate,violence"},
    )

    arrived = _over_the_wire(error)

    assert vars(arrived) == vars(error)


def test_an_error_without_extras_arrives_without_extras() -> None:
    """What was not said is not there: no retry delay of zero, no empty violations."""
    arrived = _over_the_wire(MillraceError(Code.NOT_FOUND, "GONE", "gone"))

    assert arrived.retry_after_ms is None
    assert arrived.field_violations == ()
    assert arrived.quota_violations == ()
    assert arrived.metadata == {}


def test_the_details_are_those_of_google_rpc() -> None:
    """A client in any language finds one ErrorInfo of our domain, then the others as they fit."""
    error = ResourceExhausted("QUOTA_EXCEEDED", "wait", retry_after_ms=10, quota_violations=[("t", "q")])
    status = status_pb2.Status.FromString(dict(to_status(error).trailing_metadata)["grpc-status-details-bin"])

    kinds = [detail.type_url.rpartition(".")[2] for detail in status.details]
    info = error_details_pb2.ErrorInfo.FromString(status.details[0].value)
    assert kinds == ["ErrorInfo", "RetryInfo", "QuotaFailure"]
    assert (info.domain, info.reason) == (DOMAIN, "QUOTA_EXCEEDED")
    assert (status.code, status.message) == (Code.RESOURCE_EXHAUSTED, "wait")


def test_a_huge_error_still_fits_into_a_header() -> None:
    """Clipped details arrive; a status that breaks the header limit would be lost with its code."""
    error = MillraceError(
        Code.INVALID_ARGUMENT,
        "TOO_MUCH",
        "m" * 100_000,
        field_violations=[FieldViolation("f" * 1000, "d" * 10_000)] * 500,
        metadata={"key": "v" * 100_000},
    )

    status = to_status(error)
    details = dict(status.trailing_metadata)["grpc-status-details-bin"]
    arrived = _over_the_wire(error)

    assert len(details) * 4 / 3 + len(status.details.encode()) < 8192
    assert arrived.reason == "TOO_MUCH"
    assert arrived.message.endswith("…")


def test_trailers_that_do_not_fit_are_left_out() -> None:
    """The error comes first, then the short ones: the details of a huge error leave no room for a long one."""
    short, long, huge = ("x-a", "1"), ("x-b-bin", bytes(3_000)), ("x-c", "c" * 9_000)
    small = to_status(MillraceError(Code.NOT_FOUND, "GONE", "gone"))
    big = to_status(MillraceError(Code.INTERNAL, "BAD", "m" * 512, metadata=dict.fromkeys("abcdef", "v" * 512)))

    assert join_trailers(small, [huge, long, short]) == (*small.trailing_metadata, short, long)
    assert join_trailers(big, [long, short]) == (*big.trailing_metadata, short)


def test_a_status_of_the_transport_gets_the_name_of_its_code() -> None:
    """A refused connection has no details: the code is the reason."""
    arrived = from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, None, None, "connection refused"))

    assert (arrived.code, arrived.reason, arrived.message) == (Code.UNAVAILABLE, "UNAVAILABLE", "connection refused")


def test_a_call_that_a_closing_server_dropped_may_be_retried() -> None:
    """CANCELLED as a status is never the caller's own doing."""
    arrived = from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.CANCELLED, None, None, "CANCELLED"))

    assert (arrived.code, arrived.reason) == (Code.UNAVAILABLE, "SERVER_STOPPING")


def test_details_that_a_proxy_mangled_count_as_absent() -> None:
    """Broken bytes never hide the error that they belong to."""
    trailing = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff\xff"))
    arrived = from_rpc_error(grpc.aio.AioRpcError(grpc.StatusCode.ABORTED, None, trailing, "lost a race"))

    assert (arrived.code, arrived.reason) == (Code.ABORTED, "ABORTED")


def test_every_code_has_its_twin_in_grpc() -> None:
    """The numbers agree both ways."""
    assert all(code_of(status_code(code)) is code for code in Code)
    assert all(status_code(code_of(code)) is code for code in grpc.StatusCode)
