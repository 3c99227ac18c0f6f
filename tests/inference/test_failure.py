"""What failures mean: a table, checked row by row."""

from __future__ import annotations

import pytest

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound, error_of
from services.inference.attempts import failure
from services.inference.routing.rules import Rules

TOO_LONG = InvalidArgument("spec.input", "too long", reason="CONTEXT_LENGTH_EXCEEDED")
NO_MODEL = NotFound("MODEL_NOT_FOUND", "no such model")
BLOCKED = FailedPrecondition("CONTENT_BLOCKED", "refused")


def of(code: Code, reason: str = "UPSTREAM_ODD") -> MillraceError:
    return error_of(code, reason, "odd")


@pytest.mark.parametrize(
    ("error", "elsewhere", "passes", "counts"),
    [
        (of(Code.UNAVAILABLE), True, True, True),
        (of(Code.UNAVAILABLE, "UPSTREAM_AUTHENTICATION"), True, False, True),
        (of(Code.UNAVAILABLE, "UPSTREAM_PERMISSION_DENIED"), True, False, True),
        (of(Code.UNAVAILABLE, "UPSTREAM_TLS"), True, False, True),
        (of(Code.UNAVAILABLE, "UPSTREAM_STATUS_402"), True, False, True),
        (of(Code.UNAVAILABLE, "UPSTREAM_STATUS_408"), True, True, True),
        (of(Code.DEADLINE_EXCEEDED, "INTER_TOKEN_TIMEOUT"), True, False, True),
        (of(Code.INVALID_ARGUMENT, "UPSTREAM_STATUS_413"), True, False, False),
        (of(Code.UNAVAILABLE, "MODEL_LOADING"), True, False, False),
        (of(Code.UNAVAILABLE, "MODEL_UNAVAILABLE"), True, False, False),
        (of(Code.DEADLINE_EXCEEDED, "TTFT_TIMEOUT"), True, True, True),
        (of(Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT"), True, True, False),
        (of(Code.RESOURCE_EXHAUSTED, "TARGET_FULL"), True, False, False),
        (of(Code.INTERNAL), True, False, True),
        (of(Code.UNKNOWN), True, False, True),
        (of(Code.INVALID_ARGUMENT), False, False, False),
        (of(Code.UNIMPLEMENTED), False, False, False),
        (TOO_LONG, True, False, False),
        (NO_MODEL, True, False, False),
        (BLOCKED, False, False, False),
        (of(Code.FAILED_PRECONDITION, "TOKEN_NOT_IN_MODEL"), True, False, False),
    ],
    ids=lambda value: value.reason if isinstance(value, MillraceError) else None,
)
def test_the_table(error: MillraceError, elsewhere: bool, passes: bool, counts: bool) -> None:
    """Whether the next target, the same target, and the breaker take it up."""
    assert failure.may_go_elsewhere(error, Rules()) is elsewhere
    assert failure.may_pass(error) is passes
    assert failure.is_targets_fault(error) is counts


def test_a_refusal_goes_on_where_the_route_says_so() -> None:
    """What one upstream declines to answer another may answer, if the operator wants that."""
    assert failure.may_go_elsewhere(BLOCKED, Rules(on_refusal="next"))
