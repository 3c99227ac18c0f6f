"""What happens during a generation, beyond the engine's own events, and the receipt that sums it up."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import IntEnum

import msgspec

from services.inference.generation import ChoiceFinished, Delta, FinishReason, Usage
from services.inference.quota.limit import LimitState
from services.inference.quota.reservation import Reservation


class CacheOutcome(IntEnum):
    """How the cache took part; the numbers are the contract's."""

    EXACT = 1
    SEMANTIC = 2
    STALE = 3
    MISS = 4
    BYPASS = 5
    UNAVAILABLE = 6


class Direction(IntEnum):
    """Which text safety judged; the numbers are the contract's."""

    INPUT = 1
    OUTPUT = 2


class Verdict(IntEnum):
    """What safety decided, in order of severity; the numbers are the contract's."""

    ALLOW = 1
    FLAG = 2
    REDACT = 3
    BLOCK = 4


class AttemptOutcome(IntEnum):
    """How a try at a target ended; the numbers are the contract's."""

    RUNNING = 0
    OK = 1
    FAILED = 2
    CANCELLED = 3
    SKIPPED = 4


class Started(msgspec.Struct):
    """The request was admitted and prepared; `created_time` is seconds since the epoch."""

    request_id: str
    model: str
    route_reason: str
    created_time: float
    cache: CacheEvent | None = None
    limits: tuple[LimitState, ...] = ()


class Finding(msgspec.Struct, frozen=True):
    """One thing that safety found; the span is in code points, never the text itself."""

    category: str
    score: float
    detector: str
    start: int = 0
    end: int = 0
    message_index: int = 0
    action: Verdict = Verdict.FLAG


class Redacted(Finding, frozen=True):
    """A finding that was replaced: by "<CATEGORY>", or by a numbered token where there is a way back."""

    placeholder: str = ""


class SafetyEvent(msgspec.Struct, frozen=True, tag_field="is", tag="safety", omit_defaults=True):
    """What safety found, or that text went unscreened."""

    direction: Direction
    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    profile: str = ""
    policy_version: str = ""
    choice_index: int | None = None
    unscreened: bool = False


class CacheEvent(msgspec.Struct, frozen=True):
    """How the cache took part; age in seconds."""

    outcome: CacheOutcome
    similarity: float | None = None
    age_s: float | None = None
    entry_id: str = ""
    reason: str = ""

    @property
    def is_hit(self) -> bool:
        """Whether the answer came from the cache."""
        return self.outcome <= CacheOutcome.STALE


class Attempt(msgspec.Struct):
    """A try at one target; durations in seconds.

    `queue_s` was waited for a slot, before the start. A `hedged` one was started beside one that was slow to begin.
    `usage_source` says how surely the usage is known: reported, counted or estimated.
    """

    number: int
    engine: str
    target: str
    outcome: AttemptOutcome = AttemptOutcome.RUNNING
    error_reason: str = ""
    duration_s: float = 0.0
    ttft_s: float | None = None
    hedged: bool = False
    queue_s: float = 0.0
    target_model: str = ""
    created_time: float = 0.0
    usage: Usage = Usage()
    usage_source: str = ""
    cost_micro_usd: int | None = None


class AttemptEvent(msgspec.Struct):
    """A try began, was not made, or ended without an answer."""

    attempt: Attempt


class Receipt(msgspec.Struct):
    """What was done for a request, by whom, how fast and for how much; filled in as the request goes.

    `limits` says where those of the caller stood when it was let in or refused; `reservation` is what it still holds
    of them, to be settled or released where the request ends. `produced` has the tokens of each choice so far, where
    its engine counts as it goes. `kind` is generation or embedding; `ledger_id` is the id of its row in the ledger, and
    `texts` tells the prompt and the answer that go with it, where they are kept. `usage` is the answer's,
    `cost_micro_usd` that of every attempt.
    """

    request_id: str
    model: str
    route_reason: str = ""
    created_time: float = 0.0
    engine: str = ""
    target: str = ""
    target_model: str = ""
    attempts: list[Attempt] = []
    cache: CacheEvent | None = None
    safety: list[SafetyEvent] = []
    cost_micro_usd: int | None = None
    duration_s: float = 0.0
    ttft_s: float | None = None
    system_fingerprint: str = ""
    usage: Usage = Usage()
    limits: tuple[LimitState, ...] = ()
    reservation: Reservation | None = None
    produced: dict[int, int] = {}
    kind: str = "generation"
    finish_reason: FinishReason | None = None
    ledger_id: str = ""
    texts: Callable[[], tuple[str, str]] | None = None

    def age_s(self) -> float:
        """Seconds since the request came; none where the clock was put back meanwhile."""
        return max(0.0, time.time() - self.created_time)


class Completed(msgspec.Struct):
    """The answer is complete; always the last event."""

    usage: Usage
    receipt: Receipt


Event = Started | Delta | ChoiceFinished | SafetyEvent | CacheEvent | AttemptEvent | Completed
