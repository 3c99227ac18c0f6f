"""How errors become answers."""

from __future__ import annotations

import json

import pytest

from kit.errors import Code, FailedPrecondition, InvalidArgument, MillraceError, NotFound, Unavailable, error_of
from services.edge.fault import Fault

# The table of the design, word for word; every other code is 500.
STATUSES = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.CANCELLED: 499,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
}


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_every_code_has_a_status(code):
    """No code is left without its HTTP status, and the envelope has exactly OpenAI's four keys."""
    fault = Fault.of(error_of(code, "SOME_REASON", "text"))

    assert fault.status == STATUSES.get(code, 500)
    assert json.loads(fault.body())["error"].keys() == {"message", "type", "param", "code"}


def test_the_message_leads_with_the_field():
    """A violation is told with the body's name of the field, not with the contract's."""
    fault = Fault.of(InvalidArgument("spec.sampling.seed", "must be small"))

    assert (fault.param, fault.message, fault.code) == ("seed", "seed: must be small", "invalid_value")


def test_a_violation_of_no_field_in_particular_has_no_prefix():
    """What an upstream refuses without a name is told as it is, not as the field `None`."""
    fault = Fault.of(InvalidArgument("spec", "the upstream answered 400"))

    assert (fault.param, fault.message) == (None, "the upstream answered 400")


def test_the_caller_of_a_body_may_know_its_field_better():
    """A name given for the field stands for the contract's, in both places."""
    fault = Fault.of(InvalidArgument("spec.raw_prompt", "is too long"), "prompts[3]")

    assert (fault.param, fault.message) == ("prompts[3]", "prompts[3]: is too long")


def test_blocked_content_names_its_categories():
    """Categories are in the message, and only where asked for in a key of their own."""
    fault = Fault.of(FailedPrecondition("CONTENT_BLOCKED", "Refused.", metadata={"categories": "hate,violence"}))

    assert (fault.status, fault.code, fault.kind) == (400, "content_policy_violation", "invalid_request_error")
    assert "hate, violence" in fault.message
    assert "categories" not in json.loads(fault.body())["error"]
    assert json.loads(fault.body(with_extra=True))["error"]["categories"] == ["hate", "violence"]


def test_the_transports_words_stay_inside():
    """What gRPC itself says of a broken connection has addresses in it; callers get other words."""
    fault = Fault.of(MillraceError(Code.UNAVAILABLE, "UNAVAILABLE", "failed to connect to ipv4:10.0.0.7:50051"))

    assert "10.0.0.7" not in fault.message


def test_own_words_are_kept():
    """What a service of ours says reaches the caller."""
    assert Fault.of(Unavailable("ALL_TARGETS_FAILED", "No target answered.")).message == "No target answered."


def test_what_is_not_cached_is_a_gateway_timeout():
    """As RFC 9111 has it for only-if-cached; nothing was billed, and nothing was looked for elsewhere."""
    fault = Fault.of(NotFound("NOT_CACHED", "no kept answer fits"))

    assert (fault.status, fault.code, fault.headers) == (504, "not_cached", ())
