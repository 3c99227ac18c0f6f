"""What an upstream's failure means to the caller.

The openai SDK names the failures; this table says which of them are the caller's own (their message is passed on) and
which are between Millrace and the upstream (they are told without detail: an upstream's 401 quotes the operator's
key). An error means the same whether it came as a status or within an answer that had begun.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
import openai

from kit.errors import FailedPrecondition, InvalidArgument, MillraceError, NotFound, ResourceExhausted, Unavailable
from services.inference.engines.openai_waits import rate_limit_ms, retry_after_ms

MESSAGE_CHARS_MAX = 500
# What looks like a credential: upstreams quote the operator's in their messages.
SECRET = re.compile(r"\b(?:sk|pk|key|api|gsk|xai|hf)[-_][\w-]{8,}|\bAIza[\w-]{20,}|\bBearer\s+\S+", re.IGNORECASE)

SDK_ERRORS: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}
# The words of errors that come without a status: OpenAI's, then those of vLLM and SGLang, llama.cpp and TGI.
STATUS_OF_WORD = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "BadRequestError": 400,
    "NotFoundError": 404,
    "exceed_context_size_error": 400,
    "validation": 422,
    "overloaded": 429,
}
CONTEXT_WORDS = {"context_length_exceeded", "exceed_context_size_error"}
# Servers that have no code for it say it like this: vLLM, SGLang and many after OpenAI; llama.cpp; Ollama; TGI;
# Anthropic; Gemini; Mistral; Bedrock.
CONTEXT_TOO_LONG = re.compile(
    r"""maximum\ context\ length | exceeds?\ (?:the\ )?(?:available\ )?context
    | context\ (?:size|length|window)\ (?:has\ been\ )?exceeded | exceed\ context\ (?:limit|window)
    | longer\ than\ the\ (?:model's\ context\ length|maximum\ model\ length) | too\ long\ to\ fit\ into\ the\ model
    | `inputs`\ (?:must\ have\ less\ than|tokens\ \+) | prompt\ is\ too\ long
    | input\ token\ count.{0,40}exceeds | too\ large\ for\ model\ with | input\ is\ too\ long\ for""",
    re.IGNORECASE | re.VERBOSE,
)
# What an upstream calls what it was asked with, and the contract's names for it.
ASKED_FIELDS = (
    (re.compile(r"^messages\b"), "spec.conversation.messages"),
    (re.compile(r"^prompt\b"), "spec.raw_prompt"),
)
CONTEXT_STATUSES = {400, 413, 422, 500}  # llama.cpp says 500 when the context ends within the answer
FILTER_WORDS = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
FILTERED = re.compile(r"content management policy|ResponsibleAIPolicyViolation")  # Azure's, where a proxy retold it
UNKNOWN_METHODS = {501, 505}  # what the server cannot do now it cannot do a moment later
UNPAID_WORDS = {"insufficient_quota", "billing_hard_limit_reached"}


@dataclass(frozen=True, slots=True)
class _Said:
    """What an error's body says; `words` are all its machine-readable names."""

    message: str = ""
    param: str = ""
    words: frozenset[str] = frozenset()
    status: int | None = None


def from_status(status: int, headers: Mapping[str, str], body: bytes, label: str) -> MillraceError:
    """The error of an answer whose status is not 200.

    Args:
        status: The HTTP status.
        headers: The answer's headers, case-insensitive.
        body: What was read of the body; parsed as OpenAI's error envelope where it is one.
        label: The upstream's name in the models file.
    """
    return _error(status, headers, _parse(body) or _Said(), label)


def from_answer(body: bytes, label: str) -> MillraceError | None:
    """The error that stands within an answer whose status was 200; None where there is none.

    Args:
        body: JSON, a chunk or a whole answer.
        label: The upstream's name in the models file.
    """
    said = _parse(body)
    if said is None:
        return None
    if said.status is None or said.status >= 500:
        if special := _special(said.status or 500, said):
            return special
        return Unavailable("UPSTREAM_ERROR", f"upstream {label} reported an error within its answer; retry")
    return _error(said.status, {}, said, label)


def from_transport(error: Exception, label: str) -> MillraceError:
    """The error of a connection that failed: refused, reset, not resolved, not trusted, cut, or no HTTP."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unavailable("UPSTREAM_CONNECT_TIMEOUT", f"upstream {label} did not accept a connection in time; retry")
    if isinstance(error, aiohttp.ClientSSLError):
        message = f"upstream {label} has no certificate that is trusted; the operator must mend it, or name its ca_file"
        return Unavailable("UPSTREAM_TLS", message)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unavailable("UPSTREAM_UNREACHABLE", f"the host name of upstream {label} cannot be resolved; retry")
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return Unavailable("UPSTREAM_UNREACHABLE", f"the proxy before upstream {label} cannot be reached; retry")
    if isinstance(error, aiohttp.ClientConnectorError):
        return Unavailable("UPSTREAM_UNREACHABLE", f"upstream {label} cannot be reached; retry")
    if isinstance(error, aiohttp.ClientPayloadError):
        return truncated(label)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _from_proxy(error.status, label)
    if isinstance(error, aiohttp.ClientResponseError):
        return malformed("no HTTP, or too large a head")
    return Unavailable("UPSTREAM_DISCONNECTED", f"upstream {label} closed the connection; retry")


def _from_proxy(status: int, label: str) -> MillraceError:
    """The error of a proxy that makes no way to the upstream: none of the upstream's own statuses."""
    if status == 407:
        message = (
            f"the proxy before upstream {label} asks for a password, or for another one; the operator must give it"
        )
        return Unavailable("UPSTREAM_PROXY_REFUSED", message)
    if 400 <= status < 500:
        message = f"the proxy before upstream {label} refused ({status}); the operator must have it let calls through"
        return Unavailable("UPSTREAM_PROXY_REFUSED", message)
    return Unavailable("UPSTREAM_UNREACHABLE", f"the proxy before upstream {label} answered {status}; retry")


def truncated(label: str) -> MillraceError:
    """An upstream that did not finish its answer."""
    return Unavailable("UPSTREAM_TRUNCATED", f"upstream {label} ended its answer too early; retry")


def too_few_choices(label: str) -> MillraceError:
    """An upstream that has ended its answer well, with fewer choices than were asked for: it knows no `n`."""
    message = f"upstream {label} makes fewer choices than were asked for; ask for one"
    return InvalidArgument("spec.sampling.n", message, reason="CHOICES_UNSUPPORTED")


def malformed(what: str) -> MillraceError:
    """An upstream that does not keep to the protocol."""
    return Unavailable("UPSTREAM_MALFORMED", f"the upstream's answer is malformed ({what}); retry")


def _error(status: int, headers: Mapping[str, str], said: _Said, label: str) -> MillraceError:
    if special := _special(status, said):
        return special
    if status == 407:  # of a proxy before an upstream that is spoken to in the clear
        return _from_proxy(status, label)
    reason, message = "UPSTREAM_" + _name(status), _for_caller(said, f"the upstream answered {status}")
    if status in (400, 413, 422):
        return InvalidArgument(_field_of(said.param), message, reason=reason)
    if status == 404:
        return NotFound("MODEL_NOT_FOUND", message)
    if status == 429 and said.words & UNPAID_WORDS:
        return Unavailable(
            "UPSTREAM_QUOTA", f"upstream {label} refuses for want of credit; the operator must see to it"
        )
    if status == 429:
        wait_ms = retry_after_ms(headers)
        wait_ms = rate_limit_ms(headers) if wait_ms is None else wait_ms
        return ResourceExhausted(reason, f"upstream {label} is rate limited; retry", retry_after_ms=wait_ms)
    if status in (401, 403):
        return Unavailable(reason, f"upstream {label} refused Millrace's own credentials; the operator must mend them")
    if 300 <= status < 400:
        return Unavailable("UPSTREAM_REDIRECT", f"upstream {label} has moved; the operator must mend its base_url")
    return Unavailable(reason, f"upstream {label} answered {status}; retry", retry_after_ms=retry_after_ms(headers))


def _field_of(param: str) -> str:
    """The contract's name of a field that the upstream names, where it has another one."""
    for pattern, name in ASKED_FIELDS:
        param = pattern.sub(name, param)
    return param or "spec"


def _special(status: int, said: _Said) -> MillraceError | None:
    """What another target may take: a prompt that is too long here, or that a filter refused."""
    is_too_long = said.words & CONTEXT_WORDS or CONTEXT_TOO_LONG.search(said.message)
    if is_too_long and status in CONTEXT_STATUSES:
        message = _for_caller(said, "the prompt is longer than the model's context")
        return InvalidArgument("spec.input", message, reason="CONTEXT_LENGTH_EXCEEDED")
    if said.words & FILTER_WORDS or FILTERED.search(said.message):
        return FailedPrecondition("CONTENT_BLOCKED", _for_caller(said, "the upstream's content filter refused"))
    return None


def _for_caller(said: _Said, otherwise: str) -> str:
    return SECRET.sub("[key]", said.message or otherwise)[:MESSAGE_CHARS_MAX]


def _parse(body: bytes) -> _Said | None:
    """Reads OpenAI's envelope, the flat one of older vLLM and of SGLang, and the plain text of TGI."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    error = document if document.get("object") == "error" else document.get("error")
    if error is None:
        return None
    if isinstance(error, str):
        return _Said(error, words=_words(document.get("error_type")), status=_status(document.get("error_type")))
    if not isinstance(error, dict):
        return _Said()
    code, kind, status = error.get("code"), error.get("type"), error.get("status")
    inner = error.get("innererror")
    names = _words(code, kind, inner.get("code") if isinstance(inner, dict) else None)
    known = next((found for one in (code, status, kind) if (found := _status(one))), None)
    return _Said(_text(error.get("message")), _text(error.get("param")), names, known)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _words(*values: Any) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str))


def _status(value: Any) -> int | None:
    """The HTTP status that a code or type stands for."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) == 3 else STATUS_OF_WORD.get(value)
    return value if isinstance(value, int) and 400 <= value < 600 else None


def _name(status: int) -> str:
    """The SDK's name for a status, as a reason; statuses that it has no class for go by their number."""
    if (status < 500 or status in UNKNOWN_METHODS) and status not in SDK_ERRORS:
        return f"STATUS_{status}"
    words = SDK_ERRORS.get(status, openai.InternalServerError).__name__.removesuffix("Error")
    return "".join(f"_{char}" if char.isupper() and i else char for i, char in enumerate(words)).upper()
