"""What was done for a request, as one object beside OpenAI's own keys.

OpenAI's schemas allow further keys and its SDKs keep them, so that whoever looks finds it and nobody else is disturbed.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from millrace.inference.v1 import event_pb2 as pb
from services.edge.provenance import CACHE_OUTCOMES, CacheWord, milliseconds

Outcome: TypeAlias = Literal["running", "ok", "failed", "cancelled", "skipped"]
Verdict: TypeAlias = Literal["allow", "flag", "redact", "block"]

_OUTCOMES: dict[int, Outcome] = {
    pb.ATTEMPT_OUTCOME_UNSPECIFIED: "running",
    pb.ATTEMPT_OUTCOME_OK: "ok",
    pb.ATTEMPT_OUTCOME_FAILED: "failed",
    pb.ATTEMPT_OUTCOME_CANCELLED: "cancelled",
    pb.ATTEMPT_OUTCOME_SKIPPED: "skipped",
}
_VERDICTS: dict[int, Verdict] = {
    pb.SAFETY_VERDICT_UNSPECIFIED: "allow",
    pb.SAFETY_VERDICT_ALLOW: "allow",
    pb.SAFETY_VERDICT_FLAG: "flag",
    pb.SAFETY_VERDICT_REDACT: "redact",
    pb.SAFETY_VERDICT_BLOCK: "block",
}


class ReceiptAttempt(Struct):
    """A try at a target; `error` says why it failed, was cancelled or was not made."""

    target: str
    outcome: Outcome
    duration_ms: float
    error: str | UnsetType = UNSET
    ttft_ms: float | UnsetType = UNSET
    hedged: bool | UnsetType = UNSET


class ReceiptCache(Struct):
    """How the cache took part; the rest is told of hits."""

    outcome: CacheWord
    age_s: float | UnsetType = UNSET
    similarity: float | UnsetType = UNSET
    entry_id: str | UnsetType = UNSET


class ReceiptFinding(Struct):
    """What safety found; `start` and `end` are in code points of the message or answer as it came, never its text."""

    category: str
    action: Verdict
    score: float
    detector: str
    start: int
    end: int
    message_index: int | UnsetType = UNSET


class ReceiptSafety(Struct):
    """What safety said of the prompt or of an answer."""

    direction: Literal["input", "output"]
    verdict: Verdict
    profile: str
    findings: list[ReceiptFinding]
    choice_index: int | UnsetType = UNSET
    unscreened: bool | UnsetType = UNSET


class Receipt(Struct):
    """What was done for a request, by whom, how fast and for how much; what is not known is absent.

    `usage_estimated` stands where the upstream told no tokens and they were counted here.
    """

    request_id: str
    model: str
    target: str
    attempts: list[ReceiptAttempt]
    duration_ms: float
    route_reason: str | UnsetType = UNSET
    cache: ReceiptCache | UnsetType = UNSET
    cost_usd: float | UnsetType = UNSET
    ttft_ms: float | UnsetType = UNSET
    usage_estimated: bool | UnsetType = UNSET
    safety: list[ReceiptSafety] | UnsetType = UNSET


def receipt(done: pb.Receipt, route_reason: str) -> Receipt:
    """The receipt of an answer; `route_reason` says why its model was chosen, where the caller left that open."""
    return Receipt(
        request_id=done.request_id,
        model=done.model,
        target=done.target,
        attempts=[_attempt(one) for one in done.attempts],
        duration_ms=milliseconds(done.duration),
        route_reason=route_reason or UNSET,
        cache=_cache(done.cache) if done.HasField("cache") else UNSET,
        cost_usd=done.cost_micro_usd / 1e6 if done.HasField("cost_micro_usd") else UNSET,
        ttft_ms=milliseconds(done.ttft) if done.HasField("ttft") else UNSET,
        usage_estimated=done.usage.estimated or UNSET,
        safety=[_safety(event) for event in done.safety] or UNSET,
    )


def _attempt(made: pb.Attempt) -> ReceiptAttempt:
    return ReceiptAttempt(
        target=made.target,
        outcome=_OUTCOMES[made.outcome],
        duration_ms=milliseconds(made.duration),
        error=made.error_reason.lower() or UNSET,
        ttft_ms=milliseconds(made.ttft) if made.HasField("ttft") else UNSET,
        hedged=made.hedged or UNSET,
    )


def _cache(event: pb.CacheEvent) -> ReceiptCache | UnsetType:
    if event.outcome not in CACHE_OUTCOMES:
        return UNSET
    return ReceiptCache(
        outcome=CACHE_OUTCOMES[event.outcome],
        age_s=milliseconds(event.age) / 1000 if event.HasField("age") else UNSET,
        similarity=event.similarity if event.HasField("similarity") else UNSET,
        entry_id=event.entry_id or UNSET,
    )


def _safety(event: pb.SafetyEvent) -> ReceiptSafety:
    is_input = event.direction == pb.SAFETY_DIRECTION_INPUT
    return ReceiptSafety(
        direction="input" if is_input else "output",
        verdict=_VERDICTS[event.verdict],
        profile=event.profile,
        findings=[_finding(one, is_input) for one in event.findings],
        choice_index=event.choice_index if event.HasField("choice_index") else UNSET,
        unscreened=event.unscreened or UNSET,
    )


def _finding(found: pb.SafetyFinding, is_input: bool) -> ReceiptFinding:
    return ReceiptFinding(
        category=found.category,
        action=_VERDICTS[found.action],
        score=found.score,
        detector=found.detector,
        start=found.start,
        end=found.end,
        message_index=found.message_index if is_input else UNSET,
    )
