"""How long an upstream asks to be left alone."""

from __future__ import annotations

import email.utils
import time

import pytest

from services.inference.engines.openai_waits import RETRY_AFTER_MS_MAX, rate_limit_ms, retry_after_ms


@pytest.mark.parametrize(
    ("headers", "wait_ms"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7_000),
        ({"retry-after": "1.5"}, 1_500),
        ({"retry-after-ms": "250", "retry-after": "7"}, 250),
        ({"retry-after": "soon"}, None),
        ({"retry-after-ms": "inf"}, None),
        ({"retry-after-ms": "soon", "retry-after": "20"}, 20_000),
        ({"retry-after-ms": "nan", "retry-after": "20"}, 20_000),
        ({"retry-after-ms": "nan"}, None),
        ({"retry-after": "9" * 30}, RETRY_AFTER_MS_MAX),
        ({"retry-after": "Fri, 01 Jan 2099 00:00:00 GMT"}, RETRY_AFTER_MS_MAX),
        ({"retry-after": email.utils.formatdate(0, usegmt=True)}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], wait_ms: int | None) -> None:
    """Seconds, milliseconds or a date; nonsense is no advice."""
    assert retry_after_ms(headers) == wait_ms


def test_retry_after_a_date() -> None:
    """A date is as far away as it is."""
    wait_ms = retry_after_ms({"retry-after": email.utils.formatdate(time.time() + 60, usegmt=True)})

    assert wait_ms is not None
    assert 50_000 < wait_ms <= 60_000


@pytest.mark.parametrize(
    ("told", "wait_ms"),
    [
        ("1s", 1_000),
        ("6m0s", 360_000),
        ("2m59.56s", 179_560),
        ("12ms", 12),
        ("1h2m3.5s", 3_723_500),
        ("7.66", 7_660),
        ("1d", RETRY_AFTER_MS_MAX),
        ("", None),
        ("soon", None),
        ("6m0", None),
        ("-1s", None),
        ("1606678044", None),
        ("2d", None),
    ],
)
def test_rate_limit_headers(told: str, wait_ms: int | None) -> None:
    """Durations as OpenAI and Groq write them, seconds as Azure does; instants and nonsense are no advice."""
    assert rate_limit_ms({"x-ratelimit-reset-tokens": told}) == wait_ms


def test_the_limit_that_is_used_up_counts() -> None:
    """A caller waits for the limit it ran into; where nobody says which, for the sooner one."""
    resets = {"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "1m"}
    no_tokens = {"x-ratelimit-remaining-requests": "99", "x-ratelimit-remaining-tokens": "0"}
    nothing = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"}

    assert rate_limit_ms(resets) == 1_000
    assert rate_limit_ms({**resets, **no_tokens}) == 60_000
    assert rate_limit_ms({**resets, **nothing}) == 60_000
    assert rate_limit_ms({}) is None
