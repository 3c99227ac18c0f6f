"""Recording: which answers the cache may give or keep, under which key, in which form.

The key is a digest over everything that shapes the answer; what shapes only its transport (streamed or not) stays
out. The form is this module's own, opaque to the cache. It never talks to the cache: `caching` does.
"""

from __future__ import annotations

import hashlib

import msgspec

from services.inference.events import Direction, Event, Receipt, SafetyEvent
from services.inference.generation import ChoiceFinished, Delta, EngineEvent, FinishReason, Prompt, Usage
from services.inference.request import CacheWish, Request
from services.inference.rules import CacheRule, DegradeRule

SCHEMA_TAG = "millrace.generation.v1"
CANONICALISATION_VERSION = 1

_encode_key = msgspec.msgpack.Encoder(order="sorted").encode
_encode = msgspec.msgpack.Encoder().encode


class Recorded(msgspec.Struct, frozen=True):
    """A complete answer as it is kept: the deltas with their boundaries, and what the receipt needs."""

    deltas: list[Delta]
    finished: list[ChoiceFinished]
    usage: Usage
    policy_version: str
    safety: list[SafetyEvent]
    target: str
    target_model: str
    system_fingerprint: str


_decode = msgspec.msgpack.Decoder(Recorded).decode


class CachePlan(msgspec.Struct, frozen=True):
    """How the cache takes part in one request; `reason` tells why where it does not.

    `stale_for_s` is how long past its time an answer may still be given where all else has failed; None: never.
    """

    reads: bool
    writes: bool
    reason: str = ""
    ttl_s: float = 0.0
    scope_user: str = ""
    stale_for_s: float | None = None


def plan(request: Request, rule: CacheRule, degrade: DegradeRule) -> CachePlan:
    """Joins the caller's wish with the route's rules; the caller can narrow them, never widen it."""
    wish = request.cache
    sampling = request.prompt.sampling
    if not rule.enabled:
        return CachePlan(False, False, "the route does not use the cache")
    if wish.mode == "off":
        return CachePlan(False, False, "the caller asked for no caching")
    if sampling.temperature and sampling.seed is None and not rule.sampled:
        return CachePlan(False, False, "the request asks for variety: temperature above 0 and no seed")
    user = request.prompt.end_user_id or "" if _scope(wish, rule) == "user" else ""
    if _scope(wish, rule) == "user" and not user:
        return CachePlan(False, False, "entries are per user, and the request names none")
    return CachePlan(
        reads=wish.mode != "refresh",
        writes=wish.mode != "read_only",
        reason="the caller asked for a fresh answer" if wish.mode == "refresh" else "",
        ttl_s=min(rule.ttl_s, wish.ttl_s or rule.ttl_s),
        scope_user=user,
        stale_for_s=degrade.stale_for_s if degrade.stale else None,
    )


def _scope(wish: CacheWish, rule: CacheRule) -> str:
    return "user" if "user" in (wish.scope, rule.scope) else "tenant"


def digest(model_name: str, targets: tuple[str, ...], prompt: Prompt, profile: str) -> bytes:
    """The 32 bytes that stand for a request: the same for the same question to the same model under the same profile.

    The targets of the route take part, a caller's fallbacks included, for any of them may have answered: who would not
    be sent there must not get its answer, and a changed models file asks anew. Neither the end user nor the caller's
    labels do: the first is the namespace's matter, the second nobody's.
    """
    biases = sorted(prompt.sampling.logit_bias.items())  # the encoder orders maps of text keys only
    sampling = msgspec.structs.replace(prompt.sampling, logit_bias={})
    shaping = msgspec.structs.replace(
        prompt, model=model_name, streamed=False, end_user_id=None, metadata={}, sampling=sampling
    )
    canonical = _encode_key((CANONICALISATION_VERSION, SCHEMA_TAG, profile, targets, biases, shaping))
    return hashlib.sha256(canonical).digest()


class Recorder:
    """Listens to a generation and keeps what a later caller would need to see it again."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._finished: list[ChoiceFinished] = []

    def take(self, event: Event | EngineEvent) -> None:
        """Listens to one event."""
        if isinstance(event, Delta):
            self._deltas.append(event)
        elif isinstance(event, ChoiceFinished):
            self._finished.append(event)

    def payload(self, receipt: Receipt, policy_version: str) -> bytes | None:
        """The answer as bytes, or None where it must not be kept: cut by a filter, or let through unscreened."""
        if any(one.finish_reason is FinishReason.CONTENT_FILTER for one in self._finished):
            return None
        if any(event.unscreened for event in receipt.safety):
            return None
        said = [event for event in receipt.safety if event.direction is Direction.OUTPUT]  # prompts are judged anew
        recorded = Recorded(
            self._deltas, self._finished, receipt.usage, policy_version, said, receipt.target,
            receipt.target_model, receipt.system_fingerprint,
        )  # fmt: skip
        return _encode(recorded)


def read(payload: bytes) -> Recorded | None:
    """Reads a kept answer; None where its form is not this one's, which is a miss and no error."""
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
