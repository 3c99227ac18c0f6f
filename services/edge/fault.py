"""What a failed request is told: an HTTP status and OpenAI's error envelope.

One table turns gRPC codes into HTTP statuses; a field at fault is told by its name in the JSON body. Never more detail
than the error itself carries: an unknown error has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from kit.errors import Code, MillraceError
from services.edge.field_names import param_of

Headers = tuple[tuple[bytes, bytes], ...]


class ErrorBody(msgspec.Struct):
    """Why a request failed."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(msgspec.Struct):
    """The answer to every request that failed."""

    error: ErrorBody


_STATUS = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
# RFC 9111, section 5.2.1.7: what only-if-cached is answered where nothing is stored.
_STATUS_OF_REASON = {"NOT_CACHED": 504}
_TYPE = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_BAD_CREDENTIALS = (
    *("KEY_INVALID", "KEY_EXPIRED", "KEY_REVOKED"),
    *("TOKEN_INVALID", "TOKEN_EXPIRED", "USER_DISABLED", "CREDENTIAL_INVALID"),
)
_CODE = {
    "CONTENT_BLOCKED": "content_policy_violation",
    "INVALID_ARGUMENT": "invalid_value",
    "CREDENTIAL_MISSING": "missing_api_key",
    **dict.fromkeys(_BAD_CREDENTIALS, "invalid_api_key"),
    "RATE_LIMITED": "rate_limit_exceeded",
    "TOKENS_LIMITED": "rate_limit_exceeded",
    "CONCURRENCY_LIMITED": "rate_limit_exceeded",
    "BUDGET_EXCEEDED": "insufficient_quota",
}
# What is named and is not there: by a path or a field that has the same name everywhere.
_PARAM = {"MODEL_NOT_FOUND": "model", "FILE_NOT_FOUND": "file_id", "KEY_NOT_FOUND": "key_id"}
# After these the work may have been done and paid for: a client's automatic retry would pay twice.
_BILLED = {Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS, Code.ABORTED, Code.CANCELLED}
# A status that no service of ours wrote has the transport's words, which tell of addresses and sockets.
_TRANSPORT = {
    Code.UNAVAILABLE: "Inference cannot be reached now; try again soon.",
    Code.DEADLINE_EXCEEDED: "The request's time was over before the answer was complete.",
    Code.UNKNOWN: "Inference failed.",
}
_NO_RETRY = (b"x-should-retry", b"false")
# RFC 6750, section 3: whoever shows no credential is told the scheme, whoever shows a bad one that it is bad.
_ASK = (b"www-authenticate", b'Bearer realm="millrace"')
CHALLENGE = (b"www-authenticate", b'Bearer realm="millrace", error="invalid_token"')
# The SDKs wait no longer than a minute, whatever they are told: they would come back too soon, and again.
_RETRY_MS_MAX = 60_000
# Without a time to come back these mean that the request is larger than its limit.
_QUOTA_REASONS = ("TOKENS_LIMITED", "BUDGET_EXCEEDED")


class Fault(Exception):
    """An answer that is no success, ready for the wire.

    Args:
        status: HTTP status.
        message: What is wrong and what to do next.
        param: The field at fault, in the words of the body.
        extra: Further keys of the error object; only the suite's own endpoints have any.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: Headers = (),
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.kind = kind or _TYPE.get(status, "invalid_request_error" if status < 500 else "server_error")
        self.headers = headers
        self.extra = extra or {}

    @classmethod
    def invalid(cls, message: str, param: str | None = None, code: str | None = "invalid_value") -> Fault:
        """A request that can never succeed as it stands; the message leads with the field."""
        return cls(400, f"{param}: {message}" if param else message, param=param, code=code)

    @classmethod
    def internal(cls) -> Fault:
        """A failure of Millrace itself; the log has what the caller must not see."""
        return cls(500, "Internal error; the log has it under this request id.", code="internal", headers=(_NO_RETRY,))

    @classmethod
    def of(cls, error: MillraceError, param: str | None = None, route: str = "") -> Fault:
        """Turns the suite's error into an answer.

        Args:
            error: What went wrong.
            param: What the body calls the field at fault, where that is known.
            route: Template of the path whose body names the fields.
        """
        status = _STATUS_OF_REASON.get(error.reason) or _STATUS.get(error.code, 500)
        code = _CODE.get(error.reason) or error.reason.lower() or None
        message = error.message
        if error.reason == error.code.name:
            message = _TRANSPORT.get(error.code, message)
        if error.field_violations:
            violation = error.field_violations[0]
            param = param or param_of(violation.field, route)
            message = violation.description
        message = f"{param}: {message}" if param else message
        categories = [name for name in (error.metadata or {}).get("categories", "").split(",") if name]
        if categories and error.reason == "CONTENT_BLOCKED":
            message = f"{message} (categories: {', '.join(categories)})"
        extra = {"categories": categories} if categories else None
        param = param or _PARAM.get(error.reason)
        return cls(status, message, param=param, code=code, headers=_headers_of(error), extra=extra)

    def renamed(self, param: str) -> Fault:
        """The same of another field, for a body that was read in the words of another one."""
        return Fault.invalid(self.message.removeprefix(f"{self.param}: "), param, self.code)

    def body(self, with_extra: bool = False) -> bytes:
        """The envelope as JSON: OpenAI's four keys, and the extra ones where asked for."""
        envelope = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": {**envelope, **self.extra} if with_extra else envelope})


def _headers_of(error: MillraceError) -> Headers:
    """Says when to come back, that an automatic retry may be billed twice, or how to say who is calling."""
    if error.code is Code.UNAUTHENTICATED:
        return (_ASK if error.reason == "CREDENTIAL_MISSING" else CHALLENGE,)
    if error.retry_after_ms is not None:
        seconds = str(max(1, math.ceil(error.retry_after_ms / 1000))).encode()
        waits: Headers = ((b"retry-after", seconds), (b"retry-after-ms", str(error.retry_after_ms).encode()))
        return (*waits, _NO_RETRY) if error.retry_after_ms > _RETRY_MS_MAX else waits
    is_hopeless = error.code in _BILLED or error.reason in _QUOTA_REASONS
    return (_NO_RETRY,) if is_hopeless else ()
