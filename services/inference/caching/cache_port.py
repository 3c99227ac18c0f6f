"""The cache service as the pipeline sees it: what is asked of it, what it says, and the port that carries both.

Nouns only. Payloads are opaque here as they are to the cache; `recording` alone reads them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec

from services.inference.events import CacheOutcome, Receipt

STORE_UNAVAILABLE = "STORE_UNAVAILABLE"  # the reason of a miss that is none: the cache cannot see its entries


class CacheKey(msgspec.Struct, frozen=True):
    """What an answer is kept under; nothing is shared between two keys that differ anywhere.

    `context` stands for all but the text that similar requests may differ in; empty where none may differ.
    """

    tenant: str
    user: str
    model: str
    digest: bytes
    context: bytes = b""


class SemanticQuery(msgspec.Struct, frozen=True):
    """Asks for answers to similar texts; None leaves a bound to the cache service."""

    text: str
    similarity_min: float | None = None
    error_max: float | None = None


class CacheQuery(msgspec.Struct, frozen=True):
    """What is looked for.

    `lease_s` asks, on a miss, for the lease to make the answer, for so many seconds; `refresh` also on a hit, where the
    entry is about to expire.
    """

    key: CacheKey
    age_max_s: float | None = None
    allow_stale: bool = False
    semantic: SemanticQuery | None = None
    lease_s: float | None = None
    refresh: bool = False


class CacheFound(msgspec.Struct, frozen=True):
    """An entry that the cache gave. With a `refresh_lease_id` this caller, and no other, is to make the answer anew."""

    outcome: CacheOutcome
    chunks: tuple[bytes, ...]
    entry_id: str
    age_s: float
    similarity: float | None = None
    reason: str = ""
    refresh_lease_id: str = ""


class Shadow(msgspec.Struct, frozen=True):
    """A would-be hit that was held back, to be compared with a fresh answer."""

    shadow_id: str
    chunks: tuple[bytes, ...]


class CacheMiss(msgspec.Struct, frozen=True):
    """No answer. With a `lease_id` this caller is to make it; `leased` tells that another one is making it."""

    reason: str = ""
    lease_id: str = ""
    leased: bool = False
    shadow: Shadow | None = None


class FlightBegun(msgspec.Struct, frozen=True):
    """Another caller makes the answer; what it has so far follows, and then the rest as it comes."""


class FlightRestarted(msgspec.Struct, frozen=True):
    """The caller that was followed has failed: what came since the flight began belongs to no answer."""


class FlightWaits(msgspec.Struct, frozen=True):
    """There is nothing new of the answer, and the cache is there."""


class FlightLanded(msgspec.Struct, frozen=True):
    """The answer that was followed is complete."""

    entry_id: str


# What is heard of an answer that is being made: chunks are bytes; a find, a miss or a landing is the last of it.
FlightNews = CacheFound | CacheMiss | FlightBegun | bytes | FlightWaits | FlightRestarted | FlightLanded


class CacheDraft(msgspec.Struct, frozen=True):
    """What is said of an answer that is to be kept; without `compare_text` only the very same request finds it."""

    key: CacheKey
    ttl_s: float
    stale_for_s: float | None = None
    tags: tuple[str, ...] = ()
    compare_text: str | None = None


class Comparison(msgspec.Struct, frozen=True):
    """What came of comparing a shadow with the fresh answer."""

    shadow_id: str
    fits: bool


class ErrorEstimate(msgspec.Struct, frozen=True):
    """A share of wrong answers, the ends of its 95 % interval, and the comparisons that it rests on."""

    share: float
    share_low: float
    share_high: float
    sample_count: int


class CacheFigures(msgspec.Struct, frozen=True):
    """What the cache service holds, and has done since it started; sizes are None while its store does not answer."""

    store: str
    store_available: bool
    entry_count: int | None
    size_bytes: int | None
    hit_count_by_kind: dict[str, int]
    shared_hit_count: int
    miss_count_by_reason: dict[str, int]
    false_hit_count: int
    saved_prompt_token_count: int
    saved_completion_token_count: int
    saved_cost_micro_usd: int
    saved_generation_s: float
    semantic_error: ErrorEstimate | None = None


class StoreStream(Protocol):
    """An answer that is kept while it is made; every chunk renews the lease."""

    async def followed(self) -> None:
        """Returns when somebody waits for the answer, or the stream is over."""
        ...

    async def send(self, chunk: bytes) -> None:
        """Hands a chunk over."""
        ...

    async def finish(self, receipt: Receipt, comparison: Comparison | None) -> None:
        """Says that the answer is complete, and returns when it is kept."""
        ...

    async def give_up(self) -> None:
        """Ends it without an answer behind all that was sent, so that one of those who wait takes over."""
        ...

    def cancel(self) -> None:
        """Ends it without an answer at once; harmless when it is over."""
        ...


class CachePort(Protocol):
    """The cache service, or what stands for it; failures are raised as `kit.errors` classes."""

    async def lookup(self, query: CacheQuery) -> CacheFound | CacheMiss:
        """Finds an entry, or says who makes the answer."""
        ...

    def follow(self, query: CacheQuery, wait_s: float) -> AsyncGenerator[FlightNews, None]:
        """Finds an entry, or tells of one that is being made; who makes it may have changed when it begins.

        A replica that goes away is replaced by another one, which tells the flight from its beginning: a restart.

        Args:
            query: As for `lookup`, with `lease_s`.
            wait_s: Longest wait, in seconds, for the first chunk of each caller that is followed.
        """
        ...

    async def store(
        self,
        draft: CacheDraft,
        chunks: Sequence[bytes],
        receipt: Receipt,
        lease_id: str = "",
        comparison: Comparison | None = None,
    ) -> None:
        """Keeps an entry and ends the lease under which it was made."""
        ...

    def store_stream(self, draft: CacheDraft, lease_id: str, timeout_s: float) -> StoreStream:
        """Keeps an entry while it is made, which may take so many seconds."""
        ...

    async def release(self, lease_id: str) -> None:
        """Gives a lease back without an answer."""
        ...

    async def figures(self) -> CacheFigures | None:
        """What the cache counts, of all tenants; None where there is no cache."""
        ...

    async def report_false_hit(self, key: CacheKey, entry_id: str, text: str | None) -> bool:
        """Says that an entry did not fit (a text, where it was a semantic hit); false if it was gone.

        Of the key only tenant and user count.
        """
        ...
