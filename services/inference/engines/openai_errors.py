"""What an upstream's failure means to the caller.

The openai SDK names the failures; this table says which of them are the caller's own (their message is passed on) and
which are between Millrace and the upstream (they are told without detail: an upstream's 401 quotes the operator's
key).
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

import aiohttp
import msgspec
import openai

from kit.errors import FailedPrecondition, InvalidArgument, MillraceError, NotFound, ResourceExhausted, Unavailable

MESSAGE_CHARS_MAX = 500
RETRY_AFTER_MS_MAX = 24 * 3_600_000  # who asks for more than a day has a broken clock
# What looks like a credential: upstreams quote the operator's in their messages.
SECRET = re.compile(r"\b(?:sk|pk|key|api|gsk|xai|hf)[-_][\w-]{8,}|\bBearer\s+\S+", re.IGNORECASE)

SDK_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


class _Error(msgspec.Struct):
    message: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Envelope(msgspec.Struct):
    error: _Error | str | None = None


def from_status(status: int, headers: Mapping[str, str], body: bytes, label: str) -> MillraceError:
    """The error of an answer whose status is not 200.

    Args:
        status: The HTTP status.
        headers: The answer's headers, case-insensitive.
        body: What was read of the body; parsed as OpenAI's error envelope where it is one.
        label: The upstream's name in the models file.
    """
    error = _parse(body)
    said = SECRET.sub("[key]", error.message or f"the upstream answered {status}")[:MESSAGE_CHARS_MAX]
    reason = "UPSTREAM_" + _name(status)
    if error.code == "context_length_exceeded":
        return InvalidArgument("spec.input", said, reason="CONTEXT_LENGTH_EXCEEDED")
    if error.code in ("content_filter", "content_policy_violation"):
        return FailedPrecondition("CONTENT_BLOCKED", said)
    if status in (400, 413, 422):
        return InvalidArgument(error.param or "spec", said, reason=reason)
    if status == 404:
        return NotFound("MODEL_NOT_FOUND", said)
    if status == 429:
        return ResourceExhausted(
            reason, f"upstream {label} is rate limited; retry", retry_after_ms=retry_after_ms(headers)
        )
    if status in (401, 403):
        return Unavailable(reason, f"upstream {label} refused Millrace's own credentials; the operator must mend them")
    return Unavailable(reason, f"upstream {label} answered {status}; retry", retry_after_ms=retry_after_ms(headers))


def from_transport(error: Exception, label: str) -> MillraceError:
    """The error of a connection that failed: refused, reset, not resolved, not trusted or cut."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unavailable("UPSTREAM_CONNECT_TIMEOUT", f"upstream {label} did not accept a connection in time; retry")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientSSLError):
        return Unavailable("UPSTREAM_UNREACHABLE", f"upstream {label} cannot be reached; retry")
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unavailable("UPSTREAM_TRUNCATED", f"upstream {label} ended its answer too early; retry")
    return Unavailable("UPSTREAM_DISCONNECTED", f"upstream {label} closed the connection; retry")


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that an answer asks for: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]))
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.strip().replace(".", "", 1).isdigit():
            return _bounded(float(value) * 1000)
        return _bounded((email.utils.parsedate_to_datetime(value).timestamp() - time.time()) * 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(wait_ms: float) -> int:
    if not math.isfinite(wait_ms):
        raise ValueError("no time to wait for")
    return int(min(max(0.0, wait_ms), RETRY_AFTER_MS_MAX))


def _parse(body: bytes) -> _Error:
    try:
        error = msgspec.json.decode(body, type=_Envelope).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Error()
    return error if isinstance(error, _Error) else _Error(message=error)


def _name(status: int) -> str:
    """The SDK's name for a status, as a reason; statuses that it has no class for go by their number."""
    if status < 500 and status not in SDK_ERRORS:
        return f"STATUS_{status}"
    words = SDK_ERRORS.get(status, openai.InternalServerError).__name__.removesuffix("Error")
    return "".join(f"_{char}" if char.isupper() and i else char for i, char in enumerate(words)).upper()
