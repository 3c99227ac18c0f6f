"""The ledger's rows as plain data, and how they are made of what happened.

One `Entry` is what one request leaves: its own row, a row of each attempt that was made, and its texts where they are
kept. `Begun` is written when an attempt begins: of a process that dies it is all that is left, and it becomes the row
of an attempt that was lost. Fields are the columns of `tables`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import msgspec

from kit.spans import current_trace_hex
from services.inference.accounting.spending import Spent, spent
from services.inference.events import Attempt, AttemptOutcome, CacheOutcome, Receipt, Verdict
from services.inference.generation import FinishReason, Usage
from services.inference.request import Request

LOST, LOST_REASON = "lost", "PROCESS_LOST"
OUTCOMES = {
    AttemptOutcome.OK: "ok",
    AttemptOutcome.FAILED: "failed",
    AttemptOutcome.CANCELLED: "cancelled",
    AttemptOutcome.RUNNING: "cancelled",
}

FINISHES = {one: one.name.lower() for one in FinishReason}
CACHES = {one: one.name.lower() for one in CacheOutcome}
VERDICTS = {one: one.name.lower() for one in Verdict}


class Measured(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a request and an attempt have in common; None is unknown."""

    id: str
    engine: str = ""
    target: str = ""
    target_model: str = ""
    created_time_ms: int = 0
    duration_ms: float | None = None
    ttft_ms: float | None = None
    prompt_token_count: int | None = None
    completion_token_count: int | None = None
    cached_prompt_token_count: int | None = None
    reasoning_token_count: int | None = None
    usage_source: str = ""
    cost_micro_usd: int | None = None
    outcome: str = LOST
    error_reason: str = ""


class AttemptRow(Measured, kw_only=True):
    """One attempt."""

    number: int
    queue_ms: float | None = None
    hedged: bool = False


class RequestRow(Measured, kw_only=True):
    """One request; tokens and cost are those of all its attempts."""

    request_id: str
    kind: str = "generation"
    tenant: str
    principal: str
    key_id: str = ""
    key_name: str = ""
    model: str = ""
    route_reason: str = ""
    attempt_count: int = 0
    finish_reason: str = ""
    cache_outcome: str = ""
    safety_verdict: str = ""
    trace_id: str = ""


class Begun(msgspec.Struct, tag="begun", omit_defaults=True):
    """An attempt has begun."""

    request: RequestRow
    attempt: AttemptRow


class Entry(msgspec.Struct, tag="entry", omit_defaults=True):
    """What one request leaves."""

    request: RequestRow
    attempts: list[AttemptRow] = []
    prompt: str | None = None
    completion: str | None = None


Record = Begun | Entry
# What every encoded Begun has behind its first byte: msgspec writes the tag first.
_BEGUN = msgspec.msgpack.encode({"type": "begun"})[1:]


def is_begun(encoded: bytes) -> bool:
    """Whether an encoded record is a Begun, told without decoding it."""
    return encoded.startswith(_BEGUN, 1)


def new_id(now: float | None = None) -> str:
    """A UUID of version 7: its order is that of time, in milliseconds.

    Source: RFC 9562, section 5.7.
    """
    time_ms, drawn = int((time.time() if now is None else now) * 1000), random.getrandbits(74)
    start = f"{time_ms >> 16:08x}-{time_ms & 0xFFFF:04x}-7{drawn >> 62:03x}"
    return f"{start}-{0x8000 | drawn >> 48 & 0x3FFF:04x}-{drawn & 0xFFFF_FFFF_FFFF:012x}"


def first_id(time_ms: int) -> str:
    """The least id of an instant, for spans of time."""
    text = f"{max(0, time_ms) << 80:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def begun(request: Request, receipt: Receipt, attempt: Attempt) -> Begun:
    """What is known when an attempt begins."""
    return Begun(_request_row(request, receipt), _attempt_row(receipt.ledger_id, attempt))


def entry(request: Request, receipt: Receipt, outcome: str, error_reason: str) -> Entry:
    """What is known when a request has ended."""
    made = [one for one in receipt.attempts if one.outcome is not AttemptOutcome.SKIPPED]
    row = _request_row(request, receipt)
    row.outcome, row.error_reason = outcome, error_reason[:128]
    row.attempt_count, row.duration_ms, row.ttft_ms = len(made), _ms(receipt.duration_s), _ms(receipt.ttft_s)
    row.finish_reason = FINISHES[receipt.finish_reason] if receipt.finish_reason else ""
    row.cache_outcome = CACHES[receipt.cache.outcome] if receipt.cache else ""
    row.safety_verdict = VERDICTS[max(event.verdict for event in receipt.safety)] if receipt.safety else ""
    _write(row, spent(receipt))
    return Entry(row, [_ended(receipt.ledger_id, one) for one in made])


def lost(begins: Iterable[Begun]) -> Entry:
    """What the attempts of one request leave whose process has died: who, where and when; what they used is unknown."""
    every = list(begins)
    request = every[-1].request
    request.outcome, request.error_reason, request.attempt_count = LOST, LOST_REASON, len(every)
    for one in every:
        one.attempt.outcome, one.attempt.error_reason = LOST, LOST_REASON
    return Entry(request, [one.attempt for one in every])


def _request_row(request: Request, receipt: Receipt) -> RequestRow:
    caller = request.caller
    return RequestRow(
        id=receipt.ledger_id,
        request_id=receipt.request_id,
        kind=receipt.kind,
        tenant=request.tenant,
        principal=caller.principal,
        key_id=caller.key_id,
        key_name=caller.key_name,
        model=_fit(receipt.model),
        route_reason=_fit(receipt.route_reason),
        engine=receipt.engine,
        target=_fit(receipt.target),
        target_model=_fit(receipt.target_model),
        created_time_ms=int(receipt.created_time * 1000),
        trace_id=current_trace_hex(),
    )


def _attempt_row(row_id: str, attempt: Attempt) -> AttemptRow:
    return AttemptRow(
        id=row_id,
        number=attempt.number,
        engine=attempt.engine,
        target=_fit(attempt.target),
        target_model=_fit(attempt.target_model),
        created_time_ms=int(attempt.created_time * 1000),
        queue_ms=_ms(attempt.queue_s),
        hedged=attempt.hedged,
    )


def _ended(row_id: str, attempt: Attempt) -> AttemptRow:
    row = _attempt_row(row_id, attempt)
    row.outcome, row.error_reason = OUTCOMES[attempt.outcome], attempt.error_reason[:128]
    row.duration_ms, row.ttft_ms = _ms(attempt.duration_s), _ms(attempt.ttft_s)
    _write(row, Spent(attempt.usage, attempt.usage_source, attempt.cost_micro_usd))
    return row


def _write(row: Measured, used: Spent) -> None:
    usage: Usage = used.usage
    row.prompt_token_count, row.completion_token_count = usage.prompt_token_count, usage.completion_token_count
    row.cached_prompt_token_count = usage.cached_prompt_token_count
    row.reasoning_token_count = usage.reasoning_token_count
    row.usage_source, row.cost_micro_usd = used.source, used.cost_micro_usd


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else int(seconds * 1e6 + 0.5) / 1000


def _fit(name: str) -> str:
    """A name as a column takes it: others' names are as long as they like, and PostgreSQL takes no NUL."""
    return name[:256].replace("\x00", "") if len(name) > 256 or "\x00" in name else name
