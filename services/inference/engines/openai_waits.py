"""How long an upstream asks to be left alone, as its headers tell.

`retry-after-ms` and `Retry-After` are advice and come first; the rate-limit headers of OpenAI, Azure, Groq and others
only tell when a limit is fresh again, and are read where there is no advice. Nonsense is no advice.
"""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

RETRY_AFTER_MS_MAX = 24 * 3_600_000  # who asks for more than a day has a broken clock
LIMITS = ("requests", "tokens")
UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")  # as Go writes them: 6m0s, 1h2m3.5s, 20ms
PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
SECONDS = re.compile(r"\d+(?:\.\d+)?")


def retry_after_ms(headers: Mapping[str, str]) -> int | None:
    """The wait that an answer asks for: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    milliseconds, value = headers.get("retry-after-ms", "").strip(), headers.get("retry-after", "").strip()
    if SECONDS.fullmatch(milliseconds):
        return _bounded(float(milliseconds))
    if SECONDS.fullmatch(value):
        return _bounded(float(value) * 1000)
    try:
        return _bounded((email.utils.parsedate_to_datetime(value).timestamp() - time.time()) * 1000)
    except (ValueError, TypeError, OverflowError):
        return None


def rate_limit_ms(headers: Mapping[str, str]) -> int | None:
    """When a rate limit is fresh again: that of the limit that is used up, else the sooner one."""
    resets = {kind: reset_ms for kind in LIMITS if (reset_ms := _reset_ms(headers, kind)) is not None}
    used_up = [ms for kind, ms in resets.items() if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0"]
    return max(used_up) if used_up else min(resets.values(), default=None)


def _reset_ms(headers: Mapping[str, str], kind: str) -> int | None:
    value = headers.get(f"x-ratelimit-reset-{kind}", "").strip()
    if SECONDS.fullmatch(value):
        wait_ms = float(value) * 1000
    elif DURATION.fullmatch(value):
        wait_ms = sum(float(number) * UNIT_MS[unit] for number, unit in PIECE.findall(value))
    else:
        return None
    return int(wait_ms) if wait_ms <= RETRY_AFTER_MS_MAX else None  # else an instant, or no help to anybody


def _bounded(wait_ms: float) -> int:
    if not math.isfinite(wait_ms):
        raise ValueError("no time to wait for")
    return int(min(max(0.0, wait_ms), RETRY_AFTER_MS_MAX))
