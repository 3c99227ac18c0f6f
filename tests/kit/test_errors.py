from __future__ import annotations

import pytest

from kit.errors import Code, ConfigError, FieldViolation, InvalidArgument, MillraceError, NotFound, error_of


def test_invalid_argument_names_its_field() -> None:
    """The one violation repeats the message, and the message starts with the field."""
    error = InvalidArgument("messages[2].role", "must be set")

    assert error.code is Code.INVALID_ARGUMENT
    assert error.reason == "INVALID_ARGUMENT"
    assert error.message == "messages[2].role: must be set"
    assert error.field_violations == (FieldViolation("messages[2].role", "must be set"),)


def test_an_error_prints_what_a_log_needs() -> None:
    """The representation shows class, code, reason and message."""
    assert repr(NotFound("MODEL_NOT_FOUND", "no such model")) == (
        "NotFound(NOT_FOUND, MODEL_NOT_FOUND, 'no such model')"
    )


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
def test_an_error_from_the_wire_has_the_class_of_its_code(code: Code) -> None:
    """Whoever catches by class catches what came over a hop, too."""
    error = error_of(code, "WHY", "what", retry_after_ms=5, field_violations=[FieldViolation("a", "b")])

    assert (error.code, error.reason, error.message, error.retry_after_ms) == (code, "WHY", "what", 5)
    assert getattr(type(error), "CODE", Code.INVALID_ARGUMENT) is code or type(error) is MillraceError
    assert not isinstance(error, ConfigError)


def test_a_code_without_a_class_of_its_own_is_the_base() -> None:
    """DATA_LOSS has no class: nobody raises it on purpose."""
    assert type(error_of(Code.DATA_LOSS, "TORN", "torn")) is MillraceError
