"""What an upstream's failure means: whose fault, whether to come back, and nothing of the operator's secrets."""

from __future__ import annotations

import email.utils
import json
import time

import aiohttp
import pytest

from kit.errors import Code
from services.inference.engines.openai_errors import RETRY_AFTER_MS_MAX, from_status, from_transport, retry_after_ms


def body(message: str = "said", **fields: object) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, Code.INVALID_ARGUMENT, "UPSTREAM_BAD_REQUEST"),
        (413, Code.INVALID_ARGUMENT, "UPSTREAM_STATUS_413"),
        (422, Code.INVALID_ARGUMENT, "UPSTREAM_UNPROCESSABLE_ENTITY"),
        (404, Code.NOT_FOUND, "MODEL_NOT_FOUND"),
        (429, Code.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMIT"),
        (401, Code.UNAVAILABLE, "UPSTREAM_AUTHENTICATION"),
        (403, Code.UNAVAILABLE, "UPSTREAM_PERMISSION_DENIED"),
        (302, Code.UNAVAILABLE, "UPSTREAM_STATUS_302"),
        (500, Code.UNAVAILABLE, "UPSTREAM_INTERNAL_SERVER"),
        (529, Code.UNAVAILABLE, "UPSTREAM_INTERNAL_SERVER"),
    ],
)
def test_statuses(status: int, code: Code, reason: str) -> None:
    """The caller's own mistakes are told as such; everything else is the upstream's."""
    error = from_status(status, {}, body(), "fake")

    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_what_is_between_us_and_the_upstream_stays_there(status: int) -> None:
    """An upstream quotes the operator's key when it refuses it; no caller sees that."""
    error = from_status(status, {}, body("Incorrect API key provided: sk-abc"), "fake")

    assert "sk-abc" not in error.message
    assert "fake" in error.message


def test_the_callers_own_mistake_is_explained() -> None:
    """The upstream's words and the field it names reach the caller."""
    error = from_status(400, {}, body("bad temperature", param="temperature"), "fake")

    assert error.field_violations[0].field == "temperature"
    assert "bad temperature" in error.message


@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [
        ("context_length_exceeded", Code.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
        ("content_filter", Code.FAILED_PRECONDITION, "CONTENT_BLOCKED"),
        ("content_policy_violation", Code.FAILED_PRECONDITION, "CONTENT_BLOCKED"),
    ],
)
def test_codes_that_say_more_than_the_status(word: str, code: Code, reason: str) -> None:
    """A prompt that is too long, or that the upstream's filter refused."""
    error = from_status(400, {}, body(code=word), "fake")

    assert (error.code, error.reason) == (code, reason)


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\xff", b'{"error": "flat"}', b'{"error": null}', b"[]", b'{"x": 1}'])
def test_bodies_that_are_no_envelope(raw: bytes) -> None:
    """Whatever the body is, the status speaks."""
    assert from_status(400, {}, raw, "fake").code is Code.INVALID_ARGUMENT


def test_long_messages_are_cut() -> None:
    """An error is no place for a page of HTML."""
    assert len(from_status(400, {}, body("x" * 10_000), "fake").message) < 600


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7_000),
        ({"retry-after": "1.5"}, 1_500),
        ({"retry-after-ms": "250", "retry-after": "7"}, 250),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "9" * 30}, RETRY_AFTER_MS_MAX),
        ({"retry-after": "Fri, 01 Jan 2099 00:00:00 GMT"}, RETRY_AFTER_MS_MAX),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], wait_ms: int | None) -> None:
    """Seconds, milliseconds or a date; nonsense is no advice."""
    assert retry_after_ms(headers) == wait_ms
    assert from_status(429, headers, b"", "fake").retry_after_ms == wait_ms


def test_retry_after_a_date() -> None:
    """A date is as far away as it is."""
    wait_ms = retry_after_ms({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})

    assert wait_ms is not None
    assert 50_000 < wait_ms <= 60_000


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aiohttp.ConnectionTimeoutError(), "UPSTREAM_CONNECT_TIMEOUT"),
        (aiohttp.ClientConnectorError(None, OSError()), "UPSTREAM_UNREACHABLE"),  # type: ignore[arg-type]
        (aiohttp.ClientPayloadError(), "UPSTREAM_TRUNCATED"),
        (aiohttp.ServerDisconnectedError(), "UPSTREAM_DISCONNECTED"),
        (aiohttp.ClientOSError(), "UPSTREAM_DISCONNECTED"),
    ],
)
def test_connections_that_fail(error: Exception, reason: str) -> None:
    """Each way of failing has its name, and all of them may be tried elsewhere."""
    said = from_transport(error, "fake")

    assert (said.code, said.reason) == (Code.UNAVAILABLE, reason)


@pytest.mark.parametrize("said", ["key sk-proj-abcdefgh12345 is wrong", "Bearer abc.def is wrong", "key_12345678abc"])
def test_a_quoted_key_is_masked(said: str) -> None:
    """Whatever the upstream quotes of the operator's credentials stays here."""
    body = json.dumps({"error": {"message": said}}).encode()
    error = from_status(400, {}, body, "fake")
    assert "[key]" in error.message
    assert not [word for word in ("abcdefgh12345", "abc.def", "12345678abc") if word in error.message]
