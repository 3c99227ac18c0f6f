"""What stands for a service that is not configured: a cache that knows nothing, a safety that refuses to judge.

Chosen by the operator with an empty target; never a fallback for one that fails.
"""

from __future__ import annotations

from collections.abc import Sequence

from kit.errors import Unimplemented
from services.inference.caching import CacheFound, CacheKey
from services.inference.events import Receipt
from services.inference.recording import CachePlan
from services.inference.screening import Assessment, OutputPiece, OutputStream, Segment

REASON = "SAFETY_NOT_CONFIGURED"
ADVICE = "no safety service is configured; set MILLRACE_INFERENCE_SAFETY_TARGET, or profile `off` in the models file"


class AbsentCache:
    """Finds nothing and keeps nothing."""

    async def lookup(
        self, key: CacheKey, schema_tag: str, age_max_s: float | None, allow_stale: bool = False
    ) -> CacheFound | None:
        """Misses."""
        return None

    async def store(
        self, key: CacheKey, schema_tag: str, payload: bytes, plan: CachePlan, tags: tuple[str, ...], receipt: Receipt
    ) -> None:
        """Does nothing."""


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
