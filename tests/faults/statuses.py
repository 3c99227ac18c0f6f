"""Faults that an upstream tells by a status."""

from __future__ import annotations

import email.utils

from kit.errors import Code
from tests.faults.answers import error, whole
from tests.faults.fault import Fault, refusal

IN_2099 = email.utils.formatdate(4_070_908_800, usegmt=True)
A_DAY_MS = 86_400_000
TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
FILTERED = error(400, code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})
CREDIT = error(429, code="insufficient_quota")
LATER = {"Retry-After": "30"}
RESET = {"x-ratelimit-reset-tokens": "6m0s"}


def _limit(
    name: str, says: str, tries: int = 1, retry_after_ms: int | None = None, headers: dict[str, str] | None = None
) -> Fault:
    """A rate limit: no fault of the upstream's, and a wait that is kept to."""
    return Fault(
        name, says, (error(429, headers=headers or {}),), Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT", tries=tries,
        opens=False, retry_after_ms=retry_after_ms,
    )  # fmt: skip


def _failure(name: str, says: str, answer: bytes, reason: str, tries: int = 2) -> Fault:
    """The upstream's fault, or its operator's."""
    return Fault(name, says, (answer,), reason=reason, tries=tries)


STATUSES = (
    _failure("204", "answers 204", whole(b"", 204), "UPSTREAM_STATUS_204"),
    _failure("302", "answers 302", whole(b"", 302, Location="/v2"), "UPSTREAM_REDIRECT", tries=1),
    refusal("400", "answers 400", error(400, param="top_p"), Code.INVALID_ARGUMENT, "UPSTREAM_BAD_REQUEST"),
    refusal(
        "400-context", "answers 400 in vLLM's words for too long a prompt", error(400, TOO_LONG),
        Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED", spared=True,
    ),
    refusal(
        "400-filter", "answers 400 as Azure's filter does", FILTERED, Code.FAILED_PRECONDITION, "CONTENT_BLOCKED"
    ),
    _failure("401", "answers 401", error(401), "UPSTREAM_AUTHENTICATION", tries=1),
    _failure("403", "answers 403", error(403), "UPSTREAM_PERMISSION_DENIED", tries=1),
    refusal("404", "answers 404", error(404), Code.NOT_FOUND, "MODEL_NOT_FOUND", spared=True),
    _failure("408", "answers 408", error(408), "UPSTREAM_STATUS_408"),
    _failure("409", "answers 409", error(409), "UPSTREAM_CONFLICT"),
    refusal("413", "answers 413", error(413), Code.INVALID_ARGUMENT, "UPSTREAM_STATUS_413", spared=True),
    refusal("422", "answers 422", error(422), Code.INVALID_ARGUMENT, "UPSTREAM_UNPROCESSABLE_ENTITY"),
    _limit("429", "answers 429", tries=2),
    _limit("429-ms", "answers 429, `retry-after-ms: 50`", 2, 50, {"retry-after-ms": "50"}),
    _limit("429-seconds", "answers 429, `Retry-After: 30`", 1, 30_000, LATER),
    _limit("429-date", "answers 429, a date in 2099 as `Retry-After`", 1, A_DAY_MS, {"Retry-After": IN_2099}),
    _limit("429-reset", "answers 429, `x-ratelimit-reset-tokens: 6m0s`", 1, 360_000, RESET),
    _failure("429-credit", "answers 429 for want of credit", CREDIT, "UPSTREAM_QUOTA", tries=1),
    _failure("500", "answers 500", error(500), "UPSTREAM_INTERNAL_SERVER"),
    _failure("502", "answers 502", error(502), "UPSTREAM_INTERNAL_SERVER"),
    _failure("503", "answers 503", error(503), "UPSTREAM_INTERNAL_SERVER"),
    Fault(
        "503-later", "answers 503, `Retry-After: 30`", (error(503, headers=LATER),),
        reason="UPSTREAM_INTERNAL_SERVER", tries=1, retry_after_ms=30_000,
    ),
    _failure("504", "answers 504", error(504), "UPSTREAM_INTERNAL_SERVER"),
)  # fmt: skip
