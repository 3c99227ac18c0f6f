"""The one tree of errors that a caller can meet.

Nouns raise these; `kit.interceptors` turns them into gRPC statuses and `kit.status` reads them back on the other side,
so that a reason, a delay or a bad field survives every hop. This module never imports grpc: code that decides need not
know how its errors travel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class Code(IntEnum):
    """Canonical status codes, numbered as in google.rpc.Code."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True)
class FieldViolation:
    """A field of the request and what is wrong with it."""

    field: str
    description: str


class MillraceError(Exception):
    """An error with a canonical code, a stable reason and a message that says what to do next.

    Attributes:
        code: Canonical code.
        reason: Stable name for programs, UPPER_SNAKE, at most 63 characters.
        message: For people; it reaches the caller, so it holds no secret and no content.
        retry_after_ms: Earliest useful retry; None where a retry would not help or nothing is known.
        field_violations: The fields of the request that are wrong.
        quota_violations: Pairs of the subject whose quota is used up and a description.
        metadata: More facts for programs; small.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        field_violations: Sequence[FieldViolation] = (),
        quota_violations: Sequence[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.field_violations = tuple(field_violations)
        self.quota_violations = tuple(quota_violations)
        self.metadata = dict(metadata or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.reason}, {self.message!r})"


class InvalidArgument(MillraceError):
    """A field of the request is wrong, whatever the state of the system."""

    def __init__(
        self,
        field: str,
        message: str,
        *,
        reason: str = "INVALID_ARGUMENT",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        violations = (FieldViolation(field, message),)
        text = f"{field}: {message}"
        super().__init__(Code.INVALID_ARGUMENT, reason, text, field_violations=violations, metadata=metadata)


class _Coded(MillraceError):
    """An error whose class fixes its code."""

    CODE: ClassVar[Code]

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retry_after_ms: int | None = None,
        quota_violations: Sequence[tuple[str, str]] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            self.CODE,
            reason,
            message,
            retry_after_ms=retry_after_ms,
            quota_violations=quota_violations,
            metadata=metadata,
        )


class NotFound(_Coded):
    """What was asked for does not exist, or the caller may not know that it does."""

    CODE = Code.NOT_FOUND


class PermissionDenied(_Coded):
    """The caller is known and may not do this."""

    CODE = Code.PERMISSION_DENIED


class Unauthenticated(_Coded):
    """The caller did not say who it is, or the credential is not valid."""

    CODE = Code.UNAUTHENTICATED


class ResourceExhausted(_Coded):
    """A quota, a queue or a limit is used up."""

    CODE = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(_Coded):
    """The system is not in the state that the request needs; a retry alone will not help."""

    CODE = Code.FAILED_PRECONDITION


class Aborted(_Coded):
    """The operation lost a race; the caller may start it again."""

    CODE = Code.ABORTED


class Unavailable(_Coded):
    """Something that is needed is down; a retry may help."""

    CODE = Code.UNAVAILABLE


class DeadlineExceeded(_Coded):
    """The time that the caller gave is over."""

    CODE = Code.DEADLINE_EXCEEDED


class Unimplemented(_Coded):
    """The contract has this; this server does not do it."""

    CODE = Code.UNIMPLEMENTED


class Internal(_Coded):
    """An invariant is broken: a bug, here or in what answered."""

    CODE = Code.INTERNAL


class ConfigError(FailedPrecondition):
    """Start-up cannot go on: a setting or a configuration file is wrong. The message names the place and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__("CONFIG_INVALID", message)


_CLASSES: dict[Code, type[MillraceError]] = {
    Code.INVALID_ARGUMENT: InvalidArgument,
    **{cls.CODE: cls for cls in _Coded.__subclasses__()},
}


def error_of(
    code: Code,
    reason: str,
    message: str,
    *,
    retry_after_ms: int | None = None,
    field_violations: Sequence[FieldViolation] = (),
    quota_violations: Sequence[tuple[str, str]] = (),
    metadata: Mapping[str, str] | None = None,
) -> MillraceError:
    """Makes an error of the class that stands for a code, so that `except NotFound` works across a hop."""
    cls = _CLASSES.get(code, MillraceError)
    error = cls.__new__(cls)
    # The subclasses' constructors ask for less than a status from the wire can hold.
    MillraceError.__init__(
        error,
        code,
        reason,
        message,
        retry_after_ms=retry_after_ms,
        field_violations=field_violations,
        quota_violations=quota_violations,
        metadata=metadata,
    )
    return error
