"""What stands for a service that is not configured: a cache that knows nothing, a safety that refuses to judge.

Chosen by the operator with an empty target; never a fallback for one that fails.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from kit.errors import Unimplemented
from services.inference.caching.cache_port import (
    CacheDraft,
    CacheKey,
    CacheMiss,
    CacheQuery,
    Comparison,
    FlightNews,
    StoreStream,
)
from services.inference.events import Receipt
from services.inference.screening.safety_port import Assessment, OutputPiece, OutputStream
from services.inference.screening.segments import Segment

REASON = "SAFETY_NOT_CONFIGURED"
ADVICE = "no safety service is configured; set MILLRACE_INFERENCE_SAFETY_TARGET, or profile `off` in the models file"
CACHE_ADVICE = "no cache service is configured; set MILLRACE_INFERENCE_CACHE_TARGET"


class AbsentCache:
    """Finds nothing, keeps nothing and gives no leases."""

    async def lookup(self, query: CacheQuery) -> CacheMiss:
        """Misses."""
        return CacheMiss()

    async def follow(self, query: CacheQuery, wait_s: float) -> AsyncGenerator[FlightNews, None]:
        """Misses."""
        yield CacheMiss()

    async def store(
        self,
        draft: CacheDraft,
        chunks: Sequence[bytes],
        receipt: Receipt,
        lease_id: str = "",
        comparison: Comparison | None = None,
    ) -> None:
        """Does nothing."""

    def store_stream(self, draft: CacheDraft, lease_id: str, timeout_s: float) -> StoreStream:
        """Raises Unimplemented: there is no lease under which one could be made."""
        raise Unimplemented("CACHE_NOT_CONFIGURED", CACHE_ADVICE)

    async def release(self, lease_id: str) -> None:
        """Does nothing."""

    async def figures(self) -> None:
        """There are none."""

    async def report_false_hit(self, key: CacheKey, entry_id: str, text: str | None) -> bool:
        """Raises Unimplemented."""
        raise Unimplemented("CACHE_NOT_CONFIGURED", CACHE_ADVICE)


class AbsentSafety:
    """Refuses to judge: a request under a profile other than `off` fails as the route's rule says."""

    async def check_input(self, profile: str, segments: Sequence[Segment]) -> Assessment:
        """Raises Unimplemented."""
        raise Unimplemented(REASON, ADVICE)

    async def check_output(self, profile: str, pieces: Sequence[OutputPiece]) -> Assessment:
        """Raises Unimplemented."""
        raise Unimplemented(REASON, ADVICE)

    async def scores(self, profile: str, text: str) -> tuple[dict[str, tuple[float, bool]], str]:
        """Raises Unimplemented."""
        raise Unimplemented(REASON, ADVICE)

    def stream_output(self, profile: str, choice_count: int) -> OutputStream:
        """Raises Unimplemented."""
        raise Unimplemented(REASON, ADVICE)
