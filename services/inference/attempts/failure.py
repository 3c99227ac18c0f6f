"""What a target's failure means: for the target's breaker, for another try, and for the next target.

One small table instead of conditions all over the path. It knows errors, never targets.
"""

from __future__ import annotations

from kit.errors import Code, MillraceError
from services.inference.routing.rules import Rules

# What another target may well answer. The rest is about the request itself, and would fail anywhere.
ELSEWHERE = frozenset({Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNKNOWN})
CONTEXT_TOO_LONG = "CONTEXT_LENGTH_EXCEEDED"
REFUSED = "CONTENT_BLOCKED"
RATE_LIMITED = "UPSTREAM_RATE_LIMIT"
TARGET_FULL = "TARGET_FULL"
BREAKER_OPEN = "BREAKER_OPEN"
# A caller's mistake at one target may be none at the next: it knows the model, its tools, a longer context or body.
ELSEWHERE_REASONS = frozenset(
    {
        "MODEL_NOT_FOUND",
        "TOKEN_NOT_IN_MODEL",
        "TOOLS_UNSUPPORTED",
        "CHOICES_UNSUPPORTED",
        CONTEXT_TOO_LONG,
        "UPSTREAM_STATUS_413",
    }
)
OWN = frozenset({"MODEL_LOADING", "MODEL_UNAVAILABLE", TARGET_FULL})  # said by Millrace, not by the target
# Asking the same target again at once would change nothing: its operator must act, or it has no room.
LASTING = OWN | {
    "MODEL_STUCK",
    "INTER_TOKEN_TIMEOUT",  # it has had its whole patience once in this call
    "UPSTREAM_AUTHENTICATION",
    "UPSTREAM_PERMISSION_DENIED",
    "UPSTREAM_PROXY_REFUSED",
    "UPSTREAM_QUOTA",
    "UPSTREAM_REDIRECT",
    "UPSTREAM_TLS",
}
# Other statuses of 4xx, 501 and 505 say that the request is not for this upstream; but these two say "later".
NOT_FOR_IT, LATER = ("UPSTREAM_STATUS_4", "UPSTREAM_STATUS_5"), {"UPSTREAM_STATUS_408", "UPSTREAM_STATUS_425"}


def may_go_elsewhere(error: MillraceError, rules: Rules) -> bool:
    """Whether another target may well answer."""
    if error.reason == REFUSED:
        return rules.on_refusal == "next"
    return error.code in ELSEWHERE or error.reason in ELSEWHERE_REASONS


def may_pass(error: MillraceError) -> bool:
    """Whether the same target may well answer a moment later."""
    if error.code is Code.RESOURCE_EXHAUSTED:
        return error.reason == RATE_LIMITED  # a full queue here has been waited for already
    if error.reason in LASTING or (error.reason.startswith(NOT_FOR_IT) and error.reason not in LATER):
        return False
    return error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)


def is_targets_fault(error: MillraceError) -> bool:
    """Whether it counts against the target: not what the caller caused, and not a limit that it told us of."""
    return error.code in ELSEWHERE - {Code.RESOURCE_EXHAUSTED} and error.reason not in OWN
