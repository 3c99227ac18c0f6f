"""What an upstream's failure means: whose fault, whether to come back, and nothing of the operator's secrets."""

from __future__ import annotations

import json
import ssl

import aiohttp
import pytest

from kit.errors import Code
from services.inference.engines.openai_errors import from_answer, from_status, from_transport


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
        (302, Code.UNAVAILABLE, "UPSTREAM_REDIRECT"),
        (408, Code.UNAVAILABLE, "UPSTREAM_STATUS_408"),
        (409, Code.UNAVAILABLE, "UPSTREAM_CONFLICT"),
        (204, Code.UNAVAILABLE, "UPSTREAM_STATUS_204"),
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
    ("param", "field"),
    [
        ("messages", "spec.conversation.messages"),
        ("messages[1].role", "spec.conversation.messages[1].role"),
        ("prompt", "spec.raw_prompt"),
        ("prompt_cache_key", "prompt_cache_key"),
    ],
)
def test_what_an_upstream_was_asked_with_has_the_contracts_name(param: str, field: str) -> None:
    """The caller may have sent another body than the upstream got, with another word for it."""
    assert from_status(400, {}, body("bad", param=param), "fake").field_violations[0].field == field


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


# What servers without a code for it say: vLLM (three of its ways), SGLang, llama.cpp (three), llama-cpp-python, Ollama,
# TGI (two), Anthropic (two), Gemini, Mistral, Bedrock.
TOO_LONG = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
    "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 8192 tokens",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "request (4390 tokens) exceeds the available context size (4096 tokens), try increasing it",
    "Context size has been exceeded.",
    "Requested tokens (2285) exceed context window of 2048",
    "the input length exceeds the context length",
    "Input validation error: `inputs` must have less than 1024 tokens. Given: 1168",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1244 `inputs` tokens",
    "prompt is too long: 210000 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 143653 + 64000 > 200000",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
    "Input is too long for requested model.",
]


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("message", TOO_LONG)
def test_a_prompt_that_is_too_long_is_known_by_its_message(message: str, status: int) -> None:
    """In OpenAI's envelope, in the flat one of vLLM and SGLang, and as TGI's plain text."""
    flat = json.dumps({"object": "error", "message": message, "type": "BadRequestError", "code": 400}).encode()
    plain = json.dumps({"error": message, "error_type": "validation"}).encode()

    for raw in (body(message), flat, plain):
        assert from_status(status, {}, raw, "fake").reason == "CONTEXT_LENGTH_EXCEEDED"


@pytest.mark.parametrize(
    "message",
    [
        "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.",
        "max_tokens must be at least 1",
        "the image is too large",
        "String too long. Expected a string with maximum length 64",
    ],
)
def test_what_only_sounds_like_it_is_no_context(message: str) -> None:
    """Limits of another kind stay what they are: a longer context would not help."""
    assert from_status(400, {}, body(message), "fake").reason == "UPSTREAM_BAD_REQUEST"
    assert from_status(429, {}, body(message), "fake").reason == "UPSTREAM_RATE_LIMIT"


@pytest.mark.parametrize(
    "raw",
    [
        body("filtered", code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"}),
        body("filtered", code=None, innererror={"code": "ResponsibleAIPolicyViolation"}),
        body(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            code="400",
        ),
    ],
    ids=["code", "inner code", "retold by a proxy"],
)
def test_azures_filter_is_known(raw: bytes) -> None:
    """By its code, by its inner code, or by its words."""
    assert from_status(400, {}, raw, "azure").reason == "CONTENT_BLOCKED"


def test_no_credit_is_the_operators_matter() -> None:
    """A 429 that no wait would cure is no rate limit."""
    error = from_status(429, {"retry-after": "1"}, body("You exceeded your quota", code="insufficient_quota"), "fake")

    assert (error.code, error.reason, error.retry_after_ms) == (Code.UNAVAILABLE, "UPSTREAM_QUOTA", None)
    assert "operator" in error.message


def test_an_answer_without_an_error_has_none() -> None:
    """Chunks and answers are not mistaken for errors."""
    assert from_answer(b'{"choices": [], "error": null}', "fake") is None
    assert from_answer(b"<html>", "fake") is None


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"\xff", b'{"error": "flat"}', b'{"error": null}', b"[]", b'{"x": 1}', b"[" * 60_000]
)
def test_bodies_that_are_no_envelope(raw: bytes) -> None:
    """Whatever the body is, the status speaks."""
    assert from_status(400, {}, raw, "fake").code is Code.INVALID_ARGUMENT


def test_long_messages_are_cut() -> None:
    """An error is no place for a page of HTML."""
    assert len(from_status(400, {}, body("x" * 10_000), "fake").message) < 600


def test_a_rate_limit_says_when_to_come_back() -> None:
    """Advice comes first, then what the limits' own headers tell; without either nothing is known."""
    limits = {"x-ratelimit-reset-requests": "2s"}

    assert from_status(429, {"retry-after": "7", **limits}, b"", "fake").retry_after_ms == 7_000
    assert from_status(429, limits, b"", "fake").retry_after_ms == 2_000
    assert from_status(429, {}, b"", "fake").retry_after_ms is None
    assert from_status(503, limits, b"", "fake").retry_after_ms is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (aiohttp.ConnectionTimeoutError(), "UPSTREAM_CONNECT_TIMEOUT"),
        (aiohttp.ClientConnectorError(None, OSError()), "UPSTREAM_UNREACHABLE"),  # type: ignore[arg-type]
        (aiohttp.ClientConnectorDNSError(None, OSError()), "UPSTREAM_UNREACHABLE"),  # type: ignore[arg-type]
        (aiohttp.ClientConnectorSSLError(None, ssl.SSLError()), "UPSTREAM_TLS"),  # type: ignore[arg-type]
        (aiohttp.ClientConnectorCertificateError(None, ssl.CertificateError()), "UPSTREAM_TLS"),  # type: ignore[arg-type]
        (aiohttp.ClientResponseError(None, ()), "UPSTREAM_MALFORMED"),  # type: ignore[arg-type]
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
